"""What the pages of the study show is what the comparison measured."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[3]
sys.path.append(str(REPO / "examples" / "open-speech"))

import study  # noqa: E402
from sittings import Study, holds, windows  # noqa: E402

from wfc_dist.compare import settings  # noqa: E402
from wfc_dist.config.schema import EvaluateConfig  # noqa: E402
from wfc_dist.evaluation.hypotheses import Hypothesis, cache_key, write_hypotheses  # noqa: E402

COMPARISONS = [REPO / "configs" / f"{name}.yaml" for name in ("compare-open-speech", "compare-open-speech-variants")]


def test_the_pages_can_be_written_again_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(study.PAGE, tmp_path / "study.md")
    monkeypatch.setattr(study, "PAGE", tmp_path / "study.md")
    monkeypatch.setattr(study, "FOLDER", tmp_path / "study")
    monkeypatch.setattr(sys, "argv", ["study.py"])
    study.main()
    assert (tmp_path / "study.md").read_text(encoding="utf-8") == (REPO / "docs" / "study.md").read_text(encoding="utf-8")
    made = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "study").iterdir()}
    assert len(made) == 7
    for name, text in made.items():
        shown = (REPO / "docs" / "study" / name).read_text(encoding="utf-8")
        if name.endswith(".svg"):
            assert shown.count("<path") == text.count("<path"), name  # fonts differ between machines
        else:
            assert shown == text, name


def test_every_system_of_a_question_is_one_of_the_comparison() -> None:
    systems = {name for path in COMPARISONS for name in settings.load(path).systems}
    assert {name for named in study.QUESTIONS.values() for name in named} <= systems


def test_what_stands_in_both_comparisons_is_the_same_run_to_the_same_pool() -> None:
    one, other = (settings.load(path) for path in COMPARISONS)
    shared = set(one.systems) & set(other.systems) - {"untouched"}
    assert one.reference == other.reference and one.reference in shared and one.folder != other.folder
    for system in shared:
        for left, right in zip(one.runs_of(system, 1), other.runs_of(system, 1), strict=True):
            assert left.config.run.name == right.config.run.name and left.config.run.pool == right.config.run.pool
            assert left.config.model_dump(exclude={"run"}) == right.config.model_dump(exclude={"run"}), system


def test_a_difference_is_bold_where_its_interval_excludes_0() -> None:
    value = {"difference": -0.05, "difference_low": -0.08, "difference_high": -0.01, "verdict": "better"}
    assert study.against({"values": {"new": value}}, "new") == "**-5.0 [-8.0, -1.0]**"
    assert study.against({"values": {"new": value | {"difference_high": 0.01, "verdict": "same"}}}, "new") == "-5.0 [-8.0, +1.0]"
    assert study.against({"values": {}}, "new") == "-"


def made_sitting(date: str, seeds: tuple[int, ...] = (1,), packed: bool = True, **new: float) -> dict[str, Any]:
    rows = [
        {"system": name, "values": {
            "new": {"value": value, "low": value, "high": value, "difference": None},
            "protected": {"value": 0.2, "low": 0.2, "high": 0.2, "difference": None},
            "new_relative": {"value": value - 0.4, "low": value - 0.4, "high": value - 0.4},
            "protected_relative": {"value": value / 10, "low": value / 10, "high": value / 10},
        }} for name, value in new.items()
    ]  # fmt: skip
    return {"date": date, "compare": {"reference": "mean", "seeds": list(seeds), "decoding": {"packing": packed}, "rows": rows}}


def new_of(made: Study) -> dict[str, float]:
    return {row["system"]: row["values"]["new"]["value"] for row in made.rows.values()}


def test_another_sitting_adds_systems_beside_its_own_reference() -> None:
    sittings = [made_sitting("May", mean=0.35, lwf=0.36), made_sitting("June", mean=0.34, fta=0.4, ewc=0.3)]
    made = Study(sittings)

    assert [tree["date"] for tree in made.main] == ["June"]
    assert new_of(made) == {"mean": 0.34, "fta": 0.4, "ewc": 0.3, "lwf (2)": 0.36}
    assert made.notes == [
        "(2) of another sitting, May, and compared to mean there: 35.0 % on the new sets, 20.0 % on the protected ones."
    ]
    alone = Study(sittings[1:])
    assert new_of(alone) == {"mean": 0.34, "fta": 0.4, "ewc": 0.3} and alone.notes == []


def test_sittings_whose_reference_came_out_the_same_are_one() -> None:
    made = Study([made_sitting("May", mean=0.34, lwf=0.36), made_sitting("June", mean=0.34, fta=0.4, ewc=0.3)])
    assert [tree["date"] for tree in made.main] == ["June", "May"] and made.notes == []
    assert new_of(made) == {"mean": 0.34, "fta": 0.4, "ewc": 0.3, "lwf": 0.36}


def test_a_sitting_decoded_with_other_options_is_another_one() -> None:
    first, second = made_sitting("May", mean=0.34, lwf=0.36), made_sitting("June", mean=0.34, fta=0.4, ewc=0.3)
    first["compare"]["decoding"]["compression_ratio_threshold"] = None
    made = Study([first, second])
    assert [tree["date"] for tree in made.main] == ["June"] and "lwf (2)" in new_of(made)
    first["fits"], second["fits"] = [{"run": "a"}, {"run": "b"}], [{"run": "b"}]
    assert [item["run"] for item in Study([first, second]).fits] == ["b", "a"]
    small = made_sitting("July", mean=0.34, fta=0.5)
    assert [tree["date"] for tree in Study([first, second, small]).main] == ["June", "July"]
    small["compare"]["decoding"]["compression_ratio_threshold"] = 3.0
    assert [tree["date"] for tree in Study([first, second, small]).main] == ["July"]
    assert made.notes[0].startswith("(2) of another sitting, May, decoded with other options, and compared to mean there")


def test_a_sitting_that_has_gone_on_takes_the_place_of_what_it_was() -> None:
    made = made_sitting("May", mean=0.35, lwf=0.36)
    assert holds(made_sitting("June", mean=0.35, lwf=0.37, ewc=0.4), made)
    for other in (
        made_sitting("June", mean=0.35, ewc=0.4),
        made_sitting("June", mean=0.34, lwf=0.36),
        made_sitting("June", seeds=(2,), mean=0.35, lwf=0.36),
        made_sitting("June", packed=False, mean=0.35, lwf=0.36),
    ):
        assert not holds(other, made)


def test_the_same_systems_on_another_processor_have_a_table_of_their_own() -> None:
    made = Study([made_sitting("May", mean=0.35, lwf=0.36), made_sitting("June", mean=0.34, lwf=0.37, ewc=0.3, fta=0.4)])
    assert [tree["date"] for tree in made.elsewhere] == ["May"]
    title, _, text, _, head, _, *lines, _ = study.elsewhere(made)
    assert (
        title.startswith("## ") and text == "Largest difference: 1.0 points on the new sets and 0.0 points on the protected sets."
    )
    assert head == "| system | new | there | protected | there |"
    assert lines == ["| mean | 34.0 | 35.0 | 20.0 | 20.0 |", "| lwf | 37.0 | 36.0 | 20.0 | 20.0 |"]
    assert study.elsewhere(Study([made_sitting("May", mean=0.34), made_sitting("June", mean=0.34, lwf=0.3)])) == []
    assert study.elsewhere(Study([made_sitting("May", (2,), mean=0.33), made_sitting("June", mean=0.34, lwf=0.3)])) == []


def test_other_seeds_have_a_table_of_their_own() -> None:
    made = Study([made_sitting("June", mean=0.3, fta=0.4, ewc=0.3), made_sitting("May", (2,), mean=0.35, ewc=0.2, lwf=0.1)])
    assert list(new_of(made)) == ["mean", "fta", "ewc"] and made.notes == []
    head, _, *lines = [line for line in study.over_seeds(made) if line.startswith("|")]
    assert head.startswith("| system | seeds | new, mean of ratios | mean | protected, ratio of means | mean |")
    assert lines == [
        "| mean | 1; 2 | -10.0; -5.0 | -7.5 | +3.0; +3.5 | +3.2 | -; - | -; - |",
        "| ewc | 1; 2 | -10.0; -20.0 | -15.0 | +3.0; +2.0 | +2.5 | -; - | -; - |",
    ]
    assert study.over_seeds(Study([made_sitting("June", mean=0.3)])) == []


def test_sittings_with_the_same_other_seeds_are_put_together() -> None:
    sittings = [made_sitting("May", mean=0.3, ewc=0.3, lwf=0.3), made_sitting("June", (2,), mean=0.35, ewc=0.2)]
    made = Study([*sittings, made_sitting("July", (2,), mean=0.4, lwf=0.1)])
    found = made.by_seed["2"]
    assert {name: row["values"]["new"]["value"] for name, row in found.items()} == {
        "mean": 0.35,
        "ewc": 0.2,
        "lwf": 0.1,
    }


def test_what_is_decoded_clip_by_clip_has_a_table_of_its_own() -> None:
    sittings = [made_sitting("June", packed=False, mean=0.25, lwf=0.26, ewc=0.2), made_sitting("May", mean=0.35, lwf=0.3)]
    made = Study([*sittings, made_sitting("July", packed=False, mean=0.25, fta=0.5)])
    assert new_of(made) == {"mean": 0.35, "lwf": 0.3} and made.notes == [] and list(made.by_seed) == ["1"]
    _, _, *lines = [line for line in study.clip_by_clip(made) if line.startswith("|")]
    assert {line.split(" | ")[0] for line in lines} == {"| mean", "| lwf", "| ewc", "| fta"}
    shown = "20.0 [20.0, 20.0]", "-14.0 [-14.0, -14.0]", "+2.6 [+2.6, +2.6]"
    assert f"| lwf | 26.0 [26.0, 26.0] | 30.0 | {shown[0]} | 20.0 | {shown[1]} | {shown[2]} | - | - |" in lines
    assert any(line.startswith("| fta | 50.0 [50.0, 50.0] | - |") for line in lines)
    assert study.clip_by_clip(Study(sittings[1:])) == []


def test_a_sitting_without_the_reference_is_not_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = study.RESULTS.read_bytes()
    (tmp_path / "compare.json").write_text(json.dumps({"rows": [{"system": "lwf", "seeds": [1]}]}))
    monkeypatch.setattr(sys, "argv", ["study.py", "--add", str(tmp_path)])
    with pytest.raises(SystemExit):
        study.main()
    assert "has no row of mean-3" in capsys.readouterr().err and study.RESULTS.read_bytes() == before


def test_windows_are_those_of_every_model_once(tmp_path: Path) -> None:
    window = Hypothesis("a..b", ("a", "b"), "a b", "en", 2.0)
    for run, model, written in (
        ("one", "root", [window] * 3), ("two", "root", [window] * 3), ("two", "merged", [window, replace(window, apart=True)])
    ):  # fmt: skip
        for data in ("x", "y"):
            path = tmp_path / run / "round-0001" / "evaluation" / model / f"{data}.jsonl"
            write_hypotheses(path, cache_key(model, data, EvaluateConfig(packing=True)), written)
    found = windows(sorted(tmp_path.iterdir()))
    assert found == {"models": 2, "decoded": 10, "loops": 2}
    made = Study([made_sitting("May", mean=0.3) | {"windows": found}])
    assert study.loops(made) == ["2 of the 10 windows that 2 models wrote were loops and were decoded clip by clip.", ""]
    assert study.loops(Study([made_sitting("May", mean=0.3)])) == []
