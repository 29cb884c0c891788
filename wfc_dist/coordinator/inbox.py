"""The watched folder of a stream: which data sets arrive, in which order, and why a file is rejected."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfc_dist import activity
from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.config.yaml_text import read_yaml_file
from wfc_dist.coordinator.checks import Checked, check
from wfc_dist.errors import ConfigError, InputError
from wfc_dist.runs.layout import RunPaths, has_record, read_record
from wfc_dist.runs.opening import record_config
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

SUFFIX, REJECTED = ".yaml", ".rejected"
STOP_POLL_S = 0.2


def grown_config(path: Path, overrides: list[str]) -> tuple[Config, int]:
    """Reads a stream's configuration, adds the data sets that have arrived so far, and returns it with K.

    Raises:
        ConfigError: As for a run; or there is no `rounds: {centralize_every: K}`, the configuration is not possible for a stream,
            or `wfc run` has ended the run in the middle of a round.
    """
    tree = loading.read_tree(path, overrides)
    config = loading.parse(tree, str(path))  # says first what is wrong with the file itself
    if not isinstance(tree["rounds"], dict):
        raise ConfigError(f"{path}: rounds: a stream needs rounds: {{centralize_every: K}}, since more data sets will come")
    every = int(tree["rounds"]["centralize_every"])
    if config.cluster.backend == "slurm":
        raise ConfigError("cluster.backend slurm: a stream keeps its trainers warm; use ray (in one allocation) or in_process")
    if config.run_url() is not None:
        raise ConfigError(f"run.dir {config.run.dir}: a stream needs a folder, not object storage")
    if config.centralize.is_fitted:
        raise ConfigError("centralize: a stream serves every interim base at once, without a fit; give weights and scale")
    if config.centralize.quorum is not None:
        raise ConfigError("centralize.quorum: a stream waits for each data set; leave it out")
    if config.centralize.gate.is_on:
        raise ConfigError("centralize.gate: a stream serves every interim base at once, without a gate; leave it out")
    if config.cluster.max_trainers is None:  # one data set is trained at a time
        tree["cluster"] = {**(tree.get("cluster") or {}), "max_trainers": 1}
    paths = RunPaths(config.run_dir())
    if has_record(paths):
        recorded = read_record(paths)["config"]["datasets"]
        tree["datasets"] = tree["datasets"] | {name: data for name, data in recorded.items() if name not in tree["datasets"]}
    config = loading.parse(tree, str(path))
    for index, names in enumerate(config.round_list(), start=1):
        if len(names) < every and durable.is_committed(paths.base(index)):
            raise ConfigError(
                f"{paths.run_dir}: round {index} was ended with {len(names)} of {every} data sets; choose another run.name"
            )
    return config, every


@dataclass
class Inbox:
    """The data sets of a stream, in the order of arrival (see `stream.Arrivals`).

    A file INBOX/NAME.yaml holds the block `datasets.NAME` of a configuration. Files are read in the order (mtime, name) and
    stay where they are. A file that cannot be used becomes NAME.yaml.rejected; NAME.yaml.rejected.txt gives the reason.

    Attributes:
        folder: The watched folder.
        every: K, the number of adapters that make a base.
        store: The opened run; its configuration grows.
        checked: Facts of the data; grows.
        arrived_s: Data set -> when it arrived, seconds since the epoch; grows.
        say: Gets a line for every data set that arrives and every file that is rejected.
        poll_s: Seconds between two polls; None ends the stream as soon as nothing new is there.
    """

    folder: Path
    every: int
    store: RunStore
    checked: Checked
    arrived_s: dict[str, float]
    say: Callable[[str], None]
    poll_s: float | None
    _known: set[tuple[str, int]] = field(default_factory=set)  # files of data sets that are in the run

    def since(self, num_passed: int) -> Iterator[str]:
        """See `stream.Arrivals`. A data set is in the run's configuration before it is yielded.

        Raises:
            Interrupted: A stop was asked for.
        """
        is_waiting = False
        while True:
            self.store.raise_if_stopped("between two data sets")
            names = list(self.store.config.datasets)
            if num_passed < len(names):
                if is_waiting:
                    self.store.status.write("running")
                    is_waiting = False
                yield names[num_passed]
                num_passed += 1
            elif not self._take_next():
                if self.poll_s is None:
                    return
                if not is_waiting:
                    self.store.status.write("running", f"waits for data sets in {self.folder}")
                    is_waiting = True
                self._wait(self.poll_s)

    def _wait(self, poll_s: float) -> None:
        end = time.monotonic() + poll_s
        while (left_s := end - time.monotonic()) > 0:
            activity.moved()
            self.store.raise_if_stopped("between two data sets")
            time.sleep(min(left_s, STOP_POLL_S))

    def _take_next(self) -> bool:
        """Takes the oldest new file that can be used; returns whether there was one."""
        for mtime_ns, file_name, path in _files(self.folder):
            if (file_name, mtime_ns) in self._known:
                continue
            self.store.raise_if_stopped("between two data sets")
            try:
                is_new = self._take(path, mtime_ns / 1e9)
            except (ConfigError, InputError) as error:
                self._reject(path, error.message)
                continue
            self._known.add((file_name, mtime_ns))
            if is_new:
                return True
        return False

    def _take(self, path: Path, arrived_s: float) -> bool:
        """Appends a data set to the run's configuration, unless it is there already; returns whether it was appended.

        Raises:
            ConfigError, InputError: The data set cannot be used.
        """
        name, config = path.name.removesuffix(SUFFIX), self.store.config
        block = _read_block(path)
        tree = config.model_dump(mode="json")
        tree |= {"rounds": {"centralize_every": self.every}, "datasets": tree["datasets"] | {name: block}}
        grown = loading.parse(tree, str(path))
        if name in config.datasets:
            if grown.datasets[name] == config.datasets[name]:
                return False
            raise ConfigError(f"{path}: the run has another data set {name!r}; give this one a name of its own")
        one = {"datasets": {name: grown.datasets[name]}, "evaluate": grown.evaluate.model_copy(update={"protected": {}})}
        new = check(grown.model_copy(update=one))
        self.checked.hours.update(new.hours)
        self.checked.test_hours.update(new.test_hours)
        self.checked.fingerprints.update(new.fingerprints)
        self.arrived_s[name] = arrived_s
        self.store.config = grown
        # From here on the data set is part of the run.
        record_config(self.store, self.checked.fingerprints, {"arrivals": self.arrived_s})
        round_index = len(grown.round_list())
        self.store.ledger.record(
            "arrival", round=round_index, dataset=name, hours=new.hours[name], waited_s=time.time() - arrived_s
        )
        self.say(f"{name} arrived: data set {len(grown.round_list()[-1])} of {self.every} of round {round_index}")
        return True

    def _reject(self, path: Path, reason: str) -> None:
        if not path.exists():
            return  # its writer has taken it back
        aside = path.with_name(path.name + REJECTED)
        durable.write_text(aside.with_name(aside.name + ".txt"), reason + "\n")
        os.replace(path, aside)
        self.store.ledger.record("rejected", file=path.name, reason=reason)
        self.say(f"{path.name} was rejected, see {aside.name}.txt: {reason}")


def _files(folder: Path) -> list[tuple[int, str, Path]]:
    """Returns (mtime in ns, name, path) of the files that hold a data set, oldest first."""
    files = []
    for path in folder.glob(f"[!.]*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # its writer has taken it back
            files.append((path.stat().st_mtime_ns, path.name, path))
    return sorted(files)


def _read_block(path: Path) -> dict[str, Any]:
    block = read_yaml_file(path)
    if not isinstance(block, dict):
        raise ConfigError(f"{path}: expected the keys of one data set, such as source:, language:, splits:")
    return block
