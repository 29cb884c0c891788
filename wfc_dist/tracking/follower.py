"""Follows the metrics logs and the scores of a run, and writes them for its trackers, on a thread of the coordinator.

A tracker gets what the files of the run hold behind the last step that it has. So an attempt goes on where the tracker ended,
steps that a resumed training repeats are not written twice, and a tracker that was not there for a while gets what it missed.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wfc_dist.runs.handle import Run
from wfc_dist.runs.store import RunStore
from wfc_dist.storage.mirror import Mirror
from wfc_dist.tracking.catalog import make_trackers
from wfc_dist.tracking.runs import BASES, Point, TrackedRun, Tracker, base_points, tracked_run, training_points
from wfc_dist.tracking.tail import Tail, local

logger = logging.getLogger(__name__)

POLL_S, REMOTE_POLL_S = 5.0, 30.0
"""Between two looks at a run; at one on object storage, a look asks for an object of each training."""
AGAIN_AFTER_S = 60.0
"""How long a tracker that has failed is left alone."""
PUBLISH_EVERY_S = 60.0
LAST_WORD_S = 10.0
"""How long the end of a run waits for its trackers."""


@contextlib.contextmanager
def tracked(store: RunStore, say: Callable[[str], None]) -> Iterator[None]:
    """Writes the trackers of `run.track` while the context lasts, and what is missing at its end.

    Args:
        store: The opened run.
        say: Gets one line for each tracker that fails; the run goes on.
    """
    if not store.config.run.track:
        yield
        return
    follower, ending = Follower(store, say), threading.Event()
    poll_s = REMOTE_POLL_S if store.mirror.is_remote else POLL_S

    def follow() -> None:
        while not ending.wait(poll_s):
            follower.poll()
        follower.close()

    thread = threading.Thread(target=follow, name="trackers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(LAST_WORD_S)
        if thread.is_alive():
            say(f"run.track: not all is written after {LAST_WORD_S:g} s; the same command writes what is missing")


class Follower:
    """What the trackers of a run hold, and what they lack. See `tracked` for the arguments."""

    def __init__(self, store: RunStore, say: Callable[[str], None]) -> None:
        self._say = say
        place = store.config.run_url() or str(store.paths.run_dir.absolute())
        self._files = _PublishedFiles(store) if isinstance(store.mirror, Mirror) else None
        self._feeds = {name: _Feed(store, place, tracker) for name, tracker in make_trackers(store.config, store.paths).items()}
        self._again_s = dict.fromkeys(self._feeds, 0.0)

    def poll(self) -> None:
        """Writes what is new. A tracker that fails is told of once, and asked again later."""
        for name in self._feeds:
            if time.monotonic() >= self._again_s[name]:
                self._try(name, lambda feed: feed.bring_up_to_date())
        if self._files is not None:
            self._files.publish()

    def close(self) -> None:
        """Writes what is new, also for trackers that have failed, and closes them."""
        for name in self._feeds:
            self._try(name, lambda feed: feed.bring_up_to_date())
            self._try(name, lambda feed: feed.tracker.close())
        if self._files is not None:
            self._files.publish(at_last=True)

    def _try(self, name: str, call: Callable[["_Feed"], None]) -> None:
        try:
            if self._files is not None:
                self._files.bring()
            call(self._feeds[name])
        except Exception as error:  # whatever a tracker's library raises: the run does not depend on it
            if not self._again_s[name]:
                self._say(f"warning: run.track: {name} failed ({_one_line(error)}); the run goes on, and it is tried again")
            logger.warning("run.track: %s failed: %s", name, _one_line(error))
            self._feeds[name].forget()
            self._again_s[name] = time.monotonic() + AGAIN_AFTER_S


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class _Feed:
    """One tracker, and what it holds of the run."""

    def __init__(self, store: RunStore, place: str, tracker: Tracker) -> None:
        self._store, self._place, self.tracker = store, place, tracker
        self._done: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Forgets what the tracker holds, which it is asked again."""
        self._held: dict[str, dict[str, int]] = {}
        self._tails: dict[str, list[Tail]] = {}
        self._scored: set[int] = set()

    def bring_up_to_date(self) -> None:
        """Writes all that the files of the run hold and the tracker does not."""
        rounds = self._store.config.round_list()
        for round_index, names in enumerate(rounds[: self._store.current_round()], start=1):
            group = self._store.paths.round(round_index).name
            for name in names:
                run = tracked_run(self._store.config, self._place, group, name)
                if run.id not in self._done:
                    self._follow_training(run, round_index)
        bases = tracked_run(self._store.config, self._place, "", BASES)
        if bases.id not in self._done:
            self._follow_scores(bases, len(rounds))

    def _follow_training(self, run: TrackedRun, round_index: int) -> None:
        is_over = Run(self._store.paths.run_dir).is_committed(round_index, run.name)  # asked before the log is read
        curve = self._store.paths.curve(round_index, run.name)
        if run.id not in self._tails:
            if self.tracker.is_complete(run):
                self._done.add(run.id)
                return
            self._tails[run.id] = list(_tails(self._store, curve))
        rows = [row for tail in self._tails[run.id] for row in tail.rows()]
        rows.sort(key=lambda row: int(row["step"]))  # stable: a dev measure comes after the row of its step
        self._write(run, [point for row in rows for point in training_points(row)])
        if is_over:
            self._finish(run)

    def _follow_scores(self, run: TrackedRun, num_rounds: int) -> None:
        opened, points = Run(self._store.paths.run_dir), []
        for index in range(opened.num_bases):
            if index not in self._scored and (scores := opened.scores_of(index)) is not None:
                points += base_points(index, scores.sets)
                self._scored.add(index)
        self._write(run, points)
        if num_rounds in self._scored:
            self._finish(run)

    def _write(self, run: TrackedRun, points: list[Point]) -> None:
        if not points:
            return
        if run.id not in self._held:
            self._held[run.id] = self.tracker.last_steps(run)
        held, new = self._held[run.id], []
        for point in points:
            if point.step > held.get(point.key, -1):
                new.append(point)
                held[point.key] = point.step
        if new:
            self.tracker.write(run, new)

    def _finish(self, run: TrackedRun) -> None:
        if self._held.get(run.id):  # an adapter from the pool has no curve
            self.tracker.finish(run)
        self._done.add(run.id)
        self._held.pop(run.id, None)
        self._tails.pop(run.id, None)


