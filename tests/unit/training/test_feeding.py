"""What feeds the trainer: the same batches from any number of threads, which end when the trainer does."""

import copy
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import tiny
import torch
from transformers import WhisperFeatureExtractor, WhisperProcessor

from wfc_dist.config.training import SpecAugmentConfig, TrainConfig
from wfc_dist.data.audio_files import AudioFile
from wfc_dist.data.batching import TrainingWindows
from wfc_dist.data.sources import Clip, Split
from wfc_dist.errors import InputError
from wfc_dist.training import feeding
from wfc_dist.training.feeding import feed, log_waiting
from wfc_dist.training.world import World

TIMEOUT_S = 60  # of events that come at once unless the code is wrong


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> TrainingWindows:
    """Eleven clips of noise, more or less one window each: three steps are longer than an epoch."""
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    sf.write(path, 0.1 * np.random.default_rng(0).standard_normal(31 * 16_000), 16_000)
    clips = [Clip(str(index), f"clip {index}", "en", 9.0 + index) for index in range(11)]
    split = Split("noise", "train", clips, [AudioFile(str(path), 0.0, clip.duration_s) for clip in clips])
    train = TrainConfig(max_steps=9, warmup_steps=0, batch_size=2, gradient_accumulation=3, spec_augment=SpecAugmentConfig())
    return TrainingWindows(
        split, train, WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tiny.make_tokenizer()), seed=7
    )


class Watched:
    """Windows that need no audio: they note what is made, and hold it up or fail as a test asks."""

    def __init__(self, num_micro_batches: int) -> None:
        self.num_micro_batches = num_micro_batches
        self.made: list[tuple[int, int]] = []
        self.on_step: dict[int, threading.Event] = {}
        self.go_on = threading.Event()
        self.failing: set[int] = set()

    def rows(self, step: int, micro: int, world_rank: int, world_size: int) -> Mapping[int, Any]:
        return {step: micro}

    def batch_of(self, rows: Mapping[int, Any]) -> Any:
        ((step, micro),) = rows.items()
        if step in self.failing:
            raise InputError(f"no audio at step {step}")
        self.made.append((step, micro))
        self.on_step.setdefault(step, threading.Event()).set()
        if step:
            self.go_on.wait(TIMEOUT_S)
        return rows

    def micro_batches(self, step: int, world_rank: int, world_size: int) -> list[Any]:
        return [self.batch_of(self.rows(step, micro, world_rank, world_size)) for micro in range(self.num_micro_batches)]


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("world", [World(), World(2, 1)], ids=["alone", "rank 1 of 2"])
def test_threads_change_neither_batches_nor_the_random_state(windows: TrainingWindows, world: World, num_threads: int) -> None:
    torch.set_num_threads(2)
    try:
        alone = list(feed(windows, 1, 3, world, 0))
        random_state = torch.get_rng_state()
        fed = list(feed(windows, 1, 3, world, num_threads))
        assert torch.equal(torch.get_rng_state(), random_state) and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert [step for step, _ in fed] == [step for step, _ in alone] == [1, 2, 3]
    for (_, batches), (_, others) in zip(fed, alone, strict=True):
        assert len(batches) == len(others) == 3
        for batch, other in zip(batches, others, strict=True):
            assert torch.equal(batch["input_features"], other["input_features"]) and torch.equal(batch["labels"], other["labels"])


def test_the_batches_are_those_of_their_positions(windows: TrainingWindows) -> None:
    for step, batches in feed(windows, 2, 2, World(2, 1), 2):
        for micro, batch in enumerate(batches):
            assert torch.equal(batch["input_features"], windows.batch(step, micro, 1, 2)["input_features"])


