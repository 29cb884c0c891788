"""Sends the factors of all adapters to the ranks that own their modules. Each rank starts with some of the adapters.

If the update of a module will be dense, a rank sends its partial sum instead of the factors of its adapters, if that is smaller.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import torch
from safetensors.torch import load, save

from wfc_dist.centralize import collectives
from wfc_dist.errors import InputError
from wfc_dist.merging import exact_sum, partial_mean
from wfc_dist.merging.curvature import FIELDS, Curvature
from wfc_dist.merging.factors import DenseDelta, Factors
from wfc_dist.merging.partial_mean import Facts, Grid, PartialMean

Loaded = Mapping[str, dict[str, Factors]]
"""The adapters of one rank: data set -> module -> factors."""
_SUMS = ("delta_OI", "a_RI", "b_OR")
"""The tensors of a `PartialMean`."""
_FLOAT32_BYTES = 4


class Stacked(NamedTuple):
    """The shapes of the stacked factors of one module of all adapters: (out_features, total_r) and (total_r, in_features)."""

    total_r: int
    out_features: int
    in_features: int


@dataclass
class Share:
    """The received data of one module.

    Attributes:
        factors: Data set -> factors.
        sums: Partial sums over the adapters whose factors were not sent.
        grid: The grid of the sums; None if the update stays in factors.
    """

    factors: dict[str, Factors] = field(default_factory=dict)
    sums: list[PartialMean] = field(default_factory=list)
    grid: Grid | None = None


@dataclass
class Packet:
    """The data that one rank sends for one module: factors or a partial sum. A rank without adapters sends an empty packet.

    Attributes:
        factors: Data set -> factors; empty if the partial sum is sent.
        total: The partial sum over the adapters of the rank; None if their factors are sent.
    """

    factors: Mapping[str, Factors] = field(default_factory=dict)
    total: PartialMean | None = None

    def to_bytes(self) -> bytes:
        """Returns the packet as the bytes of a safetensors file; b"" for an empty packet."""
        tensors: dict[str, torch.Tensor] = {}
        for name in _SUMS if self.total is not None else ():
            if (tensor := getattr(self.total, name)) is not None:
                tensors[f"sum|{name}|upper"], tensors[f"sum|{name}|lower"] = exact_sum.pack(tensor)
        for dataset, item in self.factors.items():
            tensors[f"{dataset}|a"], tensors[f"{dataset}|b"] = item.a_RI.contiguous(), item.b_OR.contiguous()
            tensors[f"{dataset}|s"] = torch.tensor([item.scaling], dtype=torch.float64)
            kinds = {kind: getattr(item.curvature, name) for kind, name in FIELDS.items()} if item.curvature else {}
            tensors |= {f"{dataset}|{kind}": tensor.contiguous() for kind, tensor in kinds.items() if tensor is not None}
        return save(tensors) if tensors else b""

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Packet":
        """Returns the packet that `to_bytes` serialized."""
        tensors = load(packed) if packed else {}
        sums = {
            name: exact_sum.unpack(tensors[f"sum|{name}|upper"], tensors[f"sum|{name}|lower"])
            for name in _SUMS
            if f"sum|{name}|upper" in tensors
        }
        if sums:
            return cls(total=PartialMean(sums["delta_OI"], sums.get("a_RI"), sums.get("b_OR")))
        factors = {}
        for dataset in {key.rpartition("|")[0] for key in tensors}:
            a_RI, b_OR, scaling = (tensors[f"{dataset}|{letter}"] for letter in "abs")
            curvature = {name: tensors[f"{dataset}|{kind}"] for kind, name in FIELDS.items() if f"{dataset}|{kind}" in tensors}
            factors[dataset] = Factors(a_RI, b_OR, float(scaling), Curvature(**curvature) if curvature else None)
        return cls(factors)


def same_modules(modules: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the sorted module names of all adapters. Raises InputError if two adapters have different modules."""
    (first, expected), *rest = [(name, sorted(names)) for name, names in modules.items()]
    for name, names in rest:
        if difference := sorted(set(names) ^ set(expected)):
            raise InputError(
                f"adapters {first} and {name} have different modules (first difference: {difference[0]}); "
                "only adapters of the same target modules can be averaged"
            )
    return expected


def agree_on_modules(loaded: Loaded, group: collectives.Group) -> dict[str, Stacked]:
    """Returns module -> shapes of the stacked factors of all adapters, in the order of names. Every rank must call it.

    Raises:
        InputError: The adapters have different modules.
    """
    mine = {
        dataset: {module: [item.a_RI.shape[0], item.b_OR.shape[0], item.a_RI.shape[1]] for module, item in factors.items()}
        for dataset, factors in loaded.items()
    }
    everyone: dict[str, dict[str, list[int]]] = {}
    for part in collectives.all_gather_bytes(json.dumps(mine).encode(), group):
        everyone |= json.loads(part)
    modules = same_modules({dataset: list(shapes) for dataset, shapes in everyone.items()})
    shapes = {module: [of_set[module] for of_set in everyone.values()] for module in modules}
    return {module: Stacked(sum(lora_r for lora_r, _, _ in found), *found[0][1:]) for module, found in shapes.items()}


