"""The chapters of a run's report on what the run ran with, and on how to run it again."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import read_record

_UNKNOWN = "not recorded"
_FACTS = {"commit": "git commit of wfc_dist", "python": "Python", "system": "system", "cpu": "CPU", "num_cpus": "CPU threads"}


def environment_section(run: Run) -> Section:
    """Returns the chapter: a column for each kind of attempt, a row for each version or part of the machine."""
    attempts = [line for line in run.ledger() if line.get("event") == "attempt"]
    if not attempts:
        return Section(parts=[Part(note="No attempt is in the ledger.")])
    kinds: list[tuple[dict[str, str], list[str]]] = []
    for line in attempts:
        facts = _environment(line)
        for known, numbers in kinds:
            if known == facts:
                numbers.append(str(line["attempt"]))
                break
        else:
            kinds.append((facts, [str(line["attempt"])]))
    names = list(dict.fromkeys(name for facts, _ in kinds for name in facts))
    rows = [[Cell(name), *(Cell(facts.get(name, _UNKNOWN), css="wrap") for facts, _ in kinds)] for name in names]
    heads = [f"attempt{'s' * (len(numbers) > 1)} {', '.join(numbers)}" for _, numbers in kinds]
    intro = "What each attempt ran with, on the machine of the coordinator. Ray admits only nodes with equal versions."
    return Section(intro, [Part(table=HtmlTable(["", *heads], rows, left=True))])


def _environment(line: Mapping[str, Any]) -> dict[str, str]:
    """Returns what is recorded of an attempt as name -> text; the names are the same for all attempts, as far as known."""
    recorded = line.get("environment", {})
    packages = recorded.get("packages", {})
    facts = {"host": str(line.get("host", _UNKNOWN)), "wfc_dist": packages.get("wfc-dist", _UNKNOWN)}
    facts |= {title: str(recorded[key]) for key, title in _FACTS.items() if key in recorded}
    facts |= {name: number for name, number in packages.items() if name != "wfc-dist"}
    gpus = recorded.get("gpus", [])
    models = [f"{gpus.count(model)} x {model}" for model in dict.fromkeys(gpus)]
    if recorded:
        facts |= {"GPU": ", ".join(models) or "none", "driver": recorded.get("driver", "none")}
    return facts


def reproduction_section(run: Run) -> Section:
    """Returns the chapter: command, configuration, seeds, and the data by its fingerprints."""
    record = read_record(run.paths)
    attempts = [line for line in run.ledger() if line.get("event") == "attempt"]
    commands = [line["environment"]["command"] for line in attempts if line.get("environment", {}).get("command")]
    last = commands[-1] if commands else "# the command is not recorded; with the configuration below:\nwfc run config.yaml"
    intro = (
        "The same command with the same configuration, data, root model and versions gives the same bytes. The sha256 of the "
        "last base shows it."
    )
    config = run.config
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return Section(intro, [
        Part("Command", code=last),
        Part("Configuration, every default included", code=text, folded=f"config.yaml, {len(text.splitlines())} lines"),
        Part("Seeds, hashes and data", table=_identity(run, record)),
    ])  # fmt: skip


def _identity(run: Run, record: Mapping[str, Any]) -> HtmlTable:
    root, last = run.find_base(0), run.find_base(run.num_bases - 1) if run.num_bases else None
    rows: list[Sequence[Cell] | str] = [
        [Cell("run.seed"), Cell(str(run.config.run.seed))],
        [Cell("sha256 of the configuration"), Cell(str(record.get("config_sha256", _UNKNOWN)), css="wrap")],
        [Cell("root model, base 0"), Cell(f"{run.config.base.model} {root.sha256 if root else ''}".strip(), css="wrap")],
    ]
    if last is not None and last.index:
        rows.append([Cell(f"base {last.index}"), Cell(last.sha256, css="wrap")])
    data = record.get("data", {})
    if data:
        rows.append("fingerprints of the data: sha256 over id, text, language, length and size of every clip")
    rows += [[Cell(name), Cell(str(sha256), css="wrap")] for name, sha256 in data.items()]
    return HtmlTable(["what", "value"], rows, left=True)