def test_threads_make_the_next_step_while_the_trainer_computes() -> None:
    watched: Any = Watched(num_micro_batches=2)
    watched.go_on.set()
    batches = feed(watched, 0, 9, World(), 1)
    watched.on_step = {step: threading.Event() for step in range(9)}

    assert next(batches)[0] == 0
    assert watched.on_step[1].wait(TIMEOUT_S), "step 1 is made although nobody has asked for it"
    batches.close()
    assert {step for step, _ in watched.made} == {0, 1}, "one step ahead, no more"


def test_many_threads_have_work_where_a_step_has_one_micro_batch() -> None:
    watched: Any = Watched(num_micro_batches=1)
    watched.on_step = {step: threading.Event() for step in range(20)}
    batches = feed(watched, 0, 20, World(), 3)

    next(batches)
    assert all(watched.on_step[step].wait(TIMEOUT_S) for step in (1, 2, 3)), "three threads hold a step each"
    watched.go_on.set()
    batches.close()


def test_without_threads_nothing_is_made_ahead() -> None:
    watched: Any = Watched(num_micro_batches=2)
    next(feed(watched, 0, 9, World(), 0))
    assert watched.made == [(0, 0), (0, 1)] and loader_threads() == []


def test_closing_ends_the_threads_and_leaves_what_is_waiting_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: Any = Watched(num_micro_batches=8)

    class Pool(feeding.ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            watched.go_on.set()  # the micro-batch that is being made is finished
            super().shutdown(wait=wait)

    monkeypatch.setattr(feeding, "ThreadPoolExecutor", Pool)
    watched.on_step = {step: threading.Event() for step in range(9)}
    batches = feed(watched, 0, 9, World(), 1)
    next(batches)
    assert watched.on_step[1].wait(TIMEOUT_S) and len(loader_threads()) == 1

    batches.close()

    assert loader_threads() == []
    assert len(watched.made) < 16, "the rest of step 1 is not made"


def test_an_error_comes_as_it_is_at_the_step_that_needs_the_clip() -> None:
    watched: Any = Watched(num_micro_batches=1)
    watched.go_on.set()
    watched.failing = {2}
    batches = feed(watched, 0, 9, World(), 2)

    assert [next(batches)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(InputError, match=r"^no audio at step 2$"):
        next(batches)
    assert loader_threads() == []


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_missing_file_is_named_in_one_line_whoever_opens_it(windows: TrainingWindows, tmp_path: Path, num_threads: int) -> None:
    broken: TrainingWindows = copy.copy(windows)
    files = [AudioFile(str(tmp_path / "gone.wav"), 0.0, clip.duration_s) for clip in windows.split.clips]
    broken.split = Split("noise", "train", windows.split.clips, files)
    with pytest.raises(InputError, match=r"^[^\n]*gone\.wav[^\n]*$"):
        list(feed(broken, 0, 3, World(), num_threads))
    assert loader_threads() == []


def test_a_generator_that_was_never_asked_has_no_threads(windows: TrainingWindows) -> None:
    feed(windows, 0, 9, World(), 4).close()
    assert list(feed(windows, 0, 0, World(), 4)) == [] and loader_threads() == []


@pytest.mark.parametrize(
    ("times", "level", "text"),
    [
        ((99.0, 1.0), logging.INFO, "7 steps in 100.0 s, 1 % of it waiting for data"),
        (
            (60.0, 40.0),
            logging.WARNING,
            "7 steps in 100.0 s, 40 % of it waiting for data; let more threads make them ahead: raise",
        ),
        ((0.0, 0.0), logging.INFO, "7 steps in 0.0 s, 0 % of it"),
    ],
)
def test_much_waiting_is_a_warning_with_advice(
    caplog: pytest.LogCaptureFixture, times: tuple[float, float], level: int, text: str
) -> None:
    with caplog.at_level(logging.INFO, "wfc_dist"):
        log_waiting(7, *times)
    ((_, found, said),) = caplog.record_tuples
    assert found == level and said.startswith(text)
    assert ("train.loader_workers" in said) == (level == logging.WARNING)
