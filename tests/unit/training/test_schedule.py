import math

import pytest

from wfc_dist.config.training import TrainConfig
from wfc_dist.training.schedule import lr_at


def config(schedule: str, warmup_steps: int = 4, max_steps: int = 10) -> TrainConfig:
    return TrainConfig(lr=1.0, schedule=schedule, warmup_steps=warmup_steps, max_steps=max_steps)


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "inverse_step", "cosine", "constant"])
def test_warm_up_is_linear_and_ends_at_lr(schedule: str) -> None:
    assert [lr_at(step, config(schedule)) for step in (1, 2, 3, 4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(("schedule", "first"), [("inverse_sqrt", 1.0), ("inverse_step", 1.0), ("constant", 1.0)])
def test_without_warm_up_the_first_step_has_lr(schedule: str, first: float) -> None:
    assert lr_at(1, config(schedule, warmup_steps=0)) == first


def test_inverse_sqrt_halves_at_four_times_the_warm_up() -> None:
    assert lr_at(16, config("inverse_sqrt", max_steps=20)) == 0.5


def test_inverse_step_is_lr_over_the_step_from_the_first_one_on() -> None:
    assert [lr_at(step, config("inverse_step", warmup_steps=0)) for step in (1, 2, 4)] == [1.0, 0.5, 0.25]
    assert lr_at(8, config("inverse_step")) == 0.5  # goes on from the end of the warm-up


def test_cosine_falls_to_almost_nothing_and_never_to_nothing() -> None:
    rates = [lr_at(step, config("cosine")) for step in range(4, 11)]

    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx((1 + math.cos(math.pi * 6 / 7)) / 2)
    assert rates[-1] > 0


def test_constant_stays() -> None:
    assert {lr_at(step, config("constant")) for step in range(4, 11)} == {1.0}
