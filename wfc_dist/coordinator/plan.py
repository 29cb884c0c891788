"""What a run would do, computed before anything starts (`wfc plan`)."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.checks import adapted_modules

PACKED_WINDOW_S, CLIP_S = 28, 5
"""Speech in a window of `train.packing`, which is nearly full, and in a usual clip."""


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


@dataclass(frozen=True)
class RunPlan:
    """What a run would do.

    Attributes:
        config: The resolved configuration.
        hours: Hours of speech in each training split.
        num_passes: Data set -> how often a training sees its speech, estimated; only for those whose hours are known.
        num_windows: Windows that one training sees.
        num_trainers: Trainers wanted at a time.
        num_fitting: Trainers that fit on this machine at a time; None where the run takes other machines or GPUs.
        sizes: None where the root model is not on this machine.
        num_models: Bases and adapters that are scored, each on every test set.
    """

    config: Config
    hours: Mapping[str, float]
    num_passes: Mapping[str, float]
    num_windows: int
    num_trainers: int
    num_fitting: int | None
    sizes: WeightSizes | None
    num_models: int


def plan_run(config: Config, hours: Mapping[str, float]) -> RunPlan:
    """Returns what a run would do; reads the headers of a root model that is a folder here.

    `hours` are the hours of speech in each training split.

    Raises:
        ConfigError, InputError: Training would refuse `lora.target_modules` or the root model.
    """
    cluster, train, rounds = config.cluster, config.train, config.round_list()
    most_adapters = max(map(len, rounds))
    num_windows = train.max_steps * train.gradient_accumulation * train.batch_size * cluster.workers_per_trainer
    hours_seen = num_windows * (PACKED_WINDOW_S if train.packing else CLIP_S) / 3600
    return RunPlan(
        config=config,
        hours=hours,
        num_passes={name: hours_seen / known for name, known in hours.items() if known},
        num_windows=num_windows,
        num_trainers=min(most_adapters, cluster.max_trainers or most_adapters),
        num_fitting=_num_fitting(cluster),
        sizes=_weight_sizes(config, most_adapters),
        num_models=1 + len(rounds) + (sum(map(len, rounds)) if config.evaluate.adapters else 0),
    )


def _num_fitting(cluster: ClusterConfig) -> int | None:
    if cluster.backend != "ray" or cluster.address or cluster.gpus_per_worker:
        return None
    return int((os.cpu_count() or 1) / (cluster.cpus_per_worker * cluster.workers_per_trainer))


def _weight_sizes(config: Config, most_adapters: int) -> WeightSizes | None:
    adapted = adapted_modules(config)
    if adapted is None:
        return None
    from wfc_dist.weights import base_chain

    root = Path(config.base.model)
    specs = base_chain.tensor_specs(root)
    is_full, dtype = config.lora.variant == "full", config.base.dtype
    num_stored = sum((min(shape) if is_full else config.lora.r) * sum(shape) for shape in adapted.values())
    num_changed = sum(map(math.prod, adapted.values()))
    own_bytes = sum(specs[f"{name}.weight"].size_bytes for name in adapted)
    return WeightSizes(
        num_adapted=len(adapted),
        num_tensors=len(specs),
        num_trained=num_changed if is_full else num_stored,  # an identity is stored beside a whole weight
        adapter_bytes=4 * num_stored,
        gathered_bytes=4 * num_stored * most_adapters,
        changed_bytes=own_bytes if dtype == "auto" else num_changed * base_chain.DTYPES[dtype].itemsize,
        root_bytes=sum(path.stat().st_size for path in set(base_chain.weight_map(root).values())),
    )
