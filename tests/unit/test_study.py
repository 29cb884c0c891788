"""What docs/study.md shows is what the comparison measured."""

import shutil
import sys
from pathlib import Path
from typing import Any

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


def test_another_sitting_adds_systems_beside_its_own_reference() -> None:
    def sitting(date: str, **new: float) -> dict[str, Any]:
        rows = [{"system": name, "values": {"new": {"value": value}, "protected": {"value": 0.2}}} for name, value in new.items()]
        return {"date": date, "compare": {"reference": "mean", "rows": rows}}

    sittings = [sitting("May", mean=0.35, lwf=0.36), sitting("June", mean=0.34, fta=0.4, ewc=0.3)]
    first, rows, notes = study.joined(sittings)

    assert first["date"] == "June" and {name: row["values"]["new"]["value"] for name, row in rows.items()} == {
        "mean": 0.34, "fta": 0.4, "ewc": 0.3, "lwf": 0.36,
    }  # fmt: skip
    assert [row["system"] for row in rows.values()] == ["mean", "fta", "ewc", "lwf (2)"]
    assert notes == [
        "(2) of another sitting, May, and compared to mean there: 35.0 % on the new sets, 20.0 % on the protected ones."
    ]
    assert study.joined(sittings[1:])[1:] == ({row["system"]: row for row in sittings[1]["compare"]["rows"]}, [])
