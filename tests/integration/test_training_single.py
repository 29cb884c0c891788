"""Whole trainings in this process, a world of one: files, resuming, early stopping, failures."""

import dataclasses
import gc
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import PeftModel
from training_gang import make_inputs, make_job
from transformers import WhisperForConditionalGeneration

from wfc_dist.data.sources import open_split
from wfc_dist.errors import ConfigError, IntegrityError, Interrupted, TrainingError
from wfc_dist.training.engine import make_engine
from wfc_dist.training.job import Progress, TrainingJob, TrainingResult
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build
from wfc_dist.training.trainer import train_adapter
from wfc_dist.training.world import World, join_world
from wfc_dist.weights import peft_folder
from wfc_dist.weights.warm_base import WarmBase


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def warm(inputs: Path) -> WarmBase:
    return WarmBase(make_job(inputs, "unused").base)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    before = dict(os.environ)
    yield join_world(1, 0, 0, "127.0.0.1", 0)
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)


def stop_at(job: TrainingJob, step: int) -> Any:
    """Returns a callback that asks for a stop in time for `step` to be the last."""

    def callback(progress: Progress) -> None:
        if progress.step == step - 1:
            Path(job.stop_file).touch()

    return callback


def interrupt(job: TrainingJob, warm: WarmBase, world: World, step: int) -> None:
    with pytest.raises(Interrupted, match=f"round 1, data set tones: stopped at step {step}"):
        train_adapter(job, warm, world, stop_at(job, step))
    Path(job.stop_file).unlink()


def rows(job: TrainingJob) -> list[dict[str, Any]]:
    """Returns the metrics log, without the seconds that a step took."""
    logged = [json.loads(line) for line in Path(job.metrics_file).read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("step_s", "data_wait_s")} for row in logged]


def test_the_adapter_loads_with_peft_and_as_factors(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "plain", max_steps=3)
    progress: list[Progress] = []

    result = train_adapter(job, warm, world, progress.append)

    folder = Path(job.output_dir)
    model = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(job.base.path), folder)
    factors = peft_folder.read_factors(folder)
    assert result.sha256 == peft_folder.folder_sha256(folder)
    assert model.peft_config["default"].base_model_name_or_path == job.base.path
    assert len(factors) == 12 and all(item.b_OR.any() for item in factors.values())
    for name, item in factors.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        assert torch.equal(layer.lora_A["default"].weight, item.a_RI) and torch.equal(layer.lora_B["default"].weight, item.b_OR)
    assert (result.steps, result.best_step, result.resumed_from, result.dev_loss) == (3, 3, 0, None)
    assert result.hours == pytest.approx(18 / 3600)  # nine clips of 1, 2 and 3 s
    assert [item.step for item in progress] == [1, 2, 3]
    assert [row["step"] for row in rows(job)] == [1, 2, 3]
    assert sum(row["speech_seconds"] for row in rows(job)) == pytest.approx(result.speech_seconds)


@pytest.fixture(scope="module")
def straight(inputs: Path, warm: WarmBase, world: World) -> tuple[TrainingJob, TrainingResult]:
    """Eight steps without a stop."""
    job = make_job(inputs, "straight", eval_every=3)
    return job, train_adapter(job, warm, world)


def test_a_stopped_training_goes_on_bit_for_bit(
    inputs: Path, warm: WarmBase, world: World, straight: tuple[TrainingJob, TrainingResult]
) -> None:
    job, expected = make_job(inputs, "stopped", eval_every=3), straight[1]

    interrupt(job, warm, world, 3)
    torch.manual_seed(99)  # another process would have other generators
    result = train_adapter(job, warm, world)

    assert result.sha256 == expected.sha256
    assert result.resumed_from == 3
    unequal = {"resumed_from": 0, "seconds": 0.0, "data_wait_s": 0.0}
    assert dataclasses.replace(result, **unequal) == dataclasses.replace(expected, **unequal)
    assert rows(job) == rows(straight[0])


def test_a_training_in_bf16_goes_on_bit_for_bit(inputs: Path, warm: WarmBase, world: World) -> None:
    straight, job = (make_job(inputs, f"bf16-{name}", max_steps=4, precision="bf16") for name in ("straight", "stopped"))
    expected = train_adapter(straight, warm, world)

    interrupt(job, warm, world, 2)
    torch.manual_seed(99)
    result = train_adapter(job, warm, world)

    assert result.sha256 == expected.sha256 and result.resumed_from == 2
    assert rows(job) == rows(straight)


