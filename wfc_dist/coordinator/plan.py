"""What a run would do, computed before anything starts (`wfc plan`)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.sizes import WeightSizes, weight_sizes

PACKED_WINDOW_S, CLIP_S = 28, 5
"""Speech in a window of `train.packing`, which is nearly full, and in a usual clip."""


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
        sizes=weight_sizes(config),
        num_models=1 + len(rounds) + (sum(map(len, rounds)) if config.evaluate.adapters else 0),
    )


def _num_fitting(cluster: ClusterConfig) -> int | None:
    if cluster.backend != "ray" or cluster.address or cluster.gpus_per_worker:
        return None
    return int((os.cpu_count() or 1) / (cluster.cpus_per_worker * cluster.workers_per_trainer))
