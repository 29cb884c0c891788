"""Data sets that a round was committed without (`centralize.quorum`), and which of them a later round folds in."""

from collections.abc import Iterable, Mapping
from typing import Any

from wfc_dist.config.schema import Config
from wfc_dist.runs.layout import RunPaths, read_base
from wfc_dist.runs.records import standing


def is_late(paths: RunPaths, round_index: int, dataset: str) -> bool:
    """Returns whether the base of a round (1-based) is committed, and was made without a data set."""
    settled = read_base(paths.run_dir, round_index)
    return settled is not None and dataset not in settled[1].get("adapters", (dataset,))


def awaited(config: Config, lines: Iterable[Mapping[str, Any]], after: int) -> dict[str, int]:
    """Returns data set -> the last round (1-based) made without it, for those that the round after base `after` folds in.

    Left out are data sets that a later base has learned, that the gate has turned away, and that the round after `after` names
    itself, since it learns them anew. After the last round nothing is folded in.

    Args:
        config: The run's configuration.
        lines: The lines of the ledger.
        after: Index of a base.
    """
    rounds = config.round_list()
    if config.centralize.late == "never" or after >= len(rounds):
        return {}
    late: dict[str, int] = {}
    for index, line in sorted(_bases(lines).items()):
        if index <= after:
            missing = line.get("missing", {})
            late = {name: before for name, before in late.items() if name not in {**missing, **line.get("adapters", {})}}
            late |= {name: index for name, why in missing.items() if not why.startswith("GateError")}
    return {name: index for name, index in late.items() if name not in rounds[after]}


def no_use_of(config: Config, lines: Iterable[Mapping[str, Any]], round_index: int, dataset: str) -> str | None:
    """Returns why no base will merge a late result; None if a later round folds it in.

    Args:
        config: The run's configuration.
        lines: The lines of the ledger.
        round_index: The round (1-based) that the result is late for.
        dataset: Its data set.
    """
    without, bases = f"base {round_index} was made without {dataset} and stays so", _bases(lines)
    if config.centralize.late == "never":
        return f"{without}; name {dataset} in a later round, or set centralize.late: next_round"
    if awaited(config, bases.values(), max(bases, default=0)).get(dataset) == round_index:
        return None
    later = [index for index, line in bases.items() if index > round_index and dataset in line.get("adapters", ())]
    return f"{without}, and {f'base {later[0]} has learned {dataset} since' if later else 'no later round folds it in'}"


def _bases(lines: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {line["round"]: line for line in standing(lines) if line["event"] == "base"}
