"""An adapter that its round was committed without becomes a member of a later round, and every later reader knows it as such."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from lost_audio import events, run_damaged
from processes import kill_tree, start_wfc, wait_for, wfc
from s3_server import BUCKET, s3_server

from wfc_dist import caller, load_config, open_run
from wfc_dist.backends.in_process import InProcessBackend
from wfc_dist.coordinator.checks import check_start
from wfc_dist.coordinator.garbage import collect_garbage
from wfc_dist.coordinator.history import forget, remerge
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import WfcError
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.progress import Display
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.storage import durable
from wfc_dist.storage.objects import Objects
from wfc_dist.weights import base_chain, peft_folder

LATE = ("centralize.quorum=1", "centralize.late=next_round")


def late_run(root: Path) -> tuple[Path, Run, list[str]]:
    """Returns a run that is back at base 1, made without c, and the bases of an attempt in which c could not be read."""
    path = tiny.make_config(
        root, rounds=[["a", "b", "c"], ["d"]], train={"max_steps": 2}, evaluate={"max_clips": 1, "adapters": False},
    )  # fmt: skip
    code, said = run_damaged(path, *LATE)
    assert code == 0, said
    opened = open_run(root / "runs" / "tiny")
    before = [base.sha256 for base in opened.bases]
    assert list(opened.base(1).missing) == ["c"] and not any(base.facts.get("grafted") for base in opened.bases)
    wfc("rollback", opened.path, "--to", "1")
    return path, opened, before


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["in_process", "ray"])
def test_the_base_of_the_next_round_holds_it_and_says_so(tmp_path: Path, backend: str) -> None:
    path, opened, without = late_run(tmp_path)
    if backend == "in_process":
        held = tmp_path / "held"
        killed = start_wfc("run", path, *LATE, "--plain", log=tmp_path / "log", WFC_HOLD_AT=f"write_delta={held}")
        assert wait_for(held, killed), (tmp_path / "log").read_text()
        kill_tree(killed)  # c is finished and handed in, round 2 is not committed
        held.unlink()
    said = wfc("run", path, *LATE, f"cluster.backend={backend}", "--plain").stderr
    assert ("c of round 1 is late" in said) == (backend == "ray"), "it is not trained again after a crash"

    assert opened.base(1).sha256 == without[1] and list(opened.base(1).missing) == ["c"]
    assert opened.base(2).facts["weights"] == {"d": 0.5, "c": 0.5}
    assert opened.base(2).facts["grafted"] == {"c": opened.base(0).sha256}
    original, member = opened.adapter(1, "c"), opened.adapter(2, "c")
    assert original is not None and member is not None and original.sha256 == member.sha256 == opened.base(2).adapters["c"]
    assert original.facts["base_sha256"] == member.facts["trained_against"] == opened.base(0).sha256
    assert not opened.paths.training(1).exists()
    assert events(opened, "base")[-1]["grafted"] == opened.base(2).facts["grafted"]
    delta = base_chain.read_delta(opened.paths.delta(2))
    factors = [peft_folder.read_factors(opened.paths.adapter(2, name)) for name in ("d", "c")]
    for module, update in delta.items():
        mean = sum(each[module].scaling * each[module].b_OR.double() @ each[module].a_RI.double() for each in factors) / 2
        rows = torch.cat(list(update.rows(64)))
        torch.testing.assert_close(rows, mean, rtol=0, atol=1e-9)

    known = "stale: trained against base 0"
    assert known in wfc("lineage", opened.path).stdout and known in (opened.path / "report" / "index.html").read_text()
    assert "Base 2 merges c, whose adapter was trained against another base" in (opened.base(2).path / "README.md").read_text()
    assert read_matrix(opened.path).learned == {"a": 1, "b": 1, "c": 2, "d": 2}
    assert [(adapter.round_index, adapter.dataset) for adapter in opened.adapters(2)] == [(2, "d"), (2, "c")]
    if backend == "in_process":
        later_readers(path, opened, without)


@pytest.mark.slow
def test_a_result_that_comes_when_its_base_is_made_is_left_out_or_folded_in_once(tmp_path: Path) -> None:
    path, opened, without = late_run(tmp_path)

    def come(late: str) -> Path:
        """The training of c ends in an attempt that finds base 1 committed without c."""
        config = load_config(path, ["centralize.quorum=1", f"centralize.late={late}"])
        with caller.put_back(), opened_for_writing(config, check_start(config).fingerprints) as store:
            old = store.base(0)
            assert old is not None
            backend = InProcessBackend(store, Display(plain=True))
            try:
                return Path(backend.factorize(old, ["c"])["c"].path)
            finally:
                backend.shutdown()

    with pytest.raises(WfcError, match="round 1, c: a result comes late and is left out: base 1 was made without c"):
        come("never")
    assert not list(opened.paths.adapters(1).glob("c*")), "neither committed nor left behind"
    assert [(line["round"], line["dataset"]) for line in events(opened, "left_out")] == [(1, "c")]
    assert [base.sha256 for base in opened.bases] == without[:2] and verify_run(opened.path, deep=True).damaged == {}

    folder = come("next_round")
    assert durable.read_manifest(folder)["late"] is True and come("next_round") == folder, "the first result counts"
    assert [line.get("late") for line in events(opened, "adapter") if line["dataset"] == "c"] == [True]
    wfc("run", path, *LATE)
    member = opened.adapter(2, "c")
    assert member is not None and "late" not in member.facts and opened.base(2).facts["grafted"] == {"c": opened.base(0).sha256}
    assert opened.base(1).sha256 == without[1] and opened.base(2).facts["weights"] == {"d": 0.5, "c": 0.5}
    told = wfc("lineage", opened.path).stdout
    assert "came late" in told and "stale: trained against base 0" in told


def killed_without_c(path: Path, committed: Callable[[], object], *more: object) -> None:
    """Runs until base 1 is committed without c, whose audio is lost after its second step, and kills the run there."""
    data, kept, held, log = path.parent / "c", path.parent / "kept", path.parent / "held", path.parent / "log"
    shutil.copytree(data, kept)
    process = start_wfc("run", path, *LATE, *more, "--plain", log=log, WFC_HOLD_AT=f"checkpoint:3={held}")
    try:
        assert wait_for(held, process), log.read_text()
        for clip in (data / "audio").glob("train-*"):
            clip.write_bytes(b"")
        held.unlink()
        while not committed():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
    finally:
        kill_tree(process)
    shutil.rmtree(data)
    shutil.move(kept, data)


@pytest.mark.slow
def test_on_object_storage_it_outlives_the_machine_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.make_config(
        tmp_path, rounds=[["a", "b", "c"], ["d"]], train={"packing": False}, evaluate={"max_clips": 1, "adapters": False},
    )  # fmt: skip
    here = RunPaths(tmp_path / "runs" / "tiny")
    killed_without_c(path, lambda: durable.is_committed(here.base(1)))
    unneeded = [item.path for item in collect_garbage(here.run_dir)]
    assert here.training(1) not in unneeded and here.checkpoints(1, "c") not in unneeded
    wfc("run", path, *LATE)
    expected = open_run(here.run_dir).base(2)

    mirrors, held, bucket = tmp_path / "home" / ".cache", tmp_path / "held", f"run.dir=s3://{BUCKET}"
    monkeypatch.setenv("HOME", str(mirrors.parent))
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url, remote = f"s3://{BUCKET}/tiny", Objects(f"s3://{BUCKET}/tiny")
        killed_without_c(path, lambda: remote.read("base-0001/manifest.json"), bucket)
        shutil.rmtree(mirrors)
        assert verify_run(url).damaged == {}, "the checkpoints are read, too"
        shutil.rmtree(mirrors)
        killed = start_wfc("run", path, *LATE, bucket, "--plain", log=tmp_path / "log", WFC_HOLD_AT=f"commit_adapter:2={held}")
        assert wait_for(held, killed), (tmp_path / "log").read_text()
        assert {name.split("/")[2] for name in remote.list() if "/training/" in name} == {"c"}
        kill_tree(killed)  # c is finished, and no member of round 2 yet
        shutil.rmtree(mirrors)
        wfc("run", path, *LATE, bucket)
        assert not [name for name in remote.list() if "/training/" in name or ".tmp-" in name]
        shutil.rmtree(mirrors)
        assert verify_run(url, deep=True).damaged == {}
        opened = open_run(url)
    assert opened.base(2).sha256 == expected.sha256 and opened.base(2).facts["grafted"] == {"c": opened.base(0).sha256}
    assert [line["resumed_from"] for line in events(opened, "adapter") if line.get("late")] == [2]
    assert events(opened, "base")[-1]["grafted"] == expected.facts["grafted"]


def later_readers(path: Path, opened: Run, without: list[str]) -> None:
    """A round with a stale member is verified, made anew, merged another way, and merged without it."""
    bases = [base.sha256 for base in opened.bases]
    assert verify_run(opened.path, deep=True).damaged == {}
    facts = durable.read_manifest(opened.base(2).path)
    (opened.base(2).path / "manifest.json").unlink()
    shutil.rmtree(opened.paths.delta(2))
    wfc("run", path, *LATE)
    assert [base.sha256 for base in opened.bases] == bases and durable.read_manifest(opened.base(2).path) == facts
    (opened.paths.adapter(2, "c") / "adapter_config.json").unlink()
    assert verify_run(opened.path, repair=True, deep=True).repaired == ["round-0002/adapters/c"]
    with open(opened.paths.adapter(2, "c") / peft_folder.WEIGHTS, "r+b") as file:
        file.truncate(1000)  # the original in round 1 is intact
    assert verify_run(opened.path, repair=True, deep=True).repaired == ["round-0002/adapters/c"]

    half = open_run(remerge(opened.path, 2, {"scale": 0.5}).path)
    assert [base.sha256 for base in half.bases][:2] == bases[:2] and half.base(2).facts["weights"] == {"d": 0.5, "c": 0.5}
    assert half.base(2).facts["grafted"] == facts["grafted"] and verify_run(half.path, deep=True).damaged == {}
    gone = open_run(forget(opened.path, "c").path)
    assert [base.sha256 for base in gone.bases][:3] == without[:3], "as if c had never been late"


def test_late_needs_a_quorum(tmp_path: Path) -> None:
    refused = wfc("plan", tiny.make_config(tmp_path), "centralize.late=next_round", check=False)
    assert refused.returncode == 2 and "without a quorum no round does without a data set" in refused.stderr
