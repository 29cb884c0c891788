"""The benchmarks that start real runs, on a tiny model: what is measured is there and plausible. Nothing is timed."""

import sys
from pathlib import Path

import pytest
import tiny

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import overhead
import rounds
import wfc_runs

ROUNDS = [["a", "b"], ["c"]]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmark")
    source = tiny.make_config(root, rounds=ROUNDS, cluster={"backend": "ray", "threads_per_worker": 1})
    return wfc_runs.short_config(source, root / "short.yaml", ROUNDS)


def test_every_part_of_a_turnaround_is_found_in_a_real_run(config: Path) -> None:
    measured, found = rounds.measure(config, repetitions=1)

    assert [item.name for item in measured] == rounds.NAMES
    assert all(len(item.seconds) == 1 and item.seconds[0] > 0 and item.peak_bytes > 0 for item in measured)
    assert all(value > 0 for split in found for value in split.values())


def test_adapters_by_hand_and_by_a_run_have_the_same_bytes(config: Path, tmp_path: Path) -> None:
    train = {"max_steps": 3, "warmup_steps": 1, "gradient_accumulation": 1}
    rows, facts = overhead.measure(config, tmp_path, ["a", "b"], train=train)

    assert len(rows) == 6 and all(row.seconds[0] > 0 and row.peak_bytes > 0 for row in rows)
    assert sorted(facts["sha256"]) == ["a", "b"] and facts["same_bytes"]
    assert rows[-1].facts["checkpoint_stall_percent"] > 0 and rows[0].facts["checkpoint_stall_percent"] == "-"
    assert facts["checkpoint_stall_s"] > 0 and facts["checkpoint_write_s"] > 0
