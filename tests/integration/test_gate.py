"""A merge that is too large, or that makes a canary set worse, is not committed: the run stops, or does with less, on record."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import yaml
from s3_server import BUCKET, s3_server

from wfc_dist import load_config, open_run, run
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import ConfigError, GateError
from wfc_dist.progress import Display
from wfc_dist.runs.handle import Run
from wfc_dist.storage.objects import Objects

AS_SUM = ("centralize.method=task_arithmetic", "centralize.options={lam: 1}")


def finish(path: Path, name: str, *more: str) -> Run:
    config = load_config(path, [f"run.name={name}", *more])
    run(config, Display(plain=True))
    return open_run(config.run_dir())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A configuration, and its run without a gate.

    The model writes the same text for every clip. Seven of ten references of the canary set are that text, so that base 0 is
    right about most of it.
    """
    root = tmp_path_factory.mktemp("gate")
    path = tiny.make_config(
        root, rounds=[["a", "b"]], train={"max_steps": 2},
        evaluate={"packing": False, "max_clips": 10, "adapters": False},
    )  # fmt: skip
    shutil.rmtree(root / "model")
    tiny.make_whisper(root / "model", seed=3)
    data = tiny.make_dataset(root / "canary", seed=9, train=0, dev=0, test=10)
    tree = yaml.safe_load(path.read_text())
    tree["evaluate"]["protected"] = {"canary": {"source": str(data), "splits": {"test": "test.jsonl"}}}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    finished = finish(path, "plain")
    texts = finished.paths.hypotheses(1, "base-0000", "canary").read_text().splitlines()
    written = json.loads(texts[1])["hypothesis"]
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    rows = [row | ({"text": written} if number < 7 else {}) for number, row in enumerate(rows)]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, finished


def test_a_merge_that_passes_has_the_bytes_of_one_without_a_gate(plain: tuple[Path, Run]) -> None:
    path, before = plain
    found = finish(path, "passes", "centralize.gate={canaries: [canary, a], max_worse: 1, max_update_ratio: 10}")
    assert found.base().sha256 == before.base().sha256
    gate = found.base().facts["gate"]
    assert gate["passed"] == "all adapters" and list(gate["trials"][0]["canaries"]) == ["canary", "a"]
    assert "gate" not in before.base().facts


def test_a_canary_that_gets_worse_stops_the_run_until_the_remedy(plain: tuple[Path, Run]) -> None:
    path, _ = plain
    with pytest.raises(GateError, match=r"canary gets worse by \d\d\.\d points .* Nothing was committed"):
        finish(path, "stops", "centralize.gate.canaries=[canary]")
    opened = open_run(path.parent / "runs" / "stops")
    assert opened.num_bases == 1 and len(opened.adapters(1)) == 2 and not list(opened.path.glob("*.tmp-*"))
    assert [line["what"] for line in opened.ledger() if line["event"] == "gate"] == ["all adapters"]

    finish(path, "stops", "centralize.gate.canaries=[canary]", "centralize.scale=1e-6")
    assert opened.base().sha256 == finish(path, "tiny-step", "centralize.scale=1e-6").base().sha256
    assert [line["dataset"] for line in opened.ledger() if line["event"] == "adapter"] == ["a", "b"], "nothing is trained again"


def ratio_of(path: Path, name: str, *more: str) -> float:
    """Returns the update ratio of a merge, as the gate measures it."""
    found = finish(path, name, "centralize.gate.max_update_ratio=1e9", *more)
    return float(found.base().facts["gate"]["trials"][0]["update_ratio"])


def test_a_large_update_is_halved_until_it_passes(plain: tuple[Path, Run]) -> None:
    path, _ = plain
    limit = 0.6 * ratio_of(path, "measured")
    more = [f"centralize.gate.max_update_ratio={limit}", "centralize.gate.action=scale"]
    found = finish(path, "halved", *more)
    assert found.base().facts["scale"] == 0.5 and found.base().facts["gate"]["passed"] == "scale x 0.5"
    assert found.base().sha256 == finish(path, "half", "centralize.scale=0.5").base().sha256
    (found.base().path / "manifest.json").unlink()
    finish(path, "halved", *more)
    assert found.base().facts["scale"] == 0.5 and found.base().facts["gate"]["passed"] == "scale x 0.5"
    assert verify_run(found.path, deep=True).damaged == {}
    with pytest.raises(GateError, match=r"scale x 0\.125: the update is"):
        finish(path, "never", "centralize.gate.max_update_ratio=1e-6", "centralize.gate.action=scale")


def test_the_best_merge_without_one_data_set_is_taken(plain: tuple[Path, Run]) -> None:
    path, _ = plain
    limit = 0.95 * ratio_of(path, "summed", *AS_SUM)
    found = finish(path, "one-out", *AS_SUM, f"centralize.gate.max_update_ratio={limit}", "centralize.gate.action=leave_one_out")
    gate, (left_out,) = found.base().facts["gate"], found.base().missing
    (kept,) = found.base().adapters
    ratios = {trial["what"]: trial["update_ratio"] for trial in gate["trials"]}
    assert gate["passed"] == f"without {left_out}" and ratios[gate["passed"]] == min(ratios["without a"], ratios["without b"])
    assert "GateError: with it, the update is" in found.base().missing[left_out]
    assert found.base().sha256 == finish(path, "alone", *AS_SUM, f"rounds=[[{kept}]]").base().sha256
    assert len(found.adapters(1)) == 2, "the adapter itself stays"


@pytest.mark.slow
def test_on_object_storage_the_next_machine_decides_as_in_a_folder(
    plain: tuple[Path, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = plain
    limit = f"centralize.gate.max_update_ratio={0.95 * ratio_of(path, 'summed', *AS_SUM)}"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for action, name in (("scale", "summed-halved"), ("leave_one_out", "one-out")):
            expected = finish(path, name, *AS_SUM, limit, f"centralize.gate.action={action}").base()
            url, more = f"s3://{BUCKET}/{action}", (*AS_SUM, limit, f"run.dir=s3://{BUCKET}")
            with pytest.raises(GateError, match="Nothing was committed"):
                finish(path, action, *more)
            shutil.rmtree(tmp_path / "home")
            left = {name.partition("/")[0] for name in Objects(url).list() if name.endswith("manifest.json")}
            assert left == {"base-0000", "round-0001"} and not Objects(url).list("round-0001/delta")
            finish(path, action, *more, f"centralize.gate.action={action}")
            shutil.rmtree(tmp_path / "home")
            found = open_run(url)
            assert (found.base().sha256, found.base().facts["gate"]) == (expected.sha256, expected.facts["gate"])
            assert [line["dataset"] for line in found.ledger() if line["event"] == "adapter"] == ["a", "b"]
            assert verify_run(url, deep=True).damaged == {}


def test_what_cannot_be_judged_is_refused(plain: tuple[Path, Run]) -> None:
    for more, message in (
        (["centralize.gate.canaries=[nobody]"], "'nobody' is no test set"),
        (["centralize.gate.canaries=[canary]", "run.dir=s3://runs"], "all nodes share, not object storage"),
        (["centralize.gate.canaries=[canary]", "evaluate.intervals=false"], "evaluate.intervals to true"),
        (["centralize.gate.action=scale", "centralize.method=nesterov"], "nesterov needs norm own and scale 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(plain[0], more)
