"""A staged base is read back before it is committed: what lies in its files is compared with what was computed.

The files that the merge wrote are read whole. Links to the root's files, which an attempt verifies when it begins, are compared
by identity. A few modules are computed again from the root and the deltas as they lie on the disk.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.centralize import apply
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.merging.factors import AnyDelta
from wfc_dist.rounds import StagedBase
from wfc_dist.storage import durable
from wfc_dist.weights import base_chain
from wfc_dist.weights.companions import copy_companions
from wfc_dist.weights.hashing import content_sha256, tensor_sha256
from wfc_dist.weights.tensor_files import read_header

NUM_RECOMPUTED = 4
"""Modules of a new base that are computed twice, spread over the model; `wfc verify --deep` computes all of them again."""


@dataclass(frozen=True)
class Sources:
    """What a base is made of, beside the update of its round.

    Attributes:
        root: Checkpoint folder of the root model.
        shared: Checkpoint folder of base 0, to whose files the base links.
        past_deltas: Delta folders of the rounds before, in order.
        dtype: Data type of the bases; "auto" keeps that of the root.
    """

    root: Path
    shared: Path
    past_deltas: tuple[Path, ...]
    dtype: str


def require_as_computed(staged: StagedBase, sources: Sources, before: Mapping[str, str]) -> None:
    """Reads a staged base and its delta from the disk.

    Args:
        staged: What the merge wrote.
        sources: What it was made of.
        before: Tensor name -> sha256, for every tensor of the base before.

    Raises:
        IntegrityError: A file does not hold what was computed, or the base is not the sum of its root and deltas.
    """
    try:
        _require_names(staged, sources, before)
        _require_bytes(staged)
        _require_companions(Path(staged.path), sources.shared)
        modules = sorted(name.removesuffix(".weight") for name in staged.facts["changed"])
        delta = base_chain.read_delta(staged.delta_path, _spread(modules, NUM_RECOMPUTED))
        recomputed = rebuilt_hashes(sources, delta)
    except InputError as error:  # a header that cannot be read: here it is damage, not something handed in
        raise IntegrityError(f"what was staged cannot be read back: {error.message}") from error
    if different := differing(recomputed, staged.facts["tensors"]):
        raise IntegrityError(f"{different[0]} of {staged.path}, computed again from the root and the deltas on the disk, differs")


def rebuilt_hashes(sources: Sources, delta: Mapping[str, AnyDelta]) -> dict[str, str]:
    """Returns tensor name -> sha256 of the modules of an update, computed from the root, the past deltas and this update."""
    merged = apply.merged_modules(sources.root, sources.past_deltas, delta, sources.dtype)
    return {f"{module}.weight": item.sha256 for module, item in merged}


def differing(found: Mapping[str, str], recorded: Mapping[str, str]) -> list[str]:
    """Returns the sorted names of tensors whose hash is not the recorded one."""
    return sorted(name for name, sha256 in found.items() if recorded.get(name) != sha256)


def _require_names(staged: StagedBase, sources: Sources, before: Mapping[str, str]) -> None:
    """Checks which file holds which tensor, that the links lead to the root's files, and the hashes of what did not change."""
    facts, folder = staged.facts, Path(staged.path)
    changed = set(facts["changed"])
    for link, path in facts["links"].items():
        if not (folder / link).is_file() or not (folder / link).samefile(path):
            raise IntegrityError(f"{folder / link} is not the file {path} of the root")
    names = {path: folder / link for link, path in facts["links"].items()}
    expected = {
        name: folder / base_chain.CHANGED if name in changed else names.get(str(path))
        for name, path in base_chain.weight_map(sources.shared).items()
    }
    if base_chain.weight_map(folder) != expected:
        raise IntegrityError(f"{folder / base_chain.INDEX} does not name the files of the tensors as they were written")
    kept = {name: sha256 for name, sha256 in before.items() if name not in changed}
    if differing(kept, facts["tensors"]) or facts["tensors"].keys() != before.keys():
        raise IntegrityError(f"the hashes of what {folder} shares with the base before it are not those of that base")
    if content_sha256(facts["tensors"]) != staged.sha256:
        raise IntegrityError(f"the sha256 of {folder} is not that of its tensors")


def _require_bytes(staged: StagedBase) -> None:
    """Reads the file of the changed tensors and that of the delta, and hashes both, and each changed tensor."""
    update, delta = Path(staged.path) / base_chain.CHANGED, Path(staged.delta_path) / base_chain.DELTA
    for path in (update, delta):
        if not path.is_file():
            raise IntegrityError(f"{path} is not there")
        durable.forget_cached(path)
    if read_header(update).keys() != set(staged.facts["changed"]):
        raise IntegrityError(f"{update} does not name the tensors that were written")
    written, changed = staged.facts["written"], list(staged.facts["changed"])
    with apply.threads() as pool:
        files = {path: pool.submit(durable.sha256_file, path) for path in (update, delta)}
        tensors = {name: pool.submit(_sha256_of, update, name) for name in changed}
        found = {name: future.result() for name, future in tensors.items()}
    if different := differing(found, staged.facts["tensors"]):
        raise IntegrityError(f"{different[0]} in {update} is not what was computed")
    for path, future in files.items():
        if future.result() != written[path.name]:
            raise IntegrityError(f"{path} is not what was written")


def _require_companions(folder: Path, shared: Path) -> None:
    """Checks the configuration and the tokenizer of a base, which are copies of the root's."""
    with tempfile.TemporaryDirectory(prefix="wfc-") as again:
        copy_companions(shared, Path(again))
        for path in sorted(Path(again).iterdir()):
            if not (folder / path.name).is_file() or (folder / path.name).read_bytes() != path.read_bytes():
                raise IntegrityError(f"{folder / path.name} is not the copy of {shared / path.name} that was written")


def _sha256_of(path: Path, name: str) -> str:
    return tensor_sha256(base_chain.read_tensor(path, name))


def _spread(names: Sequence[str], number: int) -> list[str]:
    """Returns at most `number` of some names, evenly spread, with the first and the last."""
    if len(names) <= number:
        return list(names)
    return [names[place * (len(names) - 1) // (number - 1)] for place in range(number)]
