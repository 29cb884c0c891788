"""A run whose test sets are scored with different metrics: every rate is that of its metric, every table says which."""

import json
from pathlib import Path

import jiwer
import pytest
import tiny
from processes import wfc

from wfc_dist.evaluation.hypotheses import read_hypotheses
from wfc_dist.runs.layout import RunPaths

FUNCTIONS = {"wer": jiwer.wer, "cer": jiwer.cer}
METRICS = {"a": "wer", "b": "cer", "p": "cer"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("metrics")
    tiny.make_dataset(root / "p", seed=9, test=3)
    path = tiny.make_config(
        root, (("a", "b"),), train={"packing": False, "max_steps": 2},
        datasets={"b": {"source": str(root / "b"), "splits": tiny.SPLITS, "metric": "cer"}},
        evaluate={"normalizer": "none", "packing": False, "protected": {
            "p": {"source": str(root / "p"), "splits": {"test": "test.jsonl"}, "metric": "cer"}}},
    )  # fmt: skip
    tiny.make_whisper(root / "model", positions=128)  # says something, not for long
    return path


@pytest.fixture(scope="module")
def output(config: Path) -> str:
    """What the finished run printed."""
    return wfc("run", config, "--plain", COLUMNS="120").stderr


def run_dir(config: Path) -> Path:
    return config.parent / "runs" / "tiny"


@pytest.mark.usefixtures("output")
@pytest.mark.parametrize("model", ["base-0000", "a", "base-0001"])
def test_every_rate_is_that_of_the_metric_of_its_set(config: Path, model: str) -> None:
    folder = run_dir(config) / "round-0001" / "evaluation" / model
    scores = json.loads((folder / "scores.json").read_text())["sets"]
    assert {name: score["metric"] for name, score in scores.items()} == METRICS
    for name, score in scores.items():
        _, said = read_hypotheses(folder / f"{name}.jsonl")
        references, hypotheses = [window.parts[0].strip() for window in said], [window.hypothesis.strip() for window in said]
        assert score["rate"] == pytest.approx(FUNCTIONS[METRICS[name]](references, hypotheses), rel=1e-12)
    assert len({score["rate"] for score in scores.values()}) > 1


def test_whatever_is_printed_names_the_metrics(config: Path, output: str) -> None:
    folder = run_dir(config)
    table = wfc("evaluate", folder, "--on", config, COLUMNS="120").stdout
    page = Path(wfc("report", folder).stdout.strip()).read_text()

    assert "% WER, b " in output and "WER (CER: b, p) in percent" in output
    assert "a mean of error rates, CER and WER" in " ".join(output.split())
    assert "WER (CER: b, p) %" in table and all(f"{name} ({metric.upper()})" in table for name, metric in METRICS.items())
    assert (
        "WER (CER: b, p) in percent" in page and '<th scope="row">b (CER)</th>' in page and '<th scope="row">a (WER)</th>' in page
    )
    assert json.loads((folder / "report" / "errors.json").read_text())["metric"] == METRICS


@pytest.mark.usefixtures("output")
def test_going_on_with_another_metric_is_refused_by_name(config: Path) -> None:
    before = RunPaths(run_dir(config)).ledger.read_text()
    other = wfc("run", config, "datasets.a.metric=cer", "--plain", check=False)
    assert other.returncode == 2 and "another configuration; changed: datasets.a.metric" in other.stderr
    assert RunPaths(run_dir(config)).ledger.read_text() == before
