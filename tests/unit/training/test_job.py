"""Which checkpoints a job goes on from: its own, and those of versions without its options."""

from pathlib import Path
from typing import Any

import pytest
import torch
from training_gang import make_job

from wfc_dist.training import state
from wfc_dist.training.job import TrainingJob


def save(job: TrainingJob, identity: dict[str, Any]) -> None:
    progress = state.TrainerProgress(step=3)
    snapshot = state.TrainingState(progress, {}, {}, [torch.zeros(1, dtype=torch.uint8)])
    state.save_state(snapshot, Path(job.checkpoint_dir), identity, attempt=1)


def goes_on(job: TrainingJob) -> bool:
    return state.newest_step(Path(job.checkpoint_dir), job.identity()) == 3


OTHERS: list[dict[str, Any]] = [
    {"lr": 2e-2}, {"max_steps": 9}, {"schedule": "inverse_step"}, {"optimizer": "sgd"}, {"precision": "bf16"},
    {"distillation": {"weight": 0.1}}, {"ewc": {"weight": 2.0}, "curvature": "fisher"}, {"lora": {"prior": {"beta": 0.1}}},
]  # fmt: skip


@pytest.mark.parametrize("settings", OTHERS, ids=str)
def test_a_checkpoint_of_other_settings_is_passed_over(tmp_path: Path, settings: dict[str, Any]) -> None:
    job = make_job(tmp_path, "job")
    save(job, job.identity())
    assert goes_on(job)

    assert not goes_on(make_job(tmp_path, "job", **settings))


@pytest.mark.parametrize(
    "settings", [{"strategy": "zero2"}, {"checkpoint_every": 5}, {"gradient_checkpointing": True}, {"curvature": "both"}], ids=str
)
def test_what_leaves_the_state_as_it_is_may_change(tmp_path: Path, settings: dict[str, Any]) -> None:
    job = make_job(tmp_path, "job")
    save(job, job.identity())

    assert goes_on(make_job(tmp_path, "job", **settings))


def old_identity(job: TrainingJob) -> dict[str, Any]:
    """Returns what version 0.1.0 wrote."""
    lora = {"r": 4, "alpha": 8.0, "dropout": 0.1, "target_modules": ["q_proj", "v_proj"], "variant": "lora"}
    return {"base_sha256": job.base.sha256, "dataset": "tones", "lora": lora, "init_seed": 7, "data_seed": 11}


@pytest.mark.parametrize("settings", [{}, {"lr": 2e-2}, {"schedule": "cosine"}], ids=str)
def test_a_checkpoint_that_does_not_say_how_it_was_trained_is_gone_on_with(tmp_path: Path, settings: dict[str, Any]) -> None:
    job = make_job(tmp_path, "job", **settings)
    save(job, old_identity(job))

    assert goes_on(job)


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": "sgd"}, {"distillation": {}}, {"ewc": {}, "curvature": "fisher"}, {"lora": {"prior": {}}}],
    ids=str,
)
def test_but_not_with_options_it_cannot_know(tmp_path: Path, settings: dict[str, Any]) -> None:
    job = make_job(tmp_path, "job", **settings)
    save(job, old_identity(job))

    assert not goes_on(job)
