"""Checkpoints beside the training: it waits for none, goes on from each, and hears of every one that failed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

import pytest
import torch
from training_gang import make_inputs, make_job

from wfc_dist.runs.layout import checkpoint_steps
from wfc_dist.storage.mirror import NO_MIRROR
from wfc_dist.training import state
from wfc_dist.training.checkpoints import Checkpoints
from wfc_dist.training.job import Progress
from wfc_dist.training.trainer import train_adapter
from wfc_dist.training.uploads import Uploads
from wfc_dist.training.world import World
from wfc_dist.weights.warm_base import WarmBase

WAIT_S = 60  # only a failing test waits as long


class Disk:
    """Stands for `state.save_state`: writes nothing before it is let go."""

    def __init__(self) -> None:
        self.may_go, self.real = threading.Semaphore(0), state.save_state

    def save_state(self, *arguments: object) -> Path:
        assert self.may_go.acquire(timeout=WAIT_S)
        return self.real(*arguments)  # type: ignore[arg-type]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    slow = Disk()
    monkeypatch.setattr(state, "save_state", slow.save_state)
    return slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def snapshot(step: int) -> state.TrainingState:
    return state.TrainingState(state.TrainerProgress(step=step), {}, {}, [torch.zeros(1, dtype=torch.uint8)])


def test_the_training_waits_for_no_checkpoint_but_for_the_one_before_it(disk: Disk, tmp_path: Path) -> None:
    job = make_job(tmp_path, "job")
    checkpoints = Checkpoints(job, Uploads(NO_MIRROR, None))
    checkpoints.submit(snapshot(1))  # returns, though nothing can be written yet
    checkpoints.check()
    assert checkpoint_steps(Path(job.checkpoint_dir)) == []

    with ThreadPoolExecutor(1) as other:
        second = other.submit(checkpoints.submit, snapshot(2))
        with pytest.raises(NotYet):
            second.result(timeout=0.1)  # one at a time
        disk.may_go.release(2)
        second.result(timeout=WAIT_S)
    checkpoints.wait()

    assert state.newest_step(Path(job.checkpoint_dir), job.identity()) == 2
    checkpoints.close()


def test_a_checkpoint_that_failed_is_heard_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def full(*_: object) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(state, "save_state", full)
    checkpoints = Checkpoints(make_job(tmp_path, "job"), Uploads(NO_MIRROR, None))
    checkpoints.submit(snapshot(1))
    assert checkpoints._writing is not None
    checkpoints._writing.add_done_callback(lambda _: failed.set())
    assert failed.wait(WAIT_S)

    with pytest.raises(OSError, match="no space left"):
        checkpoints.check()
    checkpoints.check()
    checkpoints.wait()
    checkpoints.close()


def test_a_training_whose_checkpoint_failed_ends_with_its_error(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError("no space left on device")

    monkeypatch.setattr(state, "save_state", full)
    job = make_job(inputs, "full", max_steps=3, checkpoint_every=2)

    with pytest.raises(OSError, match="no space left"):
        train_adapter(job, WarmBase(job.base), World())
    assert not list(Path(job.output_dir).iterdir()), "an adapter without its checkpoint's error heard"


def test_steps_taken_while_a_checkpoint_is_written_do_not_change_it(inputs: Path, disk: Disk) -> None:
    jobs = [make_job(inputs, name, max_steps=4, checkpoint_every=2) for name in ("prompt", "late")]
    warm = WarmBase(jobs[0].base)

    def let_go(progress: Progress) -> None:
        if progress.step == 3:
            disk.may_go.release()  # the state of step 2, when the parameters are those of step 3

    disk.may_go.release()
    prompt = train_adapter(jobs[0], warm, World())
    late = train_adapter(jobs[1], warm, World(), let_go)

    files = [Path(job.checkpoint_dir) / "step-2" / state.TENSORS for job in jobs]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert prompt.sha256 == late.sha256
