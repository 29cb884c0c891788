"""The short form of `make chaos`: a few random faults, each of which ends in the bytes of a run without it.

What becomes of each damaged file is in test_damage.py, what becomes of each failed request in test_run_on_s3.py.
"""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import chaos
import psutil
import pytest
from s3_server import S3, s3_server


def bad(results: list[chaos.Result]) -> list[tuple[str, str, str]]:
    return [(result.kind, result.target, result.outcome) for result in results if not chaos.is_good(result.outcome)]


@pytest.mark.slow
def test_random_faults_end_in_the_same_bytes() -> None:
    results = list(chaos.faults(4, seed=6, backend="in_process"))
    assert bad(results) == []
    assert [result.num_rounds for result in results] == [2, 3, 2, 3]


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.slow
def test_random_faults_on_object_storage_end_in_the_same_bytes(s3: S3) -> None:
    results = list(chaos.faults(3, seed=6, backend="in_process+s3"))
    assert bad(results) == []
    assert len(results) == 3


def faulty(folder: Path) -> chaos.Faulty:
    """Returns a run of which one process is there, which sleeps."""
    run = chaos.Faulty(folder / "config.yaml", folder / "tiny", str(folder / "tiny"), folder / "log")
    # What runs in the background of a shell ignores SIGINT, and so do its children.
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready', flush=True); time.sleep(600)"
    run.process = subprocess.Popen([sys.executable, "-c", code], text=True, start_new_session=True, stdout=subprocess.PIPE)
    assert run.process.stdout and run.process.stdout.readline()
    run.hit = [psutil.Process(run.process.pid)]
    return run


@pytest.mark.parametrize("kind", list(chaos.KINDS))
def test_every_kind_of_fault_hits_something(tmp_path: Path, kind: str) -> None:
    run = faulty(tmp_path)
    run.run_dir.mkdir()
    (run.run_dir / "config.json").write_text("some bytes")
    try:
        target = chaos.KINDS[kind](run, random.Random(1))
        if kind != "starve":  # starved processes go on; a coordinator that hangs is killed by hand
            run.process.wait(60)
        is_gone = run.process.poll() is not None
        left = [path.read_bytes() for path in run.run_dir.iterdir()]
    finally:
        chaos.kill_tree(run.process)
    assert is_gone == (kind != "starve")
    assert target not in ("gone already", "nothing yet")
    assert (left == [b"some bytes"]) == (kind not in ("flip", "truncate", "remove"))


def test_advice_is_followed(tmp_path: Path) -> None:
    run, folder = faulty(tmp_path), tmp_path / "tiny" / "round-0001"
    chaos.kill_tree(run.process)
    folder.mkdir(parents=True)
    assert not chaos.follow(run, f"it is damaged; remove {folder} and run again")
    assert not folder.exists()


def test_the_table_counts_kinds_outcomes_and_backends() -> None:
    lost = [chaos.Result("kill", "same bytes", "3 processes", seconds, where, 2)
            for seconds, where in ((1.0, "ray"), (5.0, "in_process"), (2.0, "ray"))]  # fmt: skip
    rows = chaos.table([*lost, chaos.Result("flip", "damage left (base-0001)", "x", 9.0)]).splitlines()
    assert rows[2:] == [
        "| flip | damage left | 1 | in_process 1 | 9 | 9 |",
        "| kill | same bytes | 3 | in_process 1, ray 2 | 2 | 5 |",
    ]
