"""The chapter on `centralize.gate`: which merges were tried after which base, what was measured, and what was decided."""

from collections.abc import Iterator, Mapping
from typing import Any

from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section
from wfc_dist.reports.tables import between
from wfc_dist.runs.handle import Run


def has_gate(run: Run) -> bool:
    """Returns whether the run has a gate, or had one when a base was made."""
    return run.config.centralize.gate.is_on or any("gate" in base.facts for base in run.bases)


def gate_section(run: Run) -> Section:
    """Returns the chapter. A round that is not committed has the merges that the last attempt at it was refused."""
    rows: list[list[Cell] | str] = []
    for index, outcome, trials in _rounds(run):
        if trials:
            rows.append(f"base {index - 1} to base {index}: {outcome}")
            rows += trials
    if not rows:
        return Section(parts=[Part(note="No merge has been judged yet.")])
    gate = run.config.centralize.gate
    limits = {
        "update / weights at most": gate.max_update_ratio,
        "update / largest before at most": gate.max_growth,
        "a canary worse by at most": f"{100 * gate.max_worse:g} points" if gate.canaries else None,
    }
    said = ", ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)
    intro = (
        f"Every merge is judged before it is committed; limits now: {said or 'none'}; action: {gate.action}. Changes of canary "
        "sets are in points of error from the base before, with their intervals; none are measured where the size is refused."
    )
    return Section(intro, [Part(table=HtmlTable(["merge", "update / weights", "canary sets", "decision"], rows, left=True))])


def _rounds(run: Run) -> Iterator[tuple[int, str, list[list[Cell]]]]:
    """Yields (round, outcome, a row for each trial)."""
    refused = [line for line in run.ledger() if line["event"] == "gate"]
    for index in range(1, len(run.config.round_list()) + 1):
        if (base := run.find_base(index)) is not None:
            gate = base.facts.get("gate", {})
            trials = gate.get("trials", ())
            last = len(trials) - 1
            rows = [_row(trial, "committed" if place == last else "passed") for place, trial in enumerate(trials)]
            yield index, f"committed with {gate.get('passed', '-')}", rows
        else:
            lines = [line for line in refused if line["round"] == index]
            lines = [line for line in lines if line["attempt"] == lines[-1]["attempt"]]
            yield index, "not committed", [_row(line, "passed") for line in lines]


def _row(trial: Mapping[str, Any], passed: str) -> list[Cell]:
    ratio, canaries = trial.get("update_ratio"), trial.get("canaries", {})
    changes = "; ".join(
        f"{name} {100 * value:+.1f} {between(low, high, '+')}".strip() for name, (value, low, high) in canaries.items()
    )
    decision = f"refused: {'; '.join(trial['findings'])}" if trial["findings"] else passed
    return [
        Cell(trial["what"]), Cell("-" if ratio is None else f"{ratio:.3g}"), Cell(changes or "-", css="wrap"),
        Cell(decision, css="wrap"),
    ]  # fmt: skip
