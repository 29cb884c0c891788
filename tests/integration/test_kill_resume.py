"""kill -9 of the whole process tree, at many moments: the same command ends with the same bytes."""

import json
from collections import Counter
from pathlib import Path

import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable

# In the order in which the attempts reach them; a number counts within one process of an attempt. Where one process does all, a
# start takes seconds, so that the moments in which a file is written are tried there.
MOMENTS = {
    "ray": ["train", "checkpoint", "commit_adapter", "average", "merge", "commit_base", "receive", "write_base"],
    "in_process": ["open_root", "evaluate", "append_ledger:3", "write_checkpoint", "write_manifest:3", "average", "write_delta",
                   "write_base", "commit_base", "commit_adapter", "evaluate"],
}  # fmt: skip


def ledger(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("uninterrupted")
    config = tiny.make_config(root)
    wfc("run", config, "--plain")
    return config, Run(root / "runs" / "tiny").base().sha256


@pytest.mark.slow
@pytest.mark.timeout(1800)  # nine starts of a cluster
@pytest.mark.parametrize("backend", MOMENTS)
def test_killed_at_many_moments_ends_with_the_same_base(uninterrupted: tuple[Path, str], tmp_path: Path, backend: str) -> None:
    config, expected = uninterrupted
    command = ("run", config, f"run.dir={tmp_path / 'runs'}", f"cluster.backend={backend}", "--plain")
    run_dir = tmp_path / "runs" / "tiny"
    killed = []
    for number, moment in enumerate(MOMENTS[backend]):
        held = tmp_path / f"held-{number}"
        process = start_wfc(*command, log=tmp_path / "log", WFC_HOLD_AT=f"{moment}={held}")
        reached = wait_for(held, process)
        num_processes = kill_tree(process)
        if reached:
            killed.append((moment, num_processes))
    wfc(*command)

    assert [moment for moment, _ in killed] == MOMENTS[backend]
    with_ray = sum(num_processes > 5 for _, num_processes in killed)
    assert (with_ray >= 6) == (backend == "ray"), f"Ray's processes were not among the killed: {killed}"
    assert Run(run_dir).base().sha256 == expected
    adapters = Counter((line["round"], line["dataset"]) for line in ledger(run_dir) if line["event"] == "adapter")
    assert adapters == {(1, "a"): 1, (1, "b"): 1, (1, "c"): 1, (2, "d"): 1, (2, "e"): 1}, "an adapter was made twice"
    assert [line["round"] for line in ledger(run_dir) if line["event"] == "base"] == [0, 1, 2]
    for index in range(3):
        durable.verify_folder(RunPaths(run_dir).base(index))
    assert not list(run_dir.rglob("*.tmp-*"))


def test_torn_ledger_line_is_cut_and_written_again(uninterrupted: tuple[Path, str], tmp_path: Path) -> None:
    config, expected = uninterrupted
    command = ("run", config, f"run.dir={tmp_path / 'runs'}")
    wfc(*command)
    path = RunPaths(tmp_path / "runs" / "tiny").ledger
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-3]) + lines[-3][:20])  # the crash came in the middle of a write

    wfc(*command)

    after = ledger(tmp_path / "runs" / "tiny")
    assert [line["round"] for line in after if line["event"] == "base"] == [0, 1, 2]
    assert Run(tmp_path / "runs" / "tiny").base().sha256 == expected
