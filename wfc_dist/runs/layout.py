"""The paths in a run directory. `handle` reads them and `store` writes them; no other folder of the package spells them."""

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.rounds import Base
from wfc_dist.runs import shapes
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror
from wfc_dist.storage.shapes import Shape

logger = logging.getLogger(__name__)


class RunPaths:
    """The paths in a run directory. Creates nothing.

    Attributes:
        run_dir: The run directory.
        config, status, ledger: Files with the configuration, the state, and the events of the run.
        config_copy: Second copy of `config`, which is read if `config` is missing or damaged.
        stop_file: While this file exists, the run checkpoints and stops.
        progress: File with the progress of the current phase, while the run works.
        lock: File locked by the process that writes the run.
        serving: Link to the base that a stream serves.
        report: Folder of the pages and tables for people.
        tracking: Folder of the trackers' files.
        branch_config: The configuration of a branch, with which `wfc run` goes on.
        shared_marker: File written by the coordinator. A node that does not see this file does not share the run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.config, self.status, self.ledger = run_dir / "config.json", run_dir / "status.json", run_dir / "ledger.jsonl"
        self.config_copy = run_dir / "config-copy.json"
        self.stop_file, self.lock, self.serving = run_dir / "stop", run_dir / "lock", run_dir / "serving"
        self.progress = run_dir / "progress.json"
        self.tracking, self.branch_config = run_dir / "tracking", run_dir / "config.yaml"
        self.report, self.shared_marker = run_dir / "report", run_dir / ".shared"

    def base(self, index: int) -> Path:
        """Returns the folder of base `index`."""
        return self.run_dir / base_name(index)

    def round(self, round_index: int) -> Path:
        """Returns the folder of a round (1-based)."""
        return self.run_dir / _round_name(round_index)

    def adapters(self, round_index: int) -> Path:
        """Returns the folder of a round's adapters."""
        return self.round(round_index) / "adapters"

    def adapter(self, round_index: int, dataset: str) -> Path:
        """Returns the PEFT folder of one adapter."""
        return self.adapters(round_index) / dataset

    def delta(self, round_index: int) -> Path:
        """Returns the folder of the averaged update."""
        return self.round(round_index) / "delta"

    def fit(self, round_index: int) -> Path:
        """Returns the folder of a fit of weights or scale. Each mixture has a folder in it while the mixture is decoded."""
        return self.round(round_index) / "fit"

    def fit_trials(self, round_index: int) -> Path:
        """Returns the file that lists the mixtures tried, with their errors."""
        return self.fit(round_index) / "trials.jsonl"

    def fitted(self, round_index: int) -> Path:
        """Returns the file of the mixture that the fit chose."""
        return self.fit(round_index) / "fitted.json"

    def interim(self, round_index: int, num_adapters: int) -> Path:
        """Returns the folder of the interim base that merges the first `num_adapters` adapters of a round (see `stream`)."""
        return self.round(round_index) / f"interim-{num_adapters}"

    def interims(self, round_index: int) -> Iterator[Path]:
        """Yields the folders of a round's interim bases, committed or not."""
        yield from self.round(round_index).glob("interim-*")

    def training(self, round_index: int) -> Path:
        """Returns the folder of a round's checkpoints. It is removed once the round is committed."""
        return self.round(round_index) / "training"

    def checkpoints(self, round_index: int, dataset: str) -> Path:
        """Returns the folder of one adapter's checkpoints."""
        return self.training(round_index) / dataset

    def curve(self, round_index: int, dataset: str) -> Path:
        """Returns the metrics log of one adapter's training."""
        return self.round(round_index) / "training-curves" / f"{dataset}.jsonl"

    def evaluation(self, round_index: int, model: str) -> Path:
        """Returns the folder of one model's scores; `model` is base-NNNN, interim-NNNN-k or the name of a data set."""
        return self.round(round_index) / "evaluation" / model

    def scores(self, round_index: int, model: str) -> Path:
        """Returns the file of one model's scores."""
        return self.evaluation(round_index, model) / _SCORES

    def hypotheses(self, round_index: int, model: str, dataset: str) -> Path:
        """Returns the file of one model's hypotheses for one test set."""
        return self.evaluation(round_index, model) / f"{dataset}.jsonl"

    def all_scores(self) -> list[Path]:
        """Returns the scores file of every model that was scored, in order of rounds and names."""
        return sorted(self.run_dir.glob(f"round-*/evaluation/*/{_SCORES}"))

    def rolled_back(self, attempt: int) -> Path:
        """Returns the folder to which an attempt moved the rounds after the base that it went back to."""
        return self.run_dir / f"rolled-back-{attempt}"

    def all_rolled_back(self) -> list[Path]:
        """Returns the folders of rounds that were rolled back."""
        return sorted(self.run_dir.glob("rolled-back-*"))

    def all_aside(self) -> list[Path]:
        """Returns unfinished work of attempts, and what was damaged and set aside, in order of paths."""
        patterns = ("*.tmp-*", "*.damaged-*", "round-*/*.tmp-*", "round-*/*/*.tmp-*")
        return sorted({path for pattern in patterns for path in self.run_dir.glob(pattern)})

    def logs(self, round_index: int, attempt: int) -> Path:
        """Returns the folder of one attempt's logs of a round."""
        return self.round(round_index) / "logs" / f"attempt-{attempt}"

    def logs_pattern(self) -> str:
        """Returns a pattern that matches the logs of every round, for messages."""
        return f"{self.run_dir}/round-*/logs/"

    def coordinator_logs(self, attempt: int) -> Iterator[Path]:
        """Yields the coordinator's logs and events of one attempt, of all rounds."""
        yield from self.run_dir.glob(f"round-*/logs/attempt-{attempt}/*coordinator*")

    def all_events(self) -> Iterator[tuple[int, str, Path]]:
        """Yields (attempt, process, events file) of all rounds, in order of paths."""
        for path in sorted(self.run_dir.glob("round-*/logs/attempt-*/events-*.jsonl")):
            yield int(path.parent.name.removeprefix("attempt-")), path.stem.removeprefix("events-"), path

    def tracked(self, tracker: str) -> Path:
        """Returns the folder of one tracker's files."""
        return self.tracking / tracker

    def last_base(self) -> int:
        """Returns the highest index of a base that has a manifest, or 0. A base before it may have lost its own."""
        names = [path.parent.name for path in self.run_dir.glob(f"base-*/{durable.MANIFEST}")]
        return max((index for name in names if (index := base_index(name)) is not None), default=0)

    def all_adapters(self) -> list[Path]:
        """Returns the folders of all committed adapters, in order of rounds and names."""
        found = self.run_dir.glob(f"round-*/adapters/*/{durable.MANIFEST}")
        return sorted(path.parent for path in found if ".tmp-" not in path.parent.name)

    def all_checkpoints(self) -> list[Path]:
        """Returns the folders of all committed checkpoints, in order of rounds, names and steps."""
        return sorted(path.parent for path in self.run_dir.glob(f"round-*/training/*/step-*/{durable.MANIFEST}"))

    def slurm_jobs(self, round_index: int) -> Path:
        """Returns the folder of a round's small Slurm jobs."""
        return self.run_dir / "slurm" / _round_name(round_index)


