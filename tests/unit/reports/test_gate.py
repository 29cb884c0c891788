"""The table of what the gate tried, measured and decided."""

import json
from pathlib import Path

from scored_runs import make_config, make_full_run, make_run

from wfc_dist.reports.gate import gate_section, has_gate
from wfc_dist.reports.run import write_report
from wfc_dist.runs.handle import Run
from wfc_dist.storage import durable

TOO_LARGE = "the update is 0.312 times the weights, above max_update_ratio = 0.2"
TITLE = "What the gate decided"


def put_base(folder: Path, index: int, *trials: dict) -> None:
    facts = {"schema": 1, "files": {}, "sha256": f"{index:02d}" * 32, **({} if index else {"model": "m"})}
    if trials:
        facts["gate"] = {"passed": trials[-1]["what"], "trials": list(trials)}
    durable.write_json(folder / f"base-{index:04d}" / "manifest.json", facts)


def trial(what: str, *findings: str, ratio: float | None = 0.156, **canaries: list) -> dict:
    return {"what": what, "findings": list(findings), "update_ratio": ratio, "canaries": canaries}


def test_every_trial_has_a_row_with_its_figures_and_the_decision(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", make_config(tmp_path))
    put_base(folder, 0)
    put_base(
        folder,
        1,
        trial("all adapters", TOO_LARGE, ratio=0.312),
        trial("scale x 0.5", en=[-0.01, -0.02, 0.0], ar=[0.0, None, None]),
    )
    for attempt, what in ((1, "an earlier attempt"), (2, "all adapters")):
        line = {
            "time": "t",
            "attempt": attempt,
            "event": "gate",
            "round": 2,
            "action": "stop",
            **trial(what, "not finite", ratio=None),
        }
        durable.append_line(folder / "ledger.jsonl", json.dumps(line))

    (part,) = gate_section(Run(folder)).parts

    assert part.table is not None
    assert [row if isinstance(row, str) else [cell.text for cell in row] for row in part.table.rows] == [
        "base 0 to base 1: committed with scale x 0.5",
        ["all adapters", "0.312", "-", f"refused: {TOO_LARGE}"],
        ["scale x 0.5", "0.156", "en -1.0 [-2.0, +0.0]; ar +0.0", "committed"],
        "base 1 to base 2: not committed",
        ["all adapters", "-", "-", "refused: not finite"],
    ]  # fmt: skip
    assert has_gate(Run(folder)) and TITLE in write_report(folder).read_text()


def test_a_run_without_a_gate_has_no_such_chapter(tmp_path: Path) -> None:
    folder = make_full_run(tmp_path)
    assert not has_gate(Run(folder)) and TITLE not in write_report(folder).read_text()


def test_a_gate_that_has_judged_nothing_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", make_config(tmp_path))
    put_base(folder, 0)
    (part,) = gate_section(Run(folder)).parts
    assert part.note == "No merge has been judged yet."
