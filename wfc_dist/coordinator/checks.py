"""Checks of a configuration, its data and its root model, before anything starts.

`wfc plan` and `wfc run` call `check_start`, so that the plan refuses what the run would.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wfc_dist.backends.ray.cluster import require_reachable
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.notify import require_notifier
from wfc_dist.coordinator.room import check_room
from wfc_dist.coordinator.sizes import root_of
from wfc_dist.data.audit import audit
from wfc_dist.errors import ConfigError, require
from wfc_dist.progress import counting
from wfc_dist.runs.layout import is_reserved
from wfc_dist.runs.opening import require_openable
from wfc_dist.storage.objects import require_file_system
from wfc_dist.tracking.catalog import require_trackers

RAY_WORKING_DIRS = "working_dir_files"  # where `ray job submit --working-dir` unpacks


@dataclass(frozen=True)
class Checked:
    """Facts of checked data.

    Attributes:
        hours: Data set -> hours of speech in its training split.
        test_hours: Test set -> hours of speech that scoring decodes.
        fingerprints: `<set>/<split>` -> sha256 over its rows.
        warnings: What a run bears, and its user should know; a sentence each.
    """

    hours: dict[str, float]
    test_hours: dict[str, float]
    fingerprints: dict[str, str]
    warnings: tuple[str, ...] = ()


def check_start(config: Config) -> Checked:
    """Checks all that can be known before a run starts. Writes nothing, apart from small files of a hub model in its cache.

    Raises:
        ConfigError, InputError: The run would fail.
    """
    for one in CHECKS:
        one(config)
    from wfc_dist.weights import checkpoint  # loads torch

    root = root_of(config)
    if root is None:
        checkpoint.look_up_root(config.base.model, config.base.revision)
    warnings = check_room(config, root)
    checked = check(config)
    require_openable(config, checked.fingerprints)
    return replace(checked, warnings=(*checked.warnings, *warnings))


def check(config: Config) -> Checked:
    """Checks a configuration and audits its data. Raises ConfigError or InputError."""
    for one in OF_THE_FILE:
        one(config)
    with counting("rows checked") as told:
        report = audit(config, told=told)
    report.raise_for_errors()
    tested = [row for row in report.rows if row.split == "test"]
    most = config.evaluate.max_clips or math.inf
    return Checked(
        {row.name: row.hours for row in report.rows if row.split == "train"},
        {row.name: row.hours * min(1.0, most / row.num_clips) for row in tested},
        {f"{row.name}/{row.split}": row.fingerprint for row in report.rows if row.fingerprint},
        () if tested else ("no data set has a test split, so that no base is scored",),
    )


def _precision_fits(config: Config) -> None:
    if config.train.precision == "fp16" and not config.cluster.gpus_per_worker:
        raise ConfigError("train.precision fp16 needs GPUs (cluster.gpus_per_worker); use fp32 or bf16 on CPUs")


def _names_are_apart(config: Config) -> None:
    """Refuses names of data sets that the run directory uses itself, and two that a file system may take for one."""
    every = config.with_parts([*config.datasets])
    seen: dict[str, str] = {}
    for name in [*dict.fromkeys(every), *config.evaluate.protected]:
        if is_reserved(name):
            raise ConfigError(f"data set {name!r}: the run directory uses such names itself; choose another name")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ConfigError(
                f"data sets {other!r} and {name!r} differ in case alone, and some file systems take them for one; rename one"
            )


def _run_dir_lasts(config: Config) -> None:
    if RAY_WORKING_DIRS in Path.cwd().parts:
        config.require_lasting_run_dir()


def _packages_are_there(config: Config) -> None:
    if config.train.strategy != "ddp":
        require("deepspeed", "deepspeed", f"train.strategy {config.train.strategy}")
    if config.cluster.backend == "slurm":
        require("submitit", "slurm", "cluster.backend slurm")
    require_file_system(config.run.dir)


def _backend_takes_it(config: Config) -> None:
    if config.cluster.backend == "ray":
        require_reachable(config.cluster)
    elif config.cluster.backend == "slurm":
        from wfc_dist.backends.slurm.backend import check as check_slurm

        check_slurm(config)


OF_THE_FILE: tuple[Callable[[Config], None], ...] = (_precision_fits, _names_are_apart, _packages_are_there, _run_dir_lasts)
CHECKS: tuple[Callable[[Config], None], ...] = (
    *OF_THE_FILE, require_notifier, require_trackers, _backend_takes_it,
)  # fmt: skip
"""What is looked at before the root model and the data, the quickest first. Each raises ConfigError."""
