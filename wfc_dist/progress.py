"""Progress of a run: a live table of all trainers, or plain lines for logs."""

import contextlib
import heapq
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import progress as bars
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

if TYPE_CHECKING:
    from wfc_dist.training.job import Progress

PLAIN_EVERY_S = 20.0
MOST_NAMES = 20  # in one line
KEEP_EVERY_S = 3.0


class Pace:
    """Tells from what is done when the rest will be; what was done before the first report, as by a resume, does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def left_s(self, done: float, total: float) -> float | None:
        """Returns the seconds that the rest takes at the pace so far; None before there is one."""
        now_s = time.monotonic()
        if self._first is None or done < self._first[1]:
            self._first = now_s, done
        start_s, start = self._first
        return None if done <= start else max(total - done, 0.0) * (now_s - start_s) / (done - start)


def in_words(left_s: float | None) -> str:
    """Returns a time left for people, such as "2 h 05 min", "3 min" or "40 s"; "" where it is not known."""
    if left_s is None:
        return ""
    minutes = round(left_s / 60)
    return (
        f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min" if left_s >= 90 else f"{left_s:.0f} s"
    )


def _left(left_s: float | None) -> str:
    return f", about {in_words(left_s)} left" if left_s is not None else ""


class Display:
    """Shows the progress of the trainers of a round, and lines about other phases.

    Args:
        plain: Whether to print lines instead of a live table; by default where the output is no terminal.

    Attributes:
        keep: Gets a snapshot of the progress every few seconds, for who watches from elsewhere; an empty one after each phase.
        left_out: Name -> reason of the nodes that get nothing now; the live table names them.
    """

    def __init__(self, plain: bool | None = None) -> None:
        self.console = Console(stderr=True)
        if not self.console.is_terminal:
            self.console = Console(stderr=True, width=120)
        self._plain = not self.console.is_terminal if plain is None else plain
        self._rows: dict[str, tuple[Progress | None, str]] = {}
        self._round_index = 0
        self._said_s: dict[str, float] = {}
        self._updated_s: dict[str, float] = {}
        self._started_s = time.monotonic()
        self._paces: dict[str, Pace] = {}
        self.keep: Callable[[Mapping[str, Any]], None] | None = None
        self.left_out: Mapping[str, str] = {}
        self._kept_s = 0.0

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._plain:
            self.console.print(
                f"[{time.monotonic() - self._started_s:7.1f} s] {text}", markup=False, highlight=False, soft_wrap=True
            )
        else:
            self.console.print(text, markup=False)

    @contextlib.contextmanager
    def training(self, round_index: int, datasets: Sequence[str]) -> Iterator[None]:
        """Shows the trainings of a round while the context lasts; `update` reports on each."""
        self._round_index, self._rows = round_index, dict.fromkeys(datasets, (None, "queued"))
        self._paces = {dataset: Pace() for dataset in datasets}
        more = f" and {len(datasets) - MOST_NAMES} more" if len(datasets) > MOST_NAMES else ""
        self.say(f"round {round_index}: training {len(datasets)} adapters: {', '.join(datasets[:MOST_NAMES])}{more}")
        live = Live(get_renderable=self._table, console=self.console, refresh_per_second=4, transient=True)
        try:
            with contextlib.nullcontext() if self._plain else live:
                yield
        finally:
            self._keep({}, always=True)

    @contextlib.contextmanager
    def working(self, what: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
        """Shows how far a phase of `total` units is while the context lasts, and the time left.

        Yields:
            What is told how many units are done, fractions included.
        """
        pace, said_s = Pace(), time.monotonic()
        columns = (
            bars.TextColumn("{task.description}"), bars.BarColumn(),
            bars.TextColumn("{task.percentage:.0f} % of " + f"{total:g} {unit}"), bars.TextColumn("{task.fields[left]}"),
        )  # fmt: skip
        with bars.Progress(*columns, console=self.console, transient=True, disable=self._plain) as shown:
            task = shown.add_task(what, total=total, left="")

            def told(done: float) -> None:
                nonlocal said_s
                left_s = pace.left_s(done, total)
                shown.update(task, completed=done, left=f"about {in_words(left_s)} left" if left_s is not None else "")
                if self._plain and time.monotonic() - said_s >= PLAIN_EVERY_S and done < total:
                    said_s = time.monotonic()
                    self.say(f"{what}: {100 * done / total:.0f} % of {total:g} {unit}{_left(left_s)}")
                self._keep({"what": what, "done": done, "total": total, "unit": unit, "left_s": left_s, "trainings": []})

            told(0.0)
            try:
                yield told
            finally:
                self._keep({}, always=True)

    def _keep(self, snapshot: Mapping[str, Any], *, always: bool = False) -> None:
        if self.keep is not None and (always or time.monotonic() - self._kept_s >= KEEP_EVERY_S):
            self._kept_s = time.monotonic()
            self.keep({**snapshot, "time_s": time.time()} if snapshot else {})

    def _snapshot(self) -> dict[str, Any]:
        """Returns the trainings of the round: how far each is, and the sum of their steps."""
        known = {name: progress for name, (progress, _) in self._rows.items() if progress is not None}
        total = max((progress.max_steps for progress in known.values()), default=1) * len(self._rows)
        trainings = [
            {"dataset": name, "step": progress.step, "max_steps": progress.max_steps, "loss": progress.loss,
             "host": self._rows[name][1], "left_s": self._left_s(name, progress)}
            for name, progress in known.items()
        ]  # fmt: skip
        done = sum(progress.step for progress in known.values())
        what = f"round {self._round_index}: training {len(self._rows)} adapters"
        return {"what": what, "done": done, "total": total, "unit": "steps", "left_s": None, "trainings": trainings}

    def _left_s(self, dataset: str, progress: "Progress") -> float | None:
        return self._paces.setdefault(dataset, Pace()).left_s(progress.step, progress.max_steps)

    def update(self, dataset: str, progress: "Progress | None", host: str) -> None:
        """Shows how far the training of `dataset` is; `progress` is None while its trainer gets ready."""
        self._rows[dataset], self._updated_s[dataset] = (progress, host), time.monotonic()
        if progress is not None:
            left = _left(self._left_s(dataset, progress))
            if self.keep is not None:
                self._keep(self._snapshot())
        every_s = max(PLAIN_EVERY_S, len(self._rows))  # a line a second in all, however many train
        if self._plain and progress and time.monotonic() - self._said_s.get(dataset, -every_s) >= every_s:
            self._said_s[dataset] = time.monotonic()
            self.say(
                f"round {self._round_index} {dataset}: step {progress.step}/{progress.max_steps} loss {progress.loss:.3f} "
                f"{progress.speech_seconds_per_second:.1f} s speech/s on {host}{left}"
            )

    def _table(self) -> Table:
        table = Table(title=f"round {self._round_index}", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("data set", "", "step", "loss", "speech s/s", "left", "host"):
            table.add_column(column)
        shown = list(self._rows)
        if len(shown) > (room := max(5, self.console.height - 4)):  # those that reported last
            latest = set(heapq.nlargest(room, shown, key=lambda name: self._updated_s.get(name, 0.0)))
            shown = [name for name in shown if name in latest]
        for dataset in shown:
            progress, host = self._rows[dataset]
            if progress is None:
                table.add_row(dataset, ProgressBar(total=1, completed=0, width=24), "-", "-", "-", "-", host)
                continue
            bar = ProgressBar(total=progress.max_steps, completed=progress.step, width=24)
            steps = f"{progress.step}/{progress.max_steps}" + ("" if progress.phase == "train" else f" {progress.phase}")
            speed, left = f"{progress.speech_seconds_per_second:.1f}", in_words(self._left_s(dataset, progress)) or "-"
            table.add_row(dataset, bar, steps, f"{progress.loss:.3f}", speed, left, host)
        if self.left_out:
            table.caption = "\n".join(
                f"left out: {name}: {reason}" for name, reason in sorted(self.left_out.items())[:MOST_NAMES]
            )
            table.caption_justify = "left"
        return table


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows on a terminal how many things of each name are done, with the time that is left; elsewhere nothing.

    Yields:
        What is told (name, how many are done, how many there are or None).
    """
    columns = (
        bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(), bars.TextColumn(what),
        bars.TimeElapsedColumn(), bars.TextColumn("left:"), bars.TimeRemainingColumn(),
    )  # fmt: skip
    with bars.Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        tasks: dict[str, bars.TaskID] = {}

        def told(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name, total=total)
            shown.update(tasks[name], completed=done)

        yield told


@contextlib.contextmanager
def seconds_bar() -> Iterator[Callable[[object, float, float], None]]:
    """Shows on a terminal how many seconds of audio are done, and the time left; elsewhere nothing.

    Yields:
        What is told (name, seconds done, seconds in all).
    """
    columns = (
        bars.TextColumn("{task.description}"), bars.BarColumn(),
        bars.TextColumn("{task.completed:.0f}/{task.total:.0f} s of audio"), bars.TimeElapsedColumn(),
        bars.TextColumn("left"), bars.TimeRemainingColumn(),
    )  # fmt: skip
    with bars.Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("loading the model", total=None, visible=False)

        def told(name: object, done_s: float, total_s: float) -> None:
            shown.update(task, description=str(name), completed=done_s, total=total_s, visible=True)

        yield told