def test_a_damaged_checkpoint_costs_steps_and_no_bits(
    inputs: Path, warm: WarmBase, world: World, straight: tuple[TrainingJob, TrainingResult]
) -> None:
    job = make_job(inputs, "damaged", checkpoint_every=2, eval_every=3)
    interrupt(job, warm, world, 5)
    (Path(job.checkpoint_dir) / "step-5" / "state.safetensors").write_bytes(b"torn")

    result = train_adapter(job, warm, world)

    assert result.resumed_from == 4
    assert result.sha256 == straight[1].sha256
    assert rows(job) == rows(straight[0])  # no step stands twice


@pytest.fixture
def no_loader_is_left() -> Iterator[None]:
    """Fails a test that leaves a thread or a process which was not there before."""
    before = psutil.Process().children()
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")] == []
    assert set(psutil.Process().children()) <= set(before)


@pytest.mark.usefixtures("no_loader_is_left")
@pytest.mark.parametrize("workers", [(1, 0), (3, 1), (0, 2)], ids=str)
def test_loader_threads_change_no_bit_across_a_resume_with_another_number(
    inputs: Path, warm: WarmBase, world: World, straight: tuple[TrainingJob, TrainingResult], workers: tuple[int, int]
) -> None:
    first, later = workers
    job = make_job(inputs, f"loaders-{first}", eval_every=3, loader_workers=first)
    interrupt(job, warm, world, 3)
    job = dataclasses.replace(job, train=job.train.model_copy(update={"loader_workers": later}))

    result = train_adapter(job, warm, world)

    assert result.resumed_from == 3 and result.sha256 == straight[1].sha256
    assert rows(job) == rows(straight[0])


def test_the_log_says_how_long_every_step_waited_for_its_data(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "waiting", max_steps=3, loader_workers=1)
    result = train_adapter(job, warm, world)

    logged = [json.loads(line) for line in Path(job.metrics_file).read_text().splitlines()]
    assert all(row["step_s"] > 0 and row["data_wait_s"] >= 0 for row in logged)
    assert result.data_wait_s == pytest.approx(sum(row["data_wait_s"] for row in logged), abs=1e-5) and result.data_wait_s > 0


@pytest.mark.usefixtures("no_loader_is_left")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_that_fails_leaves_no_loader(inputs: Path, warm: WarmBase, world: World, workers: int) -> None:
    job = make_job(inputs, "failing", lr=1e12, warmup_steps=0, schedule="constant", loader_workers=workers)
    with pytest.raises(TrainingError, match=r"loss (nan|inf)"):
        train_adapter(job, warm, world)


def test_a_stop_before_the_first_step_leaves_a_checkpoint_too(inputs: Path, warm: WarmBase, world: World) -> None:
    job, whole = make_job(inputs, "at-once", max_steps=3), make_job(inputs, "plain", max_steps=3)
    Path(job.stop_file).touch()
    with pytest.raises(Interrupted, match="step 0"):
        train_adapter(job, warm, world)
    Path(job.stop_file).unlink()

    result = train_adapter(job, warm, world)

    assert (Path(job.checkpoint_dir) / "step-0" / "manifest.json").is_file()
    assert result.sha256 == train_adapter(whole, warm, world).sha256


def test_two_data_seeds_train_two_adapters_from_one_start(inputs: Path, warm: WarmBase, world: World) -> None:
    first = train_adapter(make_job(inputs, "seed-1", max_steps=2), warm, world)
    other_job = dataclasses.replace(make_job(inputs, "seed-2", max_steps=2), data_seed=12)

    assert train_adapter(other_job, warm, world).sha256 != first.sha256


def test_early_stopping_keeps_the_best_adapter_across_a_stop(inputs: Path, warm: WarmBase, world: World) -> None:
    settings = {"max_steps": 12, "lr": 2.0, "warmup_steps": 0, "schedule": "constant", "eval_every": 1,
                "early_stopping": {"metric": "loss", "patience": 3}}  # fmt: skip
    straight, stopped = make_job(inputs, "early", **settings), make_job(inputs, "early-stopped", **settings)
    expected = train_adapter(straight, warm, world)

    interrupt(stopped, warm, world, 2)
    result = train_adapter(stopped, warm, world)

    losses = {row["step"]: row["dev_loss"] for row in rows(straight) if "dev_loss" in row}
    assert expected.steps < 12 and expected.best_step == expected.steps - 3
    assert expected.dev_loss == min(losses.values()) == losses[expected.best_step]
    assert (result.sha256, result.best_step, result.steps) == (expected.sha256, expected.best_step, expected.steps)
    best = make_job(inputs, "early-best", **(settings | {"max_steps": expected.best_step}))
    assert train_adapter(best, warm, world).sha256 == expected.sha256


