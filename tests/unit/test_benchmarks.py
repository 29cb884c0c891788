"""What the documentation shows is what the benchmarks wrote."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
sys.path.append(str(REPO / "benchmarks"))

import report  # noqa: E402

RESULTS = sorted((REPO / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_page_shows_every_committed_result(path: Path) -> None:
    assert report.table(json.loads(path.read_text())) in report.PAGE.read_text(encoding="utf-8")


def test_the_page_can_be_written_again_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "performance.md"
    page.write_text(report.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(report, "PAGE", page)

    report.write_page()

    assert page.read_text(encoding="utf-8") == (REPO / "docs" / "performance.md").read_text(encoding="utf-8")


def test_every_benchmark_explains_itself() -> None:
    for name in ("new_base", "evaluation", "training", "report"):
        done = subprocess.run(
            [sys.executable, REPO / "benchmarks" / f"{name}.py", "--help"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 and f"python benchmarks/{name}.py" in done.stdout, done.stderr
