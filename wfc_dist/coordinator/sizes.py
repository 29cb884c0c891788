"""How large adapters and bases are, from the headers of the root model."""

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.config.schema import Config
from wfc_dist.errors import IntegrityError
from wfc_dist.runs import layout


@dataclass(frozen=True)
class WeightSizes:
    """Parameters and bytes of adapters and bases.

    Attributes:
        num_adapted, num_tensors: Matrices that an adapter updates, and tensors of the root model.
        num_trained: Parameters of one adapter that are trained.
        adapter_bytes: One adapter, in float32.
        gathered_bytes: All adapters of the largest round.
        changed_bytes: Tensors of a new base that are written and broadcast.
        root_bytes: Files of the root model, which every base shares.
    """

    num_adapted: int
    num_tensors: int
    num_trained: int
    adapter_bytes: int
    gathered_bytes: int
    changed_bytes: int
    root_bytes: int


def root_of(config: Config) -> Path | None:
    """Returns the folder of the root model on this machine: what `base.model` names, or what a begun run brings along."""
    from wfc_dist.weights import checkpoint  # loads torch

    root = checkpoint.local_root(config.base.model, config.base.revision)
    if root is None and config.run_url() is None:
        with contextlib.suppress(IntegrityError):  # damage is seen to once the run is open
            recorded = layout.read_base(config.run_dir(), 0)
            root = Path(recorded[1]["root"]) if recorded is not None else None
    return root if root is not None and root.is_dir() else None


def weight_sizes(config: Config) -> WeightSizes | None:
    """Returns the sizes of what a run trains and writes; None where the root model is not on this machine.

    Raises:
        ConfigError, InputError: Training would refuse `lora.target_modules` or the root model.
    """
    from wfc_dist.training import model  # loads torch, Transformers and PEFT
    from wfc_dist.weights import base_chain

    root = root_of(config)
    if root is None:
        return None
    adapted = model.adapted_modules(root, config.lora)
    most_adapters = max(map(len, config.round_list()))
    specs = base_chain.tensor_specs(root)
    lora, dtype = config.lora, config.base.dtype
    num_stored = sum(lora.rank(shape) * sum(shape) for shape in adapted.values())
    num_changed = sum(map(math.prod, adapted.values()))
    own_bytes = sum(specs[f"{name}.weight"].size_bytes for name in adapted)
    return WeightSizes(
        num_adapted=len(adapted),
        num_tensors=len(specs),
        num_trained=sum(map(lora.num_trained, adapted.values())),  # a fixed factor may be stored beside the trained one
        adapter_bytes=4 * num_stored,
        gathered_bytes=4 * num_stored * most_adapters,
        changed_bytes=own_bytes if dtype == "auto" else num_changed * base_chain.DTYPES[dtype].itemsize,
        root_bytes=sum(path.stat().st_size for path in set(base_chain.weight_map(root).values())),
    )
