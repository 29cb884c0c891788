"""A run begun before the package had its folders goes on: data/begun-before.tar.gz was made by commit 169b64f.

In the folder of the archive `wfc run config.yaml` was killed while it wrote its sixth checkpoint: round 1 is committed, and
adapter c of round 2 has its checkpoint of step 2. `@HERE@` in the manifests stands for the folder of the archive.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from processes import wfc

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths, read_base

ARCHIVE = Path(__file__).parent / "data" / "begun-before.tar.gz"


def latest_sha256(paths: RunPaths) -> str:
    entry = read_base(paths.run_dir, 2)
    assert entry is not None
    return entry[0].sha256[:12]


def test_a_run_begun_before_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    paths = RunPaths(Path("runs/tiny"))
    for index in (0, 1):
        manifest = paths.base(index) / "manifest.json"
        manifest.write_text(manifest.read_text().replace("@HERE@", str(tmp_path)))
    before = [json.loads(line) for line in paths.ledger.read_text().splitlines()]
    (checkpoint,) = paths.checkpoints(2, "c").glob("step-*")
    assert checkpoint.name == "step-2"

    said = wfc("run", "config.yaml", "--plain").stderr

    assert "attempt 2, round 2 of 2" in said and "training 1 adapters: c" in said
    after = [json.loads(line) for line in paths.ledger.read_text().splitlines()]
    assert after[: len(before)] == before, "the ledger is append-only"
    assert [line["dataset"] for line in after if line["event"] == "adapter"] == ["a", "b", "c"], "an adapter was made twice"
    steps = [json.loads(line)["step"] for line in paths.curve(2, "c").read_text().splitlines()]
    assert steps == list(range(1, 7)), "the training went on at its checkpoint"

    wfc("rebuild", paths.run_dir, "--base", "2", "--out", "rebuilt")
    shutil.move(paths.base(1), "base-1-aside")  # to save space: a base in between is not needed for the next one
    wfc("rebuild", paths.run_dir, "--base", "2", "--out", "rebuilt-without")
    assert latest_sha256(paths) in wfc("status", paths.run_dir).stdout
    shutil.move("base-1-aside", paths.base(1))
    wfc("run", "config.yaml", "run.dir=anew", "--plain")
    anew = read_base(Path("anew/tiny"), 1)
    assert anew is not None
    if anew[0].sha256 != next(line["sha256"] for line in before if line["event"] == "base" and line["round"] == 1):
        pytest.skip("another kind of processor than the archive's rounds otherwise: no bytes to compare")
    assert Run(paths.run_dir).base().sha256 == Run(Path("anew/tiny")).base().sha256
