"""Tables of `wfc audit` and `wfc status`, and the tree of `wfc lineage`. Loads neither torch nor ray."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from wfc_dist.coordinator.garbage import Garbage
from wfc_dist.data.audit import AuditReport
from wfc_dist.progress import in_words
from wfc_dist.reports.stream import stream_table
from wfc_dist.reports.tables import titled_table
from wfc_dist.runs.handle import Run
from wfc_dist.runs.watch import doubt_about

MOST_ROWS = 200  # nobody reads a longer table, and drawing one takes seconds


def audit_table(report: AuditReport) -> Group:
    """Returns clips, hours, durations and findings of every split, and texts before and after cleaning."""
    table = titled_table("data", "set", "split", "clips", "hours", "seconds min/mean/max", "languages", "findings")
    for row in report.rows:
        seconds = f"{row.min_s:.1f} / {row.mean_s:.1f} / {row.max_s:.1f}"
        counts = {"errors": len(row.lines("error")), "warnings": len(row.lines("warning"))}
        findings = ", ".join(f"{count} {level if count > 1 else level[:-1]}" for level, count in counts.items() if count)
        languages = " ".join(f"{code}:{count}" for code, count in row.languages.items())
        table.add_row(row.name, row.split, str(row.num_clips), f"{row.hours:.3f}", seconds, languages, findings or "none")
    cleaned = titled_table("cleaned texts", "set", "split", "as written", "as trained")
    for row in report.rows:
        for before, after in row.shown:
            cleaned.add_row(row.name, row.split, Text(before), Text(after))
    return Group(table, *([cleaned] if cleaned.rows else []), *(Text(f"warning: {line}") for line in report.warnings))


def status_table(run: Run) -> Group:
    """Returns how far a run is: its state, and per round which adapters and base are committed.

    Where a run has more than MOST_ROWS adapters, one row stands for all rounds that are done and one for those to come.
    """
    status = run.status()
    head = titled_table(str(run.path), "state", "attempt", "since", "on", "message")
    on = f"{status.facts.get('host', '?')}, process {status.facts.get('pid', '?')}"
    head.add_row(status.state, str(status.attempt), status.facts.get("time", ""), on, doubt_about(run) or status.message)
    table = titled_table("rounds", "round", "data set", "adapter", "steps", "base")
    rounds = run.config.round_list()
    is_short = sum(map(len, rounds)) <= MOST_ROWS
    current = min(max(run.num_bases, 1), len(rounds))
    if not is_short and current > 1:
        table.add_row(
            f"1 to {current - 1}", f"{sum(map(len, rounds[: current - 1]))} sets", "all committed", "", _sha(run, current - 1)
        )
    for index, names in enumerate(rounds, start=1):
        if is_short or (index == current and len(names) <= MOST_ROWS):
            for position, name in enumerate(names):
                base = _sha(run, index) if position == 0 else ""
                table.add_row(str(index) if position == 0 else "", name, *_adapter_cells(run, index, name), base)
        elif index == current:
            table.add_row(str(index), f"{len(names)} sets", _counts(run, index, names), "", _sha(run, index))
    if not is_short and current < len(rounds):
        table.add_row(f"{current + 1} to {len(rounds)}", f"{sum(map(len, rounds[current:]))} sets", "to come", "", "-")
    arrivals = stream_table(run)
    lines = [Text(line) for line in (*progress_lines(run), *_set_aside(run))]
    return Group(head, *lines, table, *([arrivals] if arrivals else []))


def garbage_table(run_dir: Path, found: Sequence[Garbage]) -> Table:
    """Returns what a run does not need: path in the run, megabytes, and what it was."""
    table = titled_table("not needed", "path", "MB", "what it was")
    for item in found:
        table.add_row(Text(item.path.relative_to(run_dir).as_posix()), f"{item.num_bytes / 1e6:,.1f}", item.why)
    return table


def _set_aside(run: Run) -> list[str]:
    """Returns which data sets bases were made without, and which the last attempt has set aside, with the reasons."""
    lines = [f"base {base.index} was made without {name}: {why}" for base in run.bases for name, why in base.missing.items()]
    ledger, now = run.ledger(), (run.status().attempt, run.num_bases)
    return lines + [
        f"round {line['round']} waits for {line['dataset']}: {line['reason']}"
        for line in ledger if line["event"] == "quarantined" and (line["attempt"], line["round"]) == now
    ]  # fmt: skip


def progress_lines(run: Run) -> list[str]:
    """Returns how far the current phase of a running run is, and each of its trainings, in lines."""
    if (found := run.progress()) is None:
        return []
    lines = [_share(found["what"], found["done"], found["total"], found["unit"], found["left_s"])]
    for row in found["trainings"][:MOST_ROWS]:
        lines.append(_share(f"  {row['dataset']} on {row['host']}", row["step"], row["max_steps"], "steps", row["left_s"]))
    return lines


def _share(what: str, done: float, total: float, unit: str, left_s: float | None) -> str:
    left = f", about {in_words(left_s)} left" if left_s is not None else ""
    return f"{what}: {100 * done / max(total, 1):.0f} % of {total:g} {unit}{left}"


def _sha(run: Run, index: int) -> str:
    return base.sha256[:12] if (base := run.find_base(index)) else "-"


def _counts(run: Run, round_index: int, names: Sequence[str]) -> str:
    """Returns how many adapters of a round are where, without opening a file of any."""
    waiting = [name for name in names if not run.is_committed(round_index, name)]
    begun = sum(run.paths.checkpoints(round_index, name).is_dir() for name in waiting)
    return f"{len(names) - len(waiting)} committed, {begun} in training, {len(waiting) - begun} waiting"


def _adapter_cells(run: Run, round_index: int, dataset: str) -> tuple[str, str]:
    if (adapter := run.adapter(round_index, dataset)) is not None:
        return adapter.sha256[:12], str(adapter.facts.get("steps", "?"))
    if (base := run.find_base(round_index)) is not None and dataset in base.missing:
        return "missing", "quarantined"
    steps = run.checkpoints(round_index, dataset)
    return ("in training", f"checkpoint at {steps[0]}") if steps else ("-", "0")


def lineage_tree(run: Run) -> Tree:
    """Returns which data, through which adapters and weights, made every base of a run."""
    tree, bases = Tree(Text(str(run.path))), run.bases
    number = {base.sha256: f"base {base.index}" for base in bases}
    for base in bases:
        branch = tree.add(Text(_base_line(base.index, base.sha256, base.facts)))
        for dataset, sha256 in base.adapters.items():
            adapter = run.adapter(base.index, dataset)
            hours, steps = (adapter.facts.get("hours", 0.0), adapter.facts.get("steps", "?")) if adapter else (0.0, "?")
            weight = _figure(base.facts.get("weights", {}).get(dataset), ".4f")
            against = base.facts.get("grafted", {}).get(dataset)
            told = f"{dataset}: adapter {sha256[:12]}, weight {weight}, {hours:.2f} h, {steps} steps"
            stale = f", stale: trained against {number.get(against, 'another base')}, {against[:12]}" if against else ""
            branch.add(Text(told + stale))
        for dataset, why in base.missing.items():
            came = run.adapter(base.index, dataset)
            since = f"; adapter {came.sha256[:12]} came late" if came is not None and came.facts.get("late") else ""
            branch.add(Text(f"{dataset}: missing, {why}{since}"))
        for trial in base.facts.get("gate", {}).get("trials", ()):
            said = "; ".join(trial["findings"]) or f"passed, the update is {trial['update_ratio']:.3g} times the weights"
            branch.add(Text(f"gate, {trial['what']}: {said}"))
    return tree


def _base_line(index: int, sha256: str, facts: Mapping[str, Any]) -> str:
    if index == 0:
        return f"base 0  {sha256[:12]}  {facts.get('model', '?')}" + (f"@{facts['revision']}" if facts.get("revision") else "")
    norm, gap = _figure(facts.get("update_norm"), ".3f"), _figure(facts.get("exactness_gap"), ".3f")
    return (
        f"base {index}  {sha256[:12]}  = base {index - 1} + {facts.get('method', '?')} x {_figure(facts.get('scale'), 'g')}  "
        f"(norm {norm}, exactness gap {gap}, update loss {_figure(facts.get('update_loss'), '.1e')})"
    )


def _figure(value: float | None, how: str) -> str:
    return "-" if value is None else format(value, how)
