"""Checks of a configuration, its data and its root model, before anything starts."""

import math
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.config.schema import Config
from wfc_dist.data.audit import audit
from wfc_dist.errors import ConfigError, require
from wfc_dist.progress import counting
from wfc_dist.storage.objects import require_file_system

RAY_WORKING_DIRS = "working_dir_files"  # where `ray job submit --working-dir` unpacks


@dataclass(frozen=True)
class Checked:
    """Facts of checked data.

    Attributes:
        hours: Data set -> hours of speech in its training split.
        test_hours: Test set -> hours of speech that scoring decodes.
        fingerprints: `<set>/<split>` -> sha256 over its rows.
    """

    hours: dict[str, float]
    test_hours: dict[str, float]
    fingerprints: dict[str, str]


def check(config: Config) -> Checked:
    """Checks a configuration and audits its data. Raises ConfigError or InputError."""
    if config.train.precision == "fp16" and not config.cluster.gpus_per_worker:
        raise ConfigError("train.precision fp16 needs GPUs (cluster.gpus_per_worker); use fp32 or bf16 on CPUs")
    if config.train.strategy != "ddp":
        require("deepspeed", "deepspeed", f"train.strategy {config.train.strategy}")
    if config.cluster.backend == "slurm":
        require("submitit", "slurm", "cluster.backend slurm")
    require_file_system(config.run.dir)
    if RAY_WORKING_DIRS in Path.cwd().parts:
        config.require_lasting_run_dir()
    with counting("rows checked") as told:
        report = audit(config, told=told)
    report.raise_for_errors()
    tested = [row for row in report.rows if row.split == "test"]
    most = config.evaluate.max_clips or math.inf
    return Checked(
        {row.name: row.hours for row in report.rows if row.split == "train"},
        {row.name: row.hours * min(1.0, most / row.num_clips) for row in tested},
        {f"{row.name}/{row.split}": row.fingerprint for row in report.rows if row.fingerprint},
    )


def adapted_modules(config: Config) -> dict[str, tuple[int, ...]] | None:
    """Returns module -> (out, in) of every matrix that an adapter of this run updates; None unless `base.model` is a folder here.

    Raises:
        ConfigError, InputError: Training would refuse `lora.target_modules` or the root model.
    """
    root = Path(config.base.model)
    if not root.is_dir():
        return None
    from wfc_dist.training import model  # loads torch, Transformers and PEFT

    return model.adapted_modules(root, config.lora)