_SCORES = "scores.json"


def _round_name(round_index: int) -> str:
    return f"round-{round_index:04d}"


def base_name(index: int) -> str:
    """Returns the name of base `index`. Its folder and its scores have this name."""
    return f"base-{index:04d}"


def scored_as(base: Base, dataset: str = "") -> tuple[int, str]:
    """Returns the round and the name under which a model's scores are stored.

    Args:
        base: A base of the run. The scores of base 0 are stored in round 1.
        dataset: Data set of the adapter on top of `base`; "" for the base itself.
    """
    if dataset:
        return base.index + 1, dataset
    if base.num_pending:
        return base.index + 1, f"interim-{base.index + 1:04d}-{base.num_pending}"
    return max(base.index, 1), base_name(base.index)


def base_index(name: str) -> int | None:
    """Returns N of `base-NNNN`; None for any other name."""
    digits = name.removeprefix("base-")
    return int(digits) if digits.isdecimal() and name == base_name(int(digits)) else None


def is_reserved(name: str) -> bool:
    """Returns whether a data set of this name would collide with what a run directory uses itself."""
    return re.fullmatch(r"base-\d+|interim-.*|.*\.tmp-.*|scores\.json|manifest\.json", name, re.IGNORECASE) is not None


def adapter_place(folder: Path) -> tuple[Path, int] | None:
    """Returns the run directory and the round of an adapter's folder; None for a folder elsewhere."""
    folder = folder.absolute()
    round_dir = folder.parent.parent
    digits = round_dir.name.removeprefix("round-")
    if not digits.isdecimal() or folder != RunPaths(round_dir.parent).adapter(int(digits), folder.name):
        return None
    return round_dir.parent, int(digits)


