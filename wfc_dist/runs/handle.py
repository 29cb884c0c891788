"""A run opened for reading: its configuration, bases, adapters, scores, ledger and state. Loads neither torch nor ray."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError, InputError, IntegrityError
from wfc_dist.rounds import Base
from wfc_dist.runs import layout, shapes
from wfc_dist.runs.records import read_ledger
from wfc_dist.runs.remote import local_run, whole_run
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror, Mirror

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunBase:
    """A committed base of a run.

    Attributes:
        index: Number of rounds merged into it; 0 is the root model, unchanged.
        path: Model folder; `WhisperForConditionalGeneration.from_pretrained` loads it.
        sha256: Hash of its tensors.
        facts: Its manifest: method, scale, weights, adapters, diagnostics, hashes. Base 0 records model and revision instead.
    """

    index: int
    path: Path
    sha256: str
    facts: Mapping[str, Any]

    @property
    def adapters(self) -> Mapping[str, str]:
        """Returns data set -> sha256 of each adapter that is merged into this base; empty for base 0."""
        sha256_by_dataset: Mapping[str, str] = self.facts.get("adapters", {})
        return sha256_by_dataset

    @property
    def missing(self) -> Mapping[str, str]:
        """Returns data set -> why this base was made without it (`centralize.quorum`); empty if all of its round are in it."""
        why_by_dataset: Mapping[str, str] = self.facts.get("missing", {})
        return why_by_dataset


@dataclass(frozen=True)
class RunAdapter:
    """A committed adapter of a run.

    Attributes:
        round_index: Its round (1-based).
        dataset: The data set it was trained on.
        path: PEFT folder; `PeftModel.from_pretrained` loads it.
        sha256: Hash of its tensors.
        facts: Its manifest: hours of speech, steps, losses, base_sha256.
    """

    round_index: int
    dataset: str
    path: Path
    sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model of a run.

    Attributes:
        kind: `base`, `adapter` or `interim`.
        model: base-NNNN, interim-NNNN-k, or the data set of an adapter.
        round_index: The round (1-based) that keeps the scores; round 1 keeps those of base 0.
        path: The scores file. The hypotheses of the model lie beside this file, in `<test set>.jsonl`.
        sets: Test set -> the fields of `evaluation.metrics.Score`: rate, low, high, num_clips, ...
    """

    kind: str
    model: str
    round_index: int
    path: Path
    sets: Mapping[str, Mapping[str, Any]]

    @property
    def base_index(self) -> int | None:
        """Returns the index of the base that was scored; None for an adapter or an interim base."""
        return layout.base_index(self.model) if self.kind == "base" else None