def agree_on_grids(
    loaded: Loaded, shares: Mapping[str, float], modules: Sequence[str], group: collectives.Group
) -> dict[str, Grid]:
    """Returns module -> grid of its dense mean. The result is the same on every rank. Every rank must call it.

    Args:
        loaded: This rank's adapters.
        shares: Data set -> weight in the mean, for all data sets, in data-set order.
        modules: The modules whose update will be dense.
        group: The process group.
    """
    if not modules:
        return {}
    mine = {
        dataset: [asdict(partial_mean.facts_of(factors[module], shares[dataset])) for module in modules]
        for dataset, factors in loaded.items()
    }
    everyone: dict[str, list[dict[str, float]]] = {}
    for part in collectives.all_gather_bytes(json.dumps(mine).encode(), group):
        everyone |= json.loads(part)
    facts = {dataset: [Facts(**item) for item in everyone[dataset]] for dataset in shares}  # type: ignore[arg-type]
    return {module: partial_mean.grid_of([of_set[n] for of_set in facts.values()]) for n, module in enumerate(modules)}


def shares_of_owned(
    loaded: Loaded,
    ordered: Sequence[str],
    shares: Mapping[str, float],
    grids: Mapping[str, Grid],
    group: collectives.Group,
    *,
    pool: Executor,
) -> Iterator[tuple[str, Share]]:
    """Yields (module, share) for each module that this rank owns. One module of each rank is exchanged at a time.

    Every rank must run it to its end, with the same modules. Factors that were sent are removed from `loaded` to save memory.

    Args:
        loaded: This rank's adapters.
        ordered: All modules. Module number i belongs to rank i modulo world_size.
        shares: Data set -> weight in the mean.
        grids: The result of `agree_on_grids`.
        group: The process group.
        pool: Its threads compute the partial sums.
    """
    for start in range(0, len(ordered), group.world_size):
        column = ordered[start : start + group.world_size]
        if group.world_size == 1:
            yield column[0], Share({name: factors.pop(column[0]) for name, factors in loaded.items()}, [], grids.get(column[0]))
            continue
        sent = list(pool.map(lambda module: packet_of(loaded, module, shares, grids.get(module)).to_bytes(), column))
        received = collectives.exchange_bytes(sent + [b""] * (group.world_size - len(column)), group)
        if group.world_rank < len(column):
            module = column[group.world_rank]
            yield module, share_of(list(map(Packet.from_bytes, received)), grids.get(module))


def packet_of(loaded: Loaded, module: str, shares: Mapping[str, float], grid: Grid | None) -> Packet:
    """Removes one module from `loaded` and returns its packet: a partial sum if `grid` is given and the sum is smaller."""
    factors = {dataset: of_set.pop(module) for dataset, of_set in loaded.items()}
    if grid is not None and factors and _sums_are_smaller(list(factors.values())):
        return Packet(total=partial_mean.partial_mean(list(factors.values()), [shares[dataset] for dataset in factors], grid))
    return Packet(factors)


def _sums_are_smaller(items: Sequence[Factors]) -> bool:
    lora_r = items[0].a_RI.shape[0]
    out_features, in_features = items[0].b_OR.shape[0], items[0].a_RI.shape[1]
    in_factors = _FLOAT32_BYTES * sum(item.a_RI.shape[0] for item in items) * (out_features + in_features)
    return partial_mean.size_bytes(lora_r, out_features, in_features) < in_factors


def share_of(packets: Sequence[Packet], grid: Grid | None) -> Share:
    """Returns the share of one module from the packets of all ranks."""
    factors = {dataset: item for packet in packets for dataset, item in packet.factors.items()}
    return Share(factors, [packet.total for packet in packets if packet.total is not None], grid)


def mean_of(share: Share, shares: Mapping[str, float]) -> tuple[DenseDelta, float | None, float | None]:
    """Returns the dense mean of a share with a grid, and its sums of squares (see `partial_mean.finished`)."""
    assert share.grid is not None
    items = list(share.factors.items())
    sums = list(share.sums)
    if items:
        sums.append(partial_mean.partial_mean([item for _, item in items], [shares[dataset] for dataset, _ in items], share.grid))
    for other in sums[1:]:
        sums[0].add_(other)
    return partial_mean.finished(sums[0], share.grid)