def checkpoint(folder: Path, step: int) -> Path:
    """Returns the folder of one checkpoint; `folder` holds all checkpoints of the adapter."""
    return folder / f"step-{step}"


def checkpoint_steps(folder: Path, mirror: AnyMirror = NO_MIRROR) -> list[int]:
    """Returns the steps of an adapter's checkpoints, newest first. A checkpoint may be damaged.

    Args:
        folder: Holds all checkpoints of the adapter.
        mirror: If the run is on object storage, the checkpoints committed there are listed.
    """
    names = mirror.folders(folder) if mirror.is_remote else [path.name for path in folder.glob("step-*")]
    numbers = [name.removeprefix("step-") for name in names]
    return sorted((int(number) for number in numbers if number.isdigit()), reverse=True)


def log_file(logs: Path, process: str) -> Path:
    """Returns the text log of one process in a folder of logs."""
    return logs / f"{process}.log"


def events_file(logs: Path, process: str) -> Path:
    """Returns the events of one process in a folder of logs."""
    return logs / f"events-{process}.jsonl"


def open_logs(logs: Path, process: str) -> None:
    """Directs the text log and the events of this process to a folder of logs, under the name `process`."""
    log.configure(log_file(logs, process), console=False)
    log.open_events(events_file(logs, process))


def has_trained(paths: RunPaths, after: int = 0) -> bool:
    """Says whether anything of the rounds after base `after`, but scores, would be lost or mistaken under another configuration.

    That is an adapter, a resumable state, a step in a metrics log, an update, an interim base, a fit, a later base, or a Slurm
    job, which may still be queued.
    """
    rounds = [path for path in paths.run_dir.glob("round-*") if path.name > _round_name(after)]
    jobs = [path for path in paths.run_dir.glob("slurm/*/*") if path.parent.name > _round_name(after)]
    begun = ("training/*/step-*", "delta", "interim-*", "fit/*")
    return (
        paths.base(after + 1).exists() or bool(jobs)
        or any(True for folder in rounds for pattern in begun for _ in folder.glob(pattern))
        or any(path.stat().st_size for folder in rounds for path in folder.glob("training-curves/*"))
        or any(durable.is_committed(path) for folder in rounds for path in folder.glob("adapters/*"))
    )  # fmt: skip


def is_served(paths: RunPaths, folder: Path) -> bool:
    """Returns whether a stream serves the base in `folder`."""
    return paths.serving.is_symlink() and paths.serving.resolve() == folder.resolve()


def request_stop(paths: RunPaths, reason: str) -> None:
    """Asks the process that works on a run to checkpoint and stop. Writes RUN/stop; the first reason is kept."""
    if not paths.stop_file.exists():
        durable.write_text(paths.stop_file, reason + "\n")


def is_run(folder: Path) -> bool:
    """Returns whether a folder is a run directory that was opened at least once."""
    paths = RunPaths(folder)
    return has_record(paths) and (paths.ledger.is_file() or durable.is_committed(paths.base(0)))