@dataclass(frozen=True)
class RunStatus:
    """The state of a run, as RUN/status.json records it.

    Attributes:
        state: `new` before the first attempt, then running, done, failed or interrupted.
        message: The error, or the path of the last base.
        attempt: The attempt that wrote the file, from 1; 0 for a new run.
        facts: Everything in the file: host, pid, time, exit_code. A run that is done also records base_sha256.
    """

    state: str = "new"
    message: str = ""
    attempt: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Run:
    """A run directory opened for reading. Each call reads the files anew, so a run can be watched while it works.

    Args:
        run_dir: The run directory on this machine.
        mirror: Fetches more files of a run on object storage.

    Attributes:
        path: The run directory on this machine.
        paths: The paths of all files in the run directory.
        mirror: See above.

    Raises:
        InputError: The folder is not a run directory.
    """

    def __init__(self, run_dir: str | Path, mirror: AnyMirror = NO_MIRROR) -> None:
        self.path = Path(run_dir)
        self.paths, self.mirror = layout.require_run(self.path), mirror

    @property
    def url(self) -> str | None:
        """Returns the URL of a run on object storage; None for a run in a folder."""
        return self.mirror.objects.url if isinstance(self.mirror, Mirror) else None

    @property
    def config(self) -> Config:
        """Returns the resolved configuration. The configuration of a stream grows with each data set that arrives."""
        return loading.parse(layout.read_record(self.paths)["config"], str(self.paths.config))

    def config_here(self) -> Config:
        """Returns the configuration with which this run is opened for writing, where it lies: it may have been moved or copied.

        Raises:
            InputError: The name of the folder can be no name of a run.
        """
        config, path = self.config, self.path.absolute()
        if isinstance(self.mirror, Mirror) or (config.run_dir().exists() and config.run_dir().samefile(path)):
            return config
        tree = config.model_dump(mode="json")
        tree["run"] |= {"dir": str(path.parent), "name": path.name}
        try:
            return loading.parse(tree, str(self.paths.config))
        except ConfigError as error:
            raise InputError(f"{path} is a copy of {config.run.name} under a name that no run can have: {error}") from error

    @property
    def arrived_s(self) -> dict[str, float]:
        """Returns data set -> arrival in a stream, in seconds since the epoch; empty for a run that is not a stream."""
        return dict(layout.read_record(self.paths).get("arrivals", {}))

    def status(self) -> RunStatus:
        """Returns the state of the run. Raises IntegrityError if the file is damaged."""
        remedy = "`wfc run` writes it anew"
        try:
            facts = durable.read_sealed(self.paths.status, remedy)
        except FileNotFoundError:  # it comes this moment
            return RunStatus()
        shapes.STATUS.require(facts, self.paths.status, remedy)
        return RunStatus(facts["state"], facts["message"], facts["attempt"], facts)

    def progress(self) -> dict[str, Any] | None:
        """Returns how far the current phase of a running run is; None where no phase has said so.

        The keys are what, done, total, unit, left_s (None: not known), time_s (since the epoch) and trainings. Of a run on object
        storage only the coordinator's node has it.
        """
        try:
            found: dict[str, Any] = json.loads(durable.read_regular(self.paths.progress, ""))
        except (OSError, IntegrityError, ValueError, RecursionError):  # there is none, or it comes this moment
            return None
        return found if shapes.PROGRESS.fits(found) and self.status().state == "running" else None

    @property
    def num_bases(self) -> int:
        """Returns the number of committed bases, including base 0."""
        return layout.first_uncommitted(self.paths)

    def base(self, index: int | None = None) -> RunBase:
        """Returns a committed base, by default the last one. Raises InputError if the base is not committed."""
        base = self.find_base(self.num_bases - 1 if index is None else index)
        if base is None:
            what = "no committed base yet" if index is None else f"no committed base {index}"
            raise InputError(f"{self.path} has {what}; run `wfc run` first")
        return base

    def find_base(self, index: int) -> RunBase | None:
        """Returns a committed base, or None."""
        entry = layout.read_base(self.path, index)
        return None if entry is None else RunBase(index, Path(entry[0].path), entry[0].sha256, entry[1])

    @property
    def bases(self) -> list[RunBase]:
        """Returns all committed bases, in order: the lineage of the last one."""
        return [self.base(index) for index in range(self.num_bases)]

    def interims(self) -> list[tuple[int, Path]]:
        """Returns (number of adapters, folder) of each committed interim base after the last committed base, in that order."""
        folders = self.paths.interims(self.num_bases)
        numbers = sorted(int(folder.name.rpartition("-")[2]) for folder in folders if folder.name.rpartition("-")[2].isdecimal())
        found = [(number, self.paths.interim(self.num_bases, number)) for number in numbers]
        return [(number, folder) for number, folder in found if durable.is_committed(folder)]

    def is_committed(self, round_index: int, dataset: str) -> bool:
        """Says whether an adapter is committed, without opening a file."""
        return durable.is_committed(self.paths.adapter(round_index, dataset))

    def adapter(self, round_index: int, dataset: str) -> RunAdapter | None:
        """Returns a committed adapter, or None."""
        folder = self.paths.adapter(round_index, dataset)
        manifest = layout.read_adapter(folder)
        return None if manifest is None else RunAdapter(round_index, dataset, folder, manifest["sha256"], manifest)

    def adapters(self, round_index: int | None = None) -> list[RunAdapter]:
        """Returns the committed adapters of one round (1-based), or of all, in the order of the configuration."""
        wanted = []
        for index, names in enumerate(self.config.round_list(), start=1):
            if round_index in (None, index):
                base = self.find_base(index)  # may hold late adapters of earlier rounds, too
                wanted += [(index, name) for name in self.config.in_order(index, [*names, *(base.adapters if base else ())])]
        return [adapter for place in wanted if (adapter := self.adapter(*place)) is not None]

    def checkpoints(self, round_index: int, dataset: str) -> list[int]:
        """Returns the steps of the committed checkpoints of an adapter in training, newest first."""
        folder = self.paths.checkpoints(round_index, dataset)
        return [step for step in layout.checkpoint_steps(folder) if durable.is_committed(layout.checkpoint(folder, step))]

    def curve(self, round_index: int, dataset: str, tell: Callable[[str], object] = logger.warning) -> list[dict[str, Any]]:
        """Returns the rows of an adapter's metrics log: step, loss, dev_loss, ...; empty if there is no log.

        Damaged lines are left out; `tell` is called with the number of them.
        """
        return durable.read_json_lines(self.paths.curve(round_index, dataset), fits=shapes.CURVE.fits, tell=tell)

    def deltas(self) -> list[Path]:
        """Returns the folder of the averaged update of each committed round, in order."""
        return [self.paths.delta(index) for index in range(1, self.num_bases)]

    def scores(self) -> list[ModelScores]:
        """Returns the scores of every model that was scored. Raises IntegrityError if a file is damaged."""
        return [_read_scores(path) for path in self.paths.all_scores()]

    def scores_of(self, index: int, num_pending: int = 0) -> ModelScores | None:
        """Returns the scores of base `index`, or of its interim base with `num_pending` adapters; None if there are none."""
        path = self.paths.scores(*layout.scored_as(Base(index, "", "", num_pending)))
        return _read_scores(path) if path.is_file() else None

    def ledger(self) -> list[dict[str, Any]]:
        """Returns the events of the run, such as commits and failures, in order: time, attempt, event, round, ...

        Raises IntegrityError if a line is damaged.
        """
        return read_ledger(self.paths.ledger)


def open_run(run: str | Path, *, with_weights: bool = False) -> Run:
    """Opens a run for reading. If the run is on object storage, all small files are fetched to this machine first.

    Args:
        run: A run directory `run.dir/run.name`, or the URL of one.
        with_weights: Also fetch the committed adapters, the deltas and the root model of a run on object storage.

    Returns:
        A handle for reading. The handle holds no lock and changes nothing.

    Raises:
        InputError: There is no run.

    Example:
        >>> from wfc_dist import open_run
        >>> open_run("nowhere")
        Traceback (most recent call last):
            ...
        wfc_dist.errors.InputError: nowhere is not a run directory (it has no config.json); give the folder `run.dir/run.name`
    """
    folder, mirror = (whole_run if with_weights else local_run)(str(run))
    return Run(folder, mirror or NO_MIRROR)


def _read_scores(path: Path) -> ModelScores:
    remedy = "remove it and run again"
    try:
        tree = durable.read_sealed(path, remedy)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}); {remedy}") from error
    shapes.SCORES.require(tree, path, remedy)
    scores = ModelScores(tree["kind"], tree["model"], tree["round"], path, tree["sets"])
    if scores.kind == "base" and scores.base_index is None:
        raise IntegrityError(f"{path}: {scores.model!r} is no base; remove this file and run again")
    return scores
