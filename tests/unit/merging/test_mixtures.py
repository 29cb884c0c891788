"""The search for the mixture of the least error, and the adapter that a mixture is decoded as."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from torch import nn

from wfc_dist.centralize.weights import asked_for
from wfc_dist.config import loading
from wfc_dist.config.centralize import CentralizeConfig
from wfc_dist.errors import ConfigError
from wfc_dist.merging.factors import Factors
from wfc_dist.merging.mixtures import STEPS, Mixture, least_error, neighbours
from wfc_dist.rounds import Adapter
from wfc_dist.weights import peft_folder

UNIFORM = Mixture((1 / 3, 1 / 3, 1 / 3), 1.0)


class Bowl:
    """An error with one lowest place, counted in hundredths as an error rate is counted in words; keeps what it was asked."""

    def __init__(self, weights: tuple[float, ...], scale: float) -> None:
        self._weights, self._scale, self.asked = weights, scale, list[list[Mixture]]()

    def __call__(self, mixtures: Sequence[Mixture]) -> list[float]:
        self.asked.append(list(mixtures))
        return [round(self.error(mixture), 2) for mixture in mixtures]

    def error(self, mixture: Mixture) -> float:
        away = sum((a - b) ** 2 for a, b in zip(mixture.weights, self._weights, strict=True))
        return 10 * away + (mixture.scale - self._scale) ** 2


@pytest.mark.parametrize(
    ("weights", "scale"), itertools.product([(0.1, 0.2, 0.7), (1.0, 0.0, 0.0), (1 / 3,) * 3], [0.6, 1.0, 2.3])
)
def test_the_search_comes_close_to_the_lowest_place(weights: tuple[float, ...], scale: float) -> None:
    bowl = Bowl(weights, scale)

    best, error, before = least_error(UNIFORM, bowl, weights=True, scale=True)

    assert error <= before == round(bowl.error(UNIFORM), 2)
    assert all(abs(a - b) < 0.1 for a, b in zip(best.weights, weights, strict=True))
    assert abs(best.scale - scale) < 0.125 * scale + 0.1
    assert sum(best.weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(("weights", "scale"), [(True, False), (False, True)])
def test_only_what_is_free_moves_and_nothing_is_asked_twice(weights: bool, scale: bool) -> None:
    bowl = Bowl((0.0, 0.0, 1.0), 3.0)

    best, *_ = least_error(UNIFORM, bowl, weights=weights, scale=scale)

    assert (best.weights != UNIFORM.weights, best.scale != 1.0) == (weights, scale)
    asked = [mixture for batch in bowl.asked for mixture in batch]
    assert len(asked) == len(set(asked))
    assert bowl.asked[0] == [UNIFORM] and len(bowl.asked[1]) == (3 if weights else 2)


def test_of_equals_the_first_stays() -> None:
    tried = list[Mixture]()

    def flat(mixtures: Sequence[Mixture]) -> list[float]:
        tried.extend(mixtures)
        return [0.5] * len(mixtures)

    assert least_error(UNIFORM, flat, weights=True, scale=True) == (UNIFORM, 0.5, 0.5)
    assert len(tried) == 1 + len(STEPS) * (3 + 2)


def test_one_adapter_has_a_scale_only() -> None:
    assert neighbours(Mixture((1.0,), 1.0), 0.5, weights=True, scale=False) == []
    assert least_error(Mixture((1.0,), 1.0), lambda mixtures: [0.5] * len(mixtures), weights=True, scale=False)[0].scale == 1.0


def test_what_is_asked_for() -> None:
    round_3 = [Adapter(name, "", "", "", hours) for name, hours in (("a", 2.0), ("b", 6.0))]

    assert asked_for(CentralizeConfig(), 3, round_3) == Mixture((1.0, 1.0), 1.0)
    assert asked_for(CentralizeConfig(weights="hours", scale=0.3), 3, round_3) == Mixture((2.0, 6.0), 0.3)
    assert asked_for(CentralizeConfig(weights={"b": 1.0, "a": 0.0}, scale="inverse_task"), 4, round_3) == Mixture((0.0, 1.0), 0.2)
    assert asked_for(CentralizeConfig(weights="fitted", scale="fitted"), 3, round_3) == Mixture((1.0, 1.0), 1.0)
    assert Mixture((2.0, 6.0), 0.5).coefficients() == [0.125, 0.375]


def test_steps_of_weight_averaging_give_the_mean_of_the_root_and_all_adapted_models() -> None:
    root, adapted = 2.0, (5.0, -1.0, 4.0, 8.0)
    base = root
    for round_index, model in enumerate(adapted, start=1):
        base += asked_for(CentralizeConfig(scale="inverse_task"), round_index, []).scale * (model - base)
    assert base == pytest.approx((root + sum(adapted)) / 5)


def test_a_mixture_is_an_adapter_that_peft_loads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 5, bias=False))
    before = [layer.weight.double() for layer in model]
    mixed = [
        {"0": Factors(torch.randn(r, 6), torch.randn(8, r), s), "1": Factors(torch.randn(r + 1, 8), torch.randn(5, r + 1), s)}
        for r, s in ((2, 2.0), (3, 0.5))
    ]
    config = LoraConfig(r=2, lora_alpha=4, target_modules=["0", "1"]).to_dict()
    peft_folder.write_peft(
        tmp_path, {}, {key: value for key, value in config.items() if not isinstance(value, set)} | {"target_modules": ["0", "1"]}
    )
    coefficients = Mixture((0.25, 0.75), 2.0).coefficients()
    out = tmp_path / "mixed"
    out.mkdir()

    sha256 = peft_folder.write_stacked(out, mixed, coefficients, tmp_path)
    merged = PeftModel.from_pretrained(model, out).merge_and_unload()

    for name, layer, weight in zip("01", merged, before, strict=True):
        update = sum(
            coefficient * item[name].scaling * item[name].b_OR.double() @ item[name].a_RI.double()
            for coefficient, item in zip(coefficients, mixed, strict=True)
        )
        assert torch.allclose(layer.weight.double(), weight + update, rtol=1e-5, atol=1e-5)
    assert sha256 == peft_folder.folder_sha256(out)


@pytest.mark.parametrize(
    ("centralize", "splits", "message"),
    [
        ({"weights": "fitted", "method": "ties"}, {"dev": "d"}, "fitted for method mean, not ties"),
        ({"scale": "fitted"}, {}, r"datasets.a.splits: a fit \(centralize\) needs a dev split"),
    ],
)
def test_what_cannot_be_fitted_is_refused(centralize: dict[str, object], splits: dict[str, str], message: str) -> None:
    tree = {"run": {"name": "x"}, "base": {"model": "m"}, "rounds": [["a"]], "centralize": centralize,
            "datasets": {"a": {"source": "a", "splits": {"train": "t", **splits}}}}  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        loading.parse(tree)