def _tails(store: RunStore, curve: Path) -> Iterator[Tail]:
    """Yields the tails of a metrics log: here, and the one that a trainer on another node has published."""
    yield local(curve)
    mirror = store.mirror
    if isinstance(mirror, Mirror):
        name, objects = curve.relative_to(mirror.folder).as_posix(), mirror.objects
        yield Tail(lambda offset: (objects.read(name) or b"")[offset:])


class _PublishedFiles:
    """The trackers' files of a run on object storage: brought to this node once, and published from time to time."""

    def __init__(self, store: RunStore) -> None:
        assert isinstance(store.mirror, Mirror)
        self._mirror, self._folder = store.mirror, store.paths.tracking
        self._published: dict[Path, Any] = {}
        self._published_s = time.monotonic()
        self._are_here = False

    def bring(self) -> None:
        """Fetches the files that earlier attempts have published, unless this node has more of them."""
        if self._are_here:
            return
        for name, size in self._mirror.objects.list(self._mirror_name()).items():
            path = self._mirror.folder / name
            if not path.is_file() or path.stat().st_size < size:
                self._mirror.fetch_file(path)
        self._are_here = True

    def _mirror_name(self) -> str:
        return self._folder.relative_to(self._mirror.folder).as_posix()

    def publish(self, *, at_last: bool = False) -> None:
        """Publishes the files that have changed; rarely, unless this is the last time. A failure is only logged."""
        if not self._are_here or (not at_last and time.monotonic() - self._published_s < PUBLISH_EVERY_S):
            return
        self._published_s = time.monotonic()
        try:
            for path in sorted(self._folder.rglob("*")):
                if path.is_file() and not path.is_symlink():
                    fact = path.stat().st_size, path.stat().st_mtime_ns
                    if self._published.get(path) != fact:
                        self._mirror.publish_file(path)
                        self._published[path] = fact
        except Exception as error:  # as with the trackers themselves
            logger.warning("run.track: %s is not published: %s", self._folder, _one_line(error))