def test_dev_error_can_decide(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "error", max_steps=2, eval_every=2, early_stopping={"metric": "error", "patience": 1})

    result = train_adapter(job, warm, world)

    assert result.dev_error is not None and result.dev_error > 0 and result.dev_loss is None
    assert rows(job)[-1] == {"step": 2, "dev_error": result.dev_error}


def test_a_loss_that_is_not_finite_ends_with_advice(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "diverged", lr=1e12, warmup_steps=0, schedule="constant")

    with pytest.raises(TrainingError, match=r"round 1, data set tones: loss (nan|inf).* at step \d; lower train.lr"):
        train_adapter(job, warm, world)
    assert not list(Path(job.output_dir).iterdir())


def test_a_job_for_another_base_is_refused(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "other-base")
    other = dataclasses.replace(job, base=dataclasses.replace(job.base, index=1, sha256="other"))

    with pytest.raises(IntegrityError, match="holds base 0, the job is for base 1"):
        train_adapter(other, warm, world)


def test_a_changed_base_is_noticed(inputs: Path, world: World) -> None:
    job = make_job(inputs, "changed-base", max_steps=2)
    own = WarmBase(job.base)

    with pytest.raises(IntegrityError, match="training changed the frozen base"):
        train_adapter(job, own, world, lambda _: own.tensors["model.encoder.layers.0.self_attn.q_proj.weight"].data.add_(1e-3))


def test_half_precision_floats_are_refused_on_a_cpu(inputs: Path, warm: WarmBase, world: World) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        train_adapter(make_job(inputs, "fp16", precision="fp16"), warm, world)


def test_ranks_that_accelerate_does_not_see_are_refused(inputs: Path, warm: WarmBase, world: World) -> None:
    job = make_job(inputs, "unseen")
    loss = TokenLoss(build(warm, job.lora, 1), "fp32")

    with pytest.raises(TrainingError, match="Accelerate sees 1 processes, the trainer has 2"):
        make_engine(loss, job.train, World(2, 0))


@pytest.mark.parametrize("strategy", ["zero0", "zero1", "zero2", "zero3"])
def test_one_process_may_use_one_strategy_after_the_other(inputs: Path, warm: WarmBase, world: World, strategy: str) -> None:
    expected = train_adapter(make_job(inputs, f"before-{strategy}", max_steps=2), warm, world)

    sharded = train_adapter(make_job(inputs, strategy, max_steps=2, strategy=strategy), warm, world)
    gc.collect()
    left = [type(item) for item in gc.get_objects() if isinstance(item, TokenLoss | torch.optim.Optimizer)]
    again = train_adapter(make_job(inputs, f"after-{strategy}", max_steps=2), warm, world)

    assert not left  # a warm process must not keep a model or its moments for every adapter it has trained
    assert again.sha256 == expected.sha256
    assert sharded.final_loss == pytest.approx(expected.final_loss, rel=1e-6)


def test_dev_error_is_counted_with_the_metric_of_the_data_set(inputs: Path, warm: WarmBase, world: World) -> None:
    settings = {"max_steps": 2, "eval_every": 2, "early_stopping": {"metric": "error", "patience": 1}}
    jobs = [make_job(inputs, f"error-{name}", **settings) for name in ("words", "letters")]
    in_letters = jobs[1].data.model_copy(update={"metric": "cer"})

    words = train_adapter(jobs[0], warm, world).dev_error
    letters = train_adapter(dataclasses.replace(jobs[1], data=in_letters), warm, world).dev_error

    assert words is not None and letters is not None and words != letters
    texts = [clip.text for clip in open_split("tones", in_letters, "dev").clips]
    for rate, length in ((words, sum(len(text.split()) for text in texts)), (letters, sum(map(len, texts)))):
        assert rate * length == pytest.approx(round(rate * length), abs=1e-9), "a whole number of errors over the tokens"
