"""Where everything of a run lies, and how it is read. Only this file and `run_store`, which writes it, know the run directory."""

import json
from pathlib import Path
from typing import Any

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import InputError
from wfc_dist.rounds import Base
from wfc_dist.storage import durable


class RunPaths:
    """Where everything of a run lies; makes nothing."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.config, self.status, self.ledger = run_dir / "config.json", run_dir / "status.json", run_dir / "ledger.jsonl"
        self.stop_file, self.lock = run_dir / "stop", run_dir / "lock"

    def base(self, index: int) -> Path:
        """Returns the folder of base `index`."""
        return self.run_dir / f"base-{index:04d}"

    def round(self, round_index: int) -> Path:
        """Returns the folder of a round (1-based)."""
        return self.run_dir / f"round-{round_index:04d}"

    def adapter(self, round_index: int, dataset: str) -> Path:
        """Returns the PEFT folder of one adapter."""
        return self.round(round_index) / "adapters" / dataset

    def delta(self, round_index: int) -> Path:
        """Returns the folder of the averaged update."""
        return self.round(round_index) / "delta"

    def fit(self, round_index: int) -> Path:
        """Returns the folder of what was tried, and found, where weights or scale are fitted."""
        return self.round(round_index) / "fit"

    def interim(self, round_index: int, num_adapters: int) -> Path:
        """Returns the folder of the base that the first adapters of a round make (see `stream`)."""
        return self.round(round_index) / f"interim-{num_adapters}"

    def checkpoints(self, round_index: int, dataset: str) -> Path:
        """Returns the folder of one adapter's resumable states."""
        return self.round(round_index) / "training" / dataset

    def curve(self, round_index: int, dataset: str) -> Path:
        """Returns the learning curve of one adapter."""
        return self.round(round_index) / "training-curves" / f"{dataset}.jsonl"

    def evaluation(self, round_index: int, model: str) -> Path:
        """Returns the folder of one model's scores; `model` is base-NNNN, interim-NNNN-k or a data-set name."""
        return self.round(round_index) / "evaluation" / model

    def logs(self, round_index: int, attempt: int) -> Path:
        """Returns the folder of one attempt's logs of a round."""
        return self.round(round_index) / "logs" / f"attempt-{attempt}"


def request_stop(paths: RunPaths, reason: str) -> None:
    """Asks whoever works on a run to checkpoint and stop; the first reason stays. Writes RUN/stop."""
    if not paths.stop_file.exists():
        durable.write_text(paths.stop_file, reason + "\n")


def require_run(run_dir: Path) -> RunPaths:
    """Returns the paths of an existing run. Raises InputError when the folder is none."""
    paths = RunPaths(run_dir)
    if not paths.config.is_file():
        raise InputError(f"{run_dir} is not a run directory (it has no config.json); give the folder `run.dir/run.name`")
    return paths


def read_config(run_dir: Path) -> Config:
    """Returns the resolved configuration a run was started with."""
    paths = require_run(run_dir)
    return loading.parse(json.loads(paths.config.read_text(encoding="utf-8"))["config"], str(paths.config))


def read_base(run_dir: Path, index: int) -> tuple[Base, dict[str, Any]] | None:
    """Returns a committed base and its manifest, or None when it was not committed."""
    folder = RunPaths(run_dir).base(index)
    manifest = durable.read_manifest(folder)
    if manifest is None:
        return None
    for key in {"root", "model_path"} & manifest.keys():  # relative in a mirror, which lies elsewhere on other machines
        manifest[key] = str(run_dir / manifest[key])
    return Base(index, manifest.get("model_path") or str(folder), manifest["sha256"]), manifest


def latest_base(run_dir: Path) -> Base:
    """Returns the last committed base of a run. Raises InputError when there is none."""
    require_run(run_dir)
    entry = read_base(run_dir, first_uncommitted(RunPaths(run_dir)) - 1)
    if entry is None:
        raise InputError(f"{run_dir} has no committed base yet; run `wfc run` first")
    return entry[0]


def first_uncommitted(paths: RunPaths, start: int = 0) -> int:
    """Returns the index of the first base from `start` on that is not committed."""
    index = start
    while durable.is_committed(paths.base(index)):
        index += 1
    return index
