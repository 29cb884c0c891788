"""What `--json` prints is valid under its schema, which refuses other keys; standard output holds nothing else."""

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import scored_runs
import tiny
from typer.testing import CliRunner

import wfc_dist
from wfc_dist.cli.commands import app
from wfc_dist.compare import results
from wfc_dist.compare.results import SystemRow, Value
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports import as_json

SCORE = Score("wer", 0.25, 0.2, None, 5, 20, 3, 1, 1, 4, 0.95)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_config(tmp_path_factory.mktemp("tiny"), rounds=[["a"], ["b"]])


def printed(*arguments: object) -> tuple[dict, int]:
    """Returns the JSON on standard output, and the exit code, of a command; the JSON is checked against its schema."""
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    tree = json.loads(result.stdout)
    jsonschema.validate(tree, as_json.schema_of(str(arguments[0])))
    return tree, result.exit_code


def test_plan_and_audit(config: Path) -> None:
    plan, code = printed("plan", config, "--json")
    assert code == 0 and [(row["round"], row["dataset"]) for row in plan["trainings"]] == [(1, "a"), (2, "b")]
    assert plan["sizes"]["num_adapted"] > 0 and plan["num_test_sets"] == 2
    found, code = printed("audit", config, "--json")
    assert code == 0 and found["num_errors"] == 0 and {row["split"] for row in found["splits"]} == {"train", "dev", "test"}


def test_an_audit_with_errors_prints_them_and_fails(config: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (config.parent / "a" / "train.jsonl").read_text().splitlines()]
    broken = tiny.make_config(tmp_path, rounds=[["a"]])
    rows[0]["text"] = ""
    (tmp_path / "a" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, code = printed("audit", broken, "--json")
    assert code != 0 and found["num_errors"] >= 1
    assert any(problem["what"] == "the text is empty" for row in found["splits"] for problem in row["problems"])


def test_status_and_lineage_of_a_run_that_has_begun(tmp_path: Path) -> None:
    run = scored_runs.make_run(tmp_path, scored_runs.make_config(tmp_path))
    state, _ = printed("status", run, "--json")
    assert state["state"] == "new" and state["num_bases"] == 0
    assert [[adapter["state"] for adapter in row["adapters"]] for row in state["rounds"]] == [["waiting"] * 2, ["waiting"]]
    assert printed("lineage", run, "--json")[0]["bases"] == []


def test_scores(config: Path) -> None:
    tree = json.loads(as_json.text_of(as_json.evaluate_json("m", wfc_dist.load_config(config), {"a": SCORE})))
    jsonschema.validate(tree, as_json.schema_of("evaluate"))
    assert tree["scores"]["a"]["rate"] == 0.25 and tree["scores"]["a"]["high"] is None


@pytest.mark.parametrize("command", as_json.COMMANDS)
def test_a_schema_refuses_unknown_and_missing_keys(command: str) -> None:
    schema = as_json.schema_of(command)
    assert schema["additionalProperties"] is False and sorted(schema["required"]) == sorted(schema["properties"])
    for tree in ({}, {"unknown": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tree, schema)


def test_the_schemas_are_printed_and_an_unknown_command_is_named() -> None:
    result = CliRunner().invoke(app, ["config", "schema", "--of", "lineage"])
    assert json.loads(result.stdout) == as_json.schema_of("lineage")
    result = CliRunner().invoke(app, ["config", "schema", "--of", "linage"])
    assert isinstance(result.exception, wfc_dist.InputError) and "did you mean 'lineage'" in str(result.exception)


def test_a_comparison_is_valid_where_a_figure_is_no_number(config: Path) -> None:
    settings = wfc_dist.load_config(config)
    value = Value(float("inf"), 0.1, float("nan"), None, None, None, None, None, None, 20, "same")
    rows = [SystemRow("root", "the untouched root", [1], 2, 0.0, {"new_relative": value})]
    comparison = SimpleNamespace(
        name="c", reference="mean", seeds=[1, 2], datasets=["a"], runs=[SimpleNamespace(config=settings)]
    )
    tree = json.loads(as_json.text_of(results.as_json(comparison, rows) | {"failures": {"mean-2": "stopped"}}))  # type: ignore[arg-type]
    jsonschema.validate(tree, as_json.schema_of("compare"))
    assert tree["rows"][0]["values"]["new_relative"]["value"] is None
