"""What the documentation shows is what the benchmarks wrote."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
sys.path.append(str(REPO / "benchmarks"))

import paper  # noqa: E402
import report  # noqa: E402

RESULTS = sorted((REPO / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_every_committed_result(path: Path) -> None:
    result = json.loads(path.read_text())
    assert report.table(result) in report.page_of(result).read_text(encoding="utf-8")


def test_the_pages_can_be_written_again_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    monkeypatch.setattr(report, "PAGE", tmp_path / "docs" / "performance.md")
    monkeypatch.setattr(report, "FOLDER", tmp_path / "docs" / "performance")
    monkeypatch.setattr(paper, "PAGE", tmp_path / "docs" / "performance" / "plan.md")

    paper.write(paper.plan(paper.Assumed()))
    for page in [*report.write_pages(), paper.PAGE]:
        shown = REPO / "docs" / page.relative_to(tmp_path / "docs")
        assert page.read_text(encoding="utf-8") == shown.read_text(encoding="utf-8")


def test_every_generated_page_has_a_result() -> None:
    made = {report.page_of(json.loads(path.read_text())) for path in RESULTS} | {paper.PAGE}
    assert made == set(report.FOLDER.iterdir())


def test_a_row_of_the_summary_compares_two_ways_of_one_result() -> None:
    page = "[training of one adapter, 648 s of speech](performance/training.md)"
    assert f"| {page} | 50.30 s | Seq2SeqTrainer, each clip padded | 370.70 s | 7.37 |" in report.summary().splitlines()


def test_a_plan_follows_its_formulas() -> None:
    one, two = (paper.plan(paper.Assumed(nodes=10, sets=number, rounds=1, gpus=1, steps=3600, step_s=1)) for number in (10, 11))
    assert "| training, a round | ceil(K / nodes) x steps x step | 3600 s |" in one
    assert "| training, a round | ceil(K / nodes) x steps x step | 2.0 h |" in two
    assert "as above | 9.0 GPU hours, $22 |" in two, "nine of ten trainers have nothing to do in the second wave"
    assert "| adapters of a round, on disk | K x adapter | 262 MB |" in one  # 10 x 4 x 32 x 80 x 2560 bytes


def test_rows_with_other_columns_make_a_table() -> None:
    result = {"question": "q", "command": "c", "date": "d", "machine": {"cpus": 2}, "rows": [{"measure": "m", "small": 1}]}
    assert "| measure | small |\n| --- | --- |\n| m | 1 |\n" in report.table(result)


@pytest.mark.process
@pytest.mark.parametrize(
    "name",
    [
        "new_base",
        "average",
        "rounds",
        "overhead",
        "evaluation",
        "training",
        "loading",
        "bf16",
        "scale",
        "audit",
        "report",
        "startup",
        "transcribing",
    ],
)
def test_every_benchmark_explains_itself(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(name).main()
    assert ended.value.code == 0 and f"python benchmarks/{name}.py" in capsys.readouterr().out
