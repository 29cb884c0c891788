"""Tables of `wfc audit` and `wfc status`, and the tree of `wfc lineage`. Loads neither torch nor ray."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.tree import Tree

from wfc_dist.data.audit import AuditReport
from wfc_dist.reports.stream import stream_table
from wfc_dist.reports.tables import titled_table
from wfc_dist.runs.layout import RunPaths, first_uncommitted, read_base, read_config, require_run
from wfc_dist.storage import durable

MOST_ROWS = 200  # nobody reads a longer table, and drawing one takes seconds


def audit_table(report: AuditReport) -> Group:
    """Returns clips, hours, durations and findings of every split."""
    table = titled_table("data", "set", "split", "clips", "hours", "seconds min/mean/max", "languages", "findings")
    for row in report.rows:
        seconds = f"{row.min_s:.1f} / {row.mean_s:.1f} / {row.max_s:.1f}"
        counts = {"errors": len(row.lines("error")), "warnings": len(row.lines("warning"))}
        findings = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
        languages = " ".join(f"{code}:{count}" for code, count in row.languages.items())
        table.add_row(row.name, row.split, str(row.num_clips), f"{row.hours:.3f}", seconds, languages, findings or "none")
    return Group(table, *(f"warning: {line}" for line in report.warnings))


def status_table(run_dir: Path) -> Group:
    """Returns how far a run is: its state, and per round which adapters and base are committed.

    Where a run has more than MOST_ROWS adapters, one row stands for all rounds that are done and one for those to come.
    """
    paths, config = require_run(run_dir), read_config(run_dir)
    status = json.loads(paths.status.read_text(encoding="utf-8")) if paths.status.is_file() else {}
    head = titled_table(str(run_dir), "state", "attempt", "since", "on", "message")
    on = f"{status.get('host', '?')}, process {status.get('pid', '?')}"
    head.add_row(status.get("state", "new"), str(status.get("attempt", 0)), status.get("time", ""), on, status.get("message", ""))
    table = titled_table("rounds", "round", "data set", "adapter", "steps", "base")
    rounds = config.round_list()
    is_short = sum(map(len, rounds)) <= MOST_ROWS
    current = min(first_uncommitted(paths, 1), len(rounds))
    if not is_short and current > 1:
        table.add_row(
            f"1 to {current - 1}", f"{sum(map(len, rounds[: current - 1]))} sets", "all committed", "", _sha(paths, current - 1)
        )
    for index, names in enumerate(rounds, start=1):
        if is_short or (index == current and len(names) <= MOST_ROWS):
            for position, name in enumerate(names):
                base = _sha(paths, index) if position == 0 else ""
                table.add_row(str(index) if position == 0 else "", name, *_adapter_cells(paths, index, name), base)
        elif index == current:
            table.add_row(str(index), f"{len(names)} sets", _counts(paths, index, names), "", _sha(paths, index))
    if not is_short and current < len(rounds):
        table.add_row(f"{current + 1} to {len(rounds)}", f"{sum(map(len, rounds[current:]))} sets", "to come", "", "-")
    arrivals = stream_table(run_dir)
    return Group(head, table, *([arrivals] if arrivals else []))


def _sha(paths: RunPaths, index: int) -> str:
    entry = read_base(paths.run_dir, index)
    return entry[0].sha256[:12] if entry else "-"


def _counts(paths: RunPaths, round_index: int, names: Sequence[str]) -> str:
    """Returns how many adapters of a round are where, without opening a file of any."""
    waiting = [name for name in names if not durable.is_committed(paths.adapter(round_index, name))]
    begun = sum(paths.checkpoints(round_index, name).is_dir() for name in waiting)
    return f"{len(names) - len(waiting)} committed, {begun} in training, {len(waiting) - begun} waiting"


def _adapter_cells(paths: RunPaths, round_index: int, dataset: str) -> tuple[str, str]:
    manifest = durable.read_manifest(paths.adapter(round_index, dataset))
    if manifest is not None:
        return manifest["sha256"][:12], str(manifest["steps"])
    steps = [folder for folder in paths.checkpoints(round_index, dataset).glob("step-*") if (folder / durable.MANIFEST).is_file()]
    newest = max((int(folder.name.removeprefix("step-")) for folder in steps), default=None)
    return ("-", "0") if newest is None else ("in training", f"checkpoint at {newest}")


def lineage_tree(run_dir: Path) -> Tree:
    """Returns which data, through which adapters and weights, made every base of a run."""
    require_run(run_dir)
    entry, index = read_base(run_dir, 0), 0
    tree = Tree(f"{run_dir}")
    while entry is not None:
        base, facts = entry
        branch = tree.add(_base_line(base.index, base.sha256, facts))
        for dataset, sha256 in facts.get("adapters", {}).items():
            adapter = durable.read_manifest(RunPaths(run_dir).adapter(index, dataset)) or {}
            hours, steps = adapter.get("hours", 0.0), adapter.get("steps", "?")
            branch.add(f"{dataset}: adapter {sha256[:12]}, weight {facts['weights'][dataset]:.4f}, {hours:.2f} h, {steps} steps")
        index += 1
        entry = read_base(run_dir, index)
    return tree


def _base_line(index: int, sha256: str, facts: Mapping[str, Any]) -> str:
    if index == 0:
        return f"base 0  {sha256[:12]}  {facts['model']}" + (f"@{facts['revision']}" if facts["revision"] else "")
    gap = f"{facts['exactness_gap']:.3f}" if facts["exactness_gap"] is not None else "-"
    return (
        f"base {index}  {sha256[:12]}  = base {index - 1} + {facts['method']} x {facts['scale']:g}  "
        f"(norm {facts['update_norm']:.3f}, exactness gap {gap}, update loss {facts['update_loss']:.1e})"
    )
