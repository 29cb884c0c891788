"""Where a base or an adapter comes from, read from what is committed: for its card, and to find the base of an adapter."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist.config.schema import Config
from wfc_dist.errors import InputError
from wfc_dist.runs import cards, shapes
from wfc_dist.runs.cards import Learned
from wfc_dist.runs.layout import RunPaths, adapter_place, read_adapter, read_base
from wfc_dist.runs.licences import licences_of
from wfc_dist.runs.root_model import CARD, Root, describe_root
from wfc_dist.storage import durable
from wfc_dist.weights import adapter_config


def root_of(paths: RunPaths) -> Root:
    """Returns what is known of a run's root model."""
    entry = read_base(paths.run_dir, 0)
    return describe_root(entry[1] if entry else {})


def chain_of(paths: RunPaths, index: int) -> list[Mapping[str, Any]]:
    """Returns the manifests of bases 1 to `index`; of one that is gone nothing but an unknown sha256."""
    found = [read_base(paths.run_dir, number) for number in range(1, index + 1)]
    return [entry[1] if entry else {"sha256": "?"} for entry in found]


def learned_in(paths: RunPaths, config: Config, chain: Sequence[Mapping[str, Any]]) -> list[Learned]:
    """Returns the adapters that are part of the last base of a chain, in order of rounds and of summation."""
    licences = {name: licences_of(data) for name, data in config.datasets.items()}
    return [
        Learned(
            index, dataset, sha256, facts.get("weights", {}).get(dataset), _hours(paths, index, dataset),
            licences.get(dataset, ("",)),
        )
        for index, facts in enumerate(chain, start=1)
        for dataset, sha256 in facts.get("adapters", {}).items()
    ]  # fmt: skip


def _hours(paths: RunPaths, round_index: int, dataset: str) -> float | None:
    manifest = read_adapter(paths.adapter(round_index, dataset))
    return None if manifest is None else float(manifest.get("hours", 0.0))


def describe_base(paths: RunPaths, config: Config, staged: Path, earlier: int, facts: Mapping[str, Any]) -> None:
    """Writes the card of a base that is about to be committed.

    Args:
        paths, config: Of the run.
        staged: Its folder.
        earlier: Index of the base before it.
        facts: What its manifest will say.
    """
    chain = [*chain_of(paths, earlier), facts]
    num_pending = 0 if "delta" in facts else len(facts.get("adapters", {}))  # an interim base keeps no delta
    card = cards.base_card(config, root_of(paths), chain, learned_in(paths, config, chain), num_pending=num_pending)
    durable.write_text(staged / CARD, card)


def describe_adapter(
    paths: RunPaths, config: Config, staged: Path, place: tuple[int, str], *, base_sha256: str, facts: Mapping[str, Any]
) -> None:
    """Writes the card of an adapter that is about to be committed, and names its base without a path of this machine.

    Args:
        paths, config: Of the run.
        staged: Its folder.
        place: Its round and its data set.
        base_sha256: The base it was trained against.
        facts: What its manifest will say.
    """
    root, (round_index, dataset) = root_of(paths), place
    data = config.datasets.get(dataset)
    licences = licences_of(data) if data else ("",)
    learned = Learned(round_index, dataset, facts["sha256"], hours=facts["hours"], licences=licences)
    durable.write_text(staged / CARD, cards.adapter_card(config, root, learned, base_sha256, facts))
    if not (staged / adapter_config.CONFIG).is_file():
        return
    if round_index == 1 and root.is_on_hub:
        adapter_config.name_base(staged, root.hub_id, root.revision)
    else:
        adapter_config.name_base(staged, os.path.relpath(paths.base(round_index - 1), paths.adapter(round_index, dataset)), None)


def base_of_adapter(folder: Path) -> Path | None:
    """Returns the checkpoint folder of the base that an adapter in a run directory was trained against; None outside of runs.

    Raises:
        InputError: The run has no such base, or has another one in its place.
    """
    place = adapter_place(folder)
    manifest = None if place is None else read_adapter(folder, shapes.MERGEABLE)
    if place is None or manifest is None:
        return None
    run_dir, round_index = place
    entry = read_base(run_dir, round_index - 1)
    if entry is None or entry[0].sha256 != manifest["base_sha256"]:
        found = "none" if entry is None else entry[0].sha256[:12]
        raise InputError(
            f"{folder} was trained against base {manifest['base_sha256'][:12]}, and base {round_index - 1} of {run_dir} is "
            f"{found}; load it from the run that made it"
        )
    return Path(entry[0].path)
