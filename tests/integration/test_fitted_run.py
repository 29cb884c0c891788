"""Weights and scale fitted on dev error in a whole run: decoded by the trainers, interrupted, and gone on with."""

import json
from pathlib import Path

import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for, wfc
from s3_server import BUCKET, s3_server

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths, read_base
from wfc_dist.storage.objects import Objects


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fitted")
    path = tiny.make_config(
        root, (("a", "b"),), centralize={"weights": "fitted", "scale": "fitted"}, train={"lr": 0.1, "packing": False},
        datasets={"b": {"source": str(root / "b"), "splits": tiny.SPLITS, "metric": "wer"}},
        evaluate={"metric": "cer", "max_clips": 1, "normalizer": "none"},
    )  # fmt: skip
    tiny.make_whisper(root / "model", positions=128)  # says something, and something else after every update; not for long
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    wfc("run", config, f"run.dir={folder}", "--plain")
    return folder / "tiny"


def trials(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (RunPaths(run_dir).fit(1) / "trials.jsonl").read_text().splitlines()]


def kill_in_the_fit(*command: object, folder: Path) -> None:
    """Starts a run and kills it when four mixtures are tried."""
    held, log = folder / "held", folder / "log"
    process = start_wfc(*command, log=log, WFC_HOLD_AT=f"evaluate:6={held}")  # base 0, then the fifth mixture
    try:
        assert wait_for(held, process), log.read_text()
    finally:
        kill_tree(process)


def test_a_fit_that_was_killed_goes_on_and_ends_with_the_same_base(config: Path, whole: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed" / "tiny"
    command = ("run", config, f"run.dir={killed.parent}", "--plain")
    kill_in_the_fit(*command, folder=tmp_path)
    before = trials(killed)
    wfc(*command)

    tried = trials(killed)
    assert 0 < len(before) < len(tried) and tried[: len(before)] == before
    assert tried == trials(whole)
    assert len({json.dumps([line["weights"], line["scale"]]) for line in tried}) == len(tried), "a mixture was decoded twice"
    assert Run(killed).base().sha256 == Run(whole).base().sha256
    assert [path.name for path in sorted(RunPaths(killed).fit(1).iterdir())] == ["fitted.json", "trials.jsonl"]


def test_the_base_is_the_best_mixture_of_those_tried(whole: Path) -> None:
    fitted = json.loads((RunPaths(whole).fit(1) / "fitted.json").read_text())
    entry = read_base(whole, 1)
    means = [sum(line["rates"].values()) / 2 for line in trials(whole)]

    chosen = min(trials(whole), key=lambda line: sum(line["rates"].values()))  # the first of equals

    assert entry is not None
    assert entry[1]["weights"] == pytest.approx(fitted["weights"]) and entry[1]["scale"] == fitted["scale"]
    assert len(set(means)) > 1, "no mixture differs from another: the test would show nothing"
    assert fitted["dev_error"] == min(means) and fitted["dev_error_at_start"] == means[0]
    assert entry[1]["scale"] * entry[1]["weights"]["a"] == pytest.approx(chosen["scale"] * chosen["weights"][0])
    assert list(trials(whole)[0]["rates"]) == ["a", "b"] and trials(whole)[0]["weights"] == [0.5, 0.5]


def test_dev_error_is_counted_with_the_metric_of_each_set(config: Path, whole: Path) -> None:
    texts = {name: json.loads((config.parent / name / "dev.jsonl").read_text().splitlines()[0])["text"] for name in "ab"}
    lengths = {"a": len(texts["a"]), "b": len(texts["b"].split())}  # characters, words
    for line in trials(whole):
        errors = {name: rate * lengths[name] for name, rate in line["rates"].items()}
        assert errors == pytest.approx({name: round(value) for name, value in errors.items()}, abs=1e-9)
    assert any(line["rates"]["a"] * len(texts["a"].split()) % 1 > 1e-9 for line in trials(whole)), "the test would show nothing"


def test_a_fit_on_object_storage_goes_on_on_another_machine(
    config: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with s3_server(tmp_path) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        command = ("run", config, f"run.dir=s3://{BUCKET}/fitted", "--plain")
        kill_in_the_fit(*command, f"cluster.cache_dir={tmp_path / 'one'}", folder=tmp_path)
        remote = Objects(f"s3://{BUCKET}/fitted/tiny")
        before = (remote.read("round-0001/fit/trials.jsonl") or b"").splitlines()
        wfc(*command, f"cluster.cache_dir={tmp_path / 'two'}")

        after = (remote.read("round-0001/fit/trials.jsonl") or b"").splitlines()
        kept = sorted(name.split("/")[-1] for name in remote.list("round-0001/fit"))
        bases = [json.loads(line) for line in (remote.read("ledger.jsonl") or b"").splitlines()]

    assert 0 < len(before) < len(after) == len(trials(whole)) and after[: len(before)] == before
    assert kept == ["fitted.json", "trials.jsonl"]
    assert [line["sha256"] for line in bases if line["event"] == "base"][-1] == Run(whole).base().sha256
