"""What a report says about the attempts of a run, and about how to repeat it."""

import json

import yaml
from scored_runs import make_config, make_run

from wfc_dist.config import loading
from wfc_dist.reports.reproduction import environment_section, reproduction_section
from wfc_dist.reports.run import write_report
from wfc_dist.runs.handle import Run
from wfc_dist.storage import durable

HERE = {
    "command": "wfc run a.yaml", "python": "3.11.7", "packages": {"wfc-dist": "0.1.0", "torch": "2.13.0", "ray": "2.60.0"},
    "commit": "c" * 40, "system": "Linux", "cpu": "a CPU", "num_cpus": 2,
}  # fmt: skip


def run_with(tmp_path, *environments):
    folder = make_run(tmp_path / "r", make_config(tmp_path))
    for number, environment in enumerate(environments, start=1):
        line = {
            "time": "t",
            "attempt": number,
            "event": "attempt",
            "host": "h",
            **({"environment": environment} if environment else {}),
        }
        durable.append_line(folder / "ledger.jsonl", json.dumps(line))
    return Run(folder)


def table(section):
    (part,) = [part for part in section.parts if part.table]
    return part.table.heads, {row[0].text: [cell.text for cell in row[1:]] for row in part.table.rows if not isinstance(row, str)}


def test_attempts_that_ran_with_the_same_share_a_column(tmp_path):
    here = HERE
    other = here | {"packages": here["packages"] | {"torch": "2.0"}, "gpus": ["H200", "H200", "L4"], "driver": "570.1"}

    heads, rows = table(environment_section(run_with(tmp_path, here, other, here)))

    assert heads == ["", "attempts 1, 3", "attempt 2"]
    assert rows["torch"] == [here["packages"]["torch"], "2.0"]
    assert rows["GPU"][1] == "2 x H200, 1 x L4" and rows["driver"][1] == "570.1"
    assert rows["Python"] == [here["python"]] * 2


def test_an_attempt_of_an_older_version_says_not_recorded(tmp_path):
    heads, rows = table(environment_section(run_with(tmp_path, None, HERE)))

    assert heads == ["", "attempt 1", "attempt 2"]
    assert {name: values[0] for name, values in rows.items() if name != "host"} == dict.fromkeys(
        set(rows) - {"host"}, "not recorded"
    )
    assert "the command is not recorded" in reproduction_section(run_with(tmp_path / "old", None)).parts[0].code


def test_the_command_and_a_configuration_that_can_be_run_again(tmp_path):
    run = run_with(tmp_path, {"command": "wfc run a.yaml"}, {"command": "wfc run a.yaml train.lr=1"})

    command, configuration, identity = reproduction_section(run).parts

    assert command.code == "wfc run a.yaml train.lr=1"
    assert loading.parse(yaml.safe_load(configuration.code)) == run.config and configuration.folded
    assert {row[0].text for row in identity.table.rows if not isinstance(row, str)} >= {"run.seed", "root model, base 0"}


def test_fingerprints_of_the_data_are_shown_in_full(tmp_path):
    run = run_with(tmp_path, {"command": "wfc run a.yaml"})
    record = json.loads(run.paths.config.read_text())
    durable.write_json(run.paths.config, record | {"data": {"cs/train": "f" * 64}, "config_sha256": "e" * 64})

    text = write_report(run.path).read_text()
    assert "f" * 64 in text and "e" * 64 in text and "wfc run a.yaml" in text
    assert "packages" not in text, "versions have their own chapter"
