"""`wfc stream`: from a configuration and a watched folder to a base that is always served; `stream` has the algorithm."""

import time
from pathlib import Path

from wfc_dist.coordinator.inbox import Inbox, grown_config
from wfc_dist.coordinator.run import Parts, run
from wfc_dist.errors import ConfigError
from wfc_dist.progress import Display
from wfc_dist.rounds import Base
from wfc_dist.runs.handle import Run
from wfc_dist.runs.interim import StreamStore
from wfc_dist.runs.opening import record_config
from wfc_dist.stream import StreamCentralizer, run_stream


def stream(path: Path, overrides: list[str], inbox: Path, display: Display, poll_s: float | None = 5.0) -> Path:
    """Learns data sets as they arrive, or goes on where an earlier call ended; returns the run directory when the stream ends.

    Writes the run directory, and renames files of the inbox that cannot be used.

    Args:
        path, overrides: The configuration; its data sets are the first arrivals.
        inbox: The watched folder.
        display: Shows progress.
        poll_s: Seconds between two polls of the inbox; None ends the stream as soon as the inbox has nothing new.

    Raises:
        ConfigError, InputError: The configuration or the data cannot be used; nothing was started.
        Interrupted: A stop was asked for; the same call goes on.
    """
    config, every = grown_config(path, overrides)
    if not inbox.is_dir():
        raise ConfigError(f"--inbox {inbox} is no folder; make the folder first, so that a mistyped name is not watched for ever")

    def work(parts: Parts) -> Base:
        store = parts.store
        assert isinstance(parts.centralizer, StreamCentralizer), "the configuration was checked"
        arrived_s = Run(store.paths.run_dir).arrived_s
        not_learned = list(store.config.datasets)[every * Run(store.paths.run_dir).base().index :]
        arrived_s = {name: time.time() for name in not_learned} | arrived_s
        record_config(store, parts.checked.fingerprints, {"arrivals": arrived_s})
        display.say(f"served: {store.paths.serving}; data sets come to {inbox}")
        arrivals = Inbox(inbox, every, store, parts.checked, arrived_s, display.say, poll_s)
        return run_stream(arrivals, StreamStore(store, arrived_s), parts.trainers, parts.centralizer, parts.scorer, every=every)

    run(config, display, work)
    return config.run_dir()