def is_of_a_beginning(path: Path) -> bool:
    """Says whether a file may be all that a process has left which died before it had recorded a run's configuration."""
    return re.fullmatch(r"lock|\.config\.json\.tmp-\d+", path.name) is not None


def has_record(paths: RunPaths) -> bool:
    """Returns whether a run has recorded its configuration."""
    return paths.config.is_file() or paths.config_copy.is_file()


def require_run(run_dir: Path) -> RunPaths:
    """Returns the paths of an existing run. Raises InputError if the folder is not a run directory."""
    paths = RunPaths(run_dir)
    if not has_record(paths):
        raise InputError(f"{run_dir} is not a run directory (it has no config.json); give the folder `run.dir/run.name`")
    return paths


def read_record(paths: RunPaths) -> dict[str, Any]:
    """Returns RUN/config.json: config, config_sha256, data (fingerprints), attempt, and arrivals if the run is a stream.

    Raises:
        IntegrityError: The file and its second copy are both damaged.
    """
    remedy = f"{paths.config_copy.name} beside it is damaged, too, or missing; restore one of them from a backup"
    try:
        return _record(paths.config, remedy)
    except (FileNotFoundError, IntegrityError) as error:
        with contextlib.suppress(FileNotFoundError, IntegrityError):
            record = _record(paths.config_copy, remedy)
            logger.warning("%s is missing or damaged; its second copy is read", paths.config)
            return record
        if isinstance(error, IntegrityError):
            raise
        raise IntegrityError(f"{paths.config} is missing, and {remedy}") from error


def _record(path: Path, remedy: str) -> dict[str, Any]:
    record = durable.read_sealed(path, remedy)
    shapes.RECORD.require(record, path, remedy)
    return record


def read_adapter(folder: Path, shape: Shape = shapes.ADAPTER) -> dict[str, Any] | None:
    """Returns the manifest of an adapter, or None if the adapter is not committed. Raises IntegrityError for a damaged one."""
    manifest = durable.read_manifest(folder)
    if manifest is not None:
        shape.require(manifest, folder / durable.MANIFEST, f"remove {folder} and run again")
    return manifest


def read_interim(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of an interim base, or None if it is not committed. Raises IntegrityError for a damaged one."""
    manifest = durable.read_manifest(folder)
    if manifest is not None:
        shapes.INTERIM.require(manifest, folder / durable.MANIFEST, f"remove {folder} and run again")
    return manifest


def read_base(run_dir: Path, index: int) -> tuple[Base, dict[str, Any]] | None:
    """Returns a base and its manifest, or None if the base is not committed."""
    folder = RunPaths(run_dir).base(index)
    manifest = durable.read_manifest(folder)
    if manifest is None:
        return None
    shapes.BASE.require(manifest, folder / durable.MANIFEST, f"remove {folder} and run again")
    for key in {"root", "model_path"} & manifest.keys():
        manifest[key] = str(_model_there(run_dir, manifest[key]))
    return Base(index, manifest.get("model_path") or str(folder), manifest["sha256"]), manifest


def _model_there(run_dir: Path, recorded: str) -> Path:
    """Returns where a model that base 0 names is: in a mirror, paths are relative to the run; a moved run may bring it along."""
    if (place := run_dir / recorded).is_dir():
        return place
    copies = (run_dir / base_name(0), run_dir / "root") if place.name == base_name(0) else (run_dir / "root",)
    return next((copy for copy in copies if copy.is_dir()), place)


def model_pointed_to(folder: Path) -> Path | None:
    """Returns the model to which the folder of base 0 points; None if the folder is not such a pointer."""
    target = (durable.read_manifest(folder) or {}).get("model_path")
    return _model_there(folder.parent, target) if target else None


def first_uncommitted(paths: RunPaths, start: int = 0) -> int:
    """Returns the index of the first uncommitted base, counted from `start`."""
    index = start
    while durable.is_committed(paths.base(index)):
        index += 1
    return index
