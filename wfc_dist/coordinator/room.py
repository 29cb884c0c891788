"""Whether a run has room: cores, memory and disk that it needs at least, against those of this machine."""

import math
import os
import shutil
from pathlib import Path

from wfc_dist.config.schema import Config
from wfc_dist.config.training import TrainConfig
from wfc_dist.coordinator.sizes import WeightSizes, weight_sizes
from wfc_dist.errors import ConfigError, Interrupted
from wfc_dist.runs.layout import RunPaths, has_record
from wfc_dist.runs.precision import HALF


def check_room(config: Config, root: Path | None) -> list[str]:
    """Returns warnings about the room that a run has, a sentence each.

    Args:
        config: The configuration.
        root: The folder of the root model; None where it is not on this machine, so that no size is known.

    Raises:
        Interrupted: There is too little disk left for a run that has begun.
        ConfigError, InputError: There is too little for certain; or training would refuse `lora.target_modules` or the root.
    """
    _check_cores(config)
    if root is None:
        return []
    sizes = weight_sizes(config)
    assert sizes is not None, "the root model is on this machine"
    _check_disk(config, sizes)
    return [*_rank_warnings(config, root), *_memory_warnings(config, sizes, root)]


def _is_here(config: Config) -> bool:
    """Says whether trainers run on this machine, for certain."""
    from wfc_dist.backends.ray.cluster import address_of

    backend = config.cluster.backend
    return backend == "in_process" or (backend == "ray" and address_of(config.cluster) is None)


def _check_cores(config: Config) -> None:
    cluster, cores = config.cluster, os.cpu_count() or 1
    if cluster.backend != "ray" or not _is_here(config):
        return
    wanted, gpus = cluster.cpus_per_worker * cluster.workers_per_trainer, _gpus_here() if cluster.gpus_per_worker else 0
    if wanted > cores or cluster.gpus_per_worker * cluster.workers_per_trainer > gpus:
        raise ConfigError(
            f"no trainer fits: one needs {cluster.workers_per_trainer} x ({cluster.cpus_per_worker:g} CPU, "
            f"{cluster.gpus_per_worker:g} GPU), there is this machine: {cores} CPU, {gpus} GPU; lower "
            "cluster.workers_per_trainer, cpus_per_worker or gpus_per_worker, or give the cluster.address of a larger cluster"
        )


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def _check_disk(config: Config, sizes: WeightSizes) -> None:
    """Raises ConfigError where the bases and adapters that are still to be written are larger than what is free.

    A run that has begun is interrupted instead: others may free their space, and the same command goes on.
    """
    if config.run_url() is not None:
        return
    rounds, paths = config.round_list(), RunPaths(config.run_dir())
    left = [names for index, names in enumerate(rounds, start=1) if not paths.base(index).exists()]
    num_adapters = sum(map(len, left))
    needed = len(left) * sizes.changed_bytes + num_adapters * sizes.adapter_bytes
    folder = next(path for path in (paths.run_dir, *paths.run_dir.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        missing = (
            f"run.dir: {len(left)} bases and {num_adapters} adapters take {_gb(needed)} at least, {folder} has {_gb(free)} free"
        )
        if has_record(paths):
            raise Interrupted(f"{missing}; free space there, and the same command goes on")
        raise ConfigError(f"{missing}; make room, or choose another run.dir")


def _rank_warnings(config: Config, root: Path) -> list[str]:
    from wfc_dist.training import model

    if config.lora.variant in ("full", "cssvd"):
        return []
    shapes = model.adapted_modules(root, config.lora)
    name = min(shapes, key=lambda module: min(shapes[module]))
    if config.lora.r <= (most := min(shapes[name])):
        return []
    return [f"lora.r is {config.lora.r}, but no update of {name} has a rank above {most}; lower lora.r"]


def _memory_warnings(config: Config, sizes: WeightSizes, root: Path) -> list[str]:
    """Returns a warning where all trainers together need more than this machine has. Raises ConfigError where one does."""
    from wfc_dist.weights import base_chain

    cluster = config.cluster
    if config.train.strategy in ("zero2", "zero3"):
        return []  # what one worker holds depends on the others
    num_root = sum(math.prod(spec.shape) for spec in base_chain.tensor_specs(root).values())
    least = least_bytes(config.train, num_root, sizes.num_trained)
    if cluster.gpus_per_worker:
        _check_gpu_memory(config, least)
        return []
    if cluster.backend == "slurm" and cluster.slurm.mem_gb is not None and least > cluster.slurm.mem_gb * 2**30:
        raise ConfigError(f"cluster.slurm.mem_gb is {cluster.slurm.mem_gb:g}, a trainer holds {_gb(least)} at least; raise it")
    if not _is_here(config):
        return []
    memory = memory_bytes()
    if least * cluster.workers_per_trainer > memory:
        raise ConfigError(
            f"a trainer holds {_gb(least * cluster.workers_per_trainer)} at least, this machine has {_gb(memory)}; choose a "
            "smaller base.model or lora.r, or a larger machine"
        )
    if cluster.backend == "in_process":
        return []
    fitting = int((os.cpu_count() or 1) / (cluster.cpus_per_worker * cluster.workers_per_trainer))
    most = min(max(map(len, config.round_list())), cluster.max_trainers or fitting, fitting)
    needed = most * least * cluster.workers_per_trainer
    if needed <= memory:
        return []
    return [f"{most} trainers at a time hold {_gb(needed)} at least, this machine has {_gb(memory)}: lower cluster.max_trainers"]


def least_bytes(train: TrainConfig, num_root: int, num_trained: int) -> int:
    """Returns what a worker of a trainer holds at least, without activations.

    Args:
        train: How it is trained.
        num_root: Parameters of the base.
        num_trained: Those of the adapter. Of each there is the value and the gradient, of AdamW under ddp also two moments.
    """
    is_whole = train.strategy in ("ddp", "zero0") and train.optimizer == "adamw"
    return num_root * (2 if train.precision in HALF else 4) + num_trained * (16 if is_whole else 8)


def _check_gpu_memory(config: Config, least: int) -> None:
    import torch

    if not _is_here(config) or not torch.cuda.is_available():
        return
    memory = torch.cuda.get_device_properties(0).total_memory
    if least > memory:
        raise ConfigError(
            f"a trainer holds {_gb(least)} at least, a GPU of this machine has {_gb(memory)}; choose a smaller base.model, or "
            "train.precision bf16, or train.strategy zero3"
        )


def memory_bytes() -> int:
    """Returns the memory of this machine, or of the container that this program is in."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(name).read_text(encoding="ascii").strip() if Path(name).is_file() else ""
        limits += [int(text)] if text.isdecimal() else []
    return min(limits)


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.3g} GB"
