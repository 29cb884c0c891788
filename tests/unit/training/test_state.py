import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from wfc_dist.training import metrics_log, state
from wfc_dist.training.engine import Slot

CPU = torch.device("cpu")
IDENTITY = {"base_sha256": "abc", "dataset": "fisher"}


@pytest.fixture(autouse=True)
def own_generators():
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng():
        yield
    np.random.set_state(numpy_state)
    random.setstate(python_state)


def draws() -> list[float]:
    return [torch.rand(1).item(), float(np.random.rand()), float(np.random.randn()), random.random(), random.gauss(0, 1)]


def make_state(step: int, ranks: int = 1) -> state.TrainingState:
    slot = Slot(torch.full((2, 3), float(step)), torch.ones(2, 3), torch.zeros(2, 3))
    progress = state.TrainerProgress(step=step, loss=0.5, best_step=step, best_value=1.25)
    rng = [state.rng_state(CPU) for _ in range(ranks)]
    return state.TrainingState(progress, {"a.lora_A.weight": slot}, {"a.lora_A.weight": torch.ones(2, 3)}, rng)


def test_random_state_brings_every_generator_back() -> None:
    draws()  # leaves numpy and Python with half a pair of normal numbers
    kept = state.rng_state(CPU)
    expected = draws()
    draws()

    state.set_rng_state(kept, CPU)

    assert draws() == expected


def test_a_fresh_start_is_seeded_by_seed_step_and_rank() -> None:
    fresh = state.initial_state({})
    seen = []
    for seed, rank in ((1, 0), (1, 0), (1, 1), (2, 0)):
        state.restore_rng(fresh, seed, 2, rank, CPU)
        seen.append(tuple(draws()))

    assert seen[0] == seen[1]
    assert len(set(seen)) == 3


def test_another_number_of_ranks_seeds_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    state.restore_rng(make_state(5, ranks=2), 1, 1, 0, CPU)

    assert "written by 2 ranks, 1 go on" in caplog.text


def test_a_random_state_of_another_library_seeds_anew_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    begun = make_state(5)
    begun.rng[0] = begun.rng[0][:-1]

    state.restore_rng(begun, 1, 1, 0, CPU)

    assert "of another device or library" in caplog.text


def test_a_checkpoint_reads_back_exactly_and_holds_no_pickle(tmp_path: Path) -> None:
    saved = make_state(3, ranks=2)

    folder = state.save_state(saved, tmp_path, IDENTITY, attempt=1)
    loaded = state.load_state(tmp_path, 3)

    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "state.json", "state.safetensors"]
    assert loaded.progress == saved.progress
    for name, slot in saved.slots.items():
        for part in ("parameter", "exp_avg", "exp_avg_sq"):
            assert torch.equal(getattr(loaded.slots[name], part), getattr(slot, part))
    assert torch.equal(loaded.best["a.lora_A.weight"], saved.best["a.lora_A.weight"])
    assert len(loaded.rng) == 2 and torch.equal(loaded.rng[1], saved.rng[1])


def test_the_newest_two_are_kept_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / "step-9.tmp-4").mkdir()
    for step in (2, 9, 10):
        state.save_state(make_state(step), tmp_path, IDENTITY, attempt=1)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-9"]
    assert state.newest_step(tmp_path, IDENTITY) == 10


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (2, 4):
        folder = state.save_state(make_state(step), tmp_path, IDENTITY, attempt=1)
    data = bytearray((folder / state.TENSORS).read_bytes())
    data[-1] ^= 1
    (folder / state.TENSORS).write_bytes(data)

    assert state.newest_step(tmp_path, IDENTITY) == 2
    assert "passed over" in caplog.text and "step-4" in caplog.text


def test_an_uncommitted_checkpoint_is_passed_over(tmp_path: Path) -> None:
    folder = state.save_state(make_state(4), tmp_path, IDENTITY, attempt=1)
    (folder / "manifest.json").unlink()

    assert state.newest_step(tmp_path, IDENTITY) is None


def test_a_checkpoint_of_another_base_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state.save_state(make_state(4), tmp_path, IDENTITY, attempt=1)

    assert state.newest_step(tmp_path, IDENTITY | {"base_sha256": "def"}) is None
    assert "base_sha256 differs" in caplog.text


@pytest.mark.parametrize(("evaluated", "rows"), [(True, 4), (False, 3)])
def test_the_curve_is_cut_after_the_resumed_step(tmp_path: Path, evaluated: bool, rows: int) -> None:
    path = tmp_path / "curve.jsonl"
    for step in (1, 2, 3):
        metrics_log.append(path, step=step, loss=1.0)
        metrics_log.append(path, step=step, dev_loss=1.0)
    with open(path, "a") as file:
        file.write('{"step": 4, "lo')  # torn by a crash

    metrics_log.cut(path, 2, evaluated=evaluated)

    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(kept) == rows
    assert max(row["step"] for row in kept) == 2


@pytest.mark.parametrize(("patience", "kept", "stops_at"), [(None, [1, 2, 3, 4, 5], None), (2, [1, 3], 5)])
def test_early_stopping_keeps_the_best_and_ends_after_patience(patience, kept, stops_at):
    progress, best, stopped = state.TrainerProgress(), [], None
    for step, value in enumerate([2.0, 2.0, 1.0, 1.5, 1.0], start=1):
        progress.step = step
        if progress.judge("error", value, patience):
            best.append(step)
        stopped = stopped or (step if progress.stopped_early else None)

    assert (best, stopped) == (kept, stops_at)
    assert (progress.best_step, progress.best_value, progress.dev_error, progress.dev_loss) == (kept[-1], 1.0, 1.0, None)
    assert progress.evaluated_step == 5
