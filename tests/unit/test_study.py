"""What docs/study.md shows is what the comparison measured."""

import shutil
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
sys.path.append(str(REPO / "examples" / "open-speech"))

import study  # noqa: E402

from wfc_dist.compare import settings  # noqa: E402


def test_the_page_can_be_written_again_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(study.PAGE, tmp_path / "study.md")
    monkeypatch.setattr(study, "PAGE", tmp_path / "study.md")
    monkeypatch.setattr(study, "FIGURES", tmp_path / "study")
    monkeypatch.setattr(sys, "argv", ["study.py"])
    study.main()
    assert (tmp_path / "study.md").read_text(encoding="utf-8") == (REPO / "docs" / "study.md").read_text(encoding="utf-8")
    for made in (tmp_path / "study").iterdir():
        shown = (REPO / "docs" / "study" / made.name).read_text(encoding="utf-8")
        assert shown.count("<path") == made.read_text(encoding="utf-8").count("<path"), made.name  # fonts differ between machines


def test_every_system_of_a_question_is_one_of_the_comparison() -> None:
    systems = settings.load(REPO / "configs" / "compare-open-speech.yaml").systems
    assert {name for named in study.QUESTIONS.values() for name in named} <= set(systems)


def test_a_difference_is_bold_where_its_interval_excludes_0() -> None:
    value = {"difference": -0.05, "difference_low": -0.08, "difference_high": -0.01, "verdict": "better"}
    assert study.against({"values": {"new": value}}, "new") == "**-5.0 [-8.0, -1.0]**"
    assert study.against({"values": {"new": value | {"difference_high": 0.01, "verdict": "same"}}}, "new") == "-5.0 [-8.0, +1.0]"
    assert study.against({"values": {}}, "new") == "-"
