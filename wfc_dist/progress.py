"""Progress of a run: a live table of all trainers, or plain lines for logs."""

import contextlib
import heapq
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich import progress as bars
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

if TYPE_CHECKING:
    from wfc_dist.training.job import Progress

PLAIN_EVERY_S = 20.0
MOST_NAMES = 20  # in one line


class Display:
    """Shows the progress of the trainers of a round, and lines about other phases.

    Args:
        plain: Whether to print lines instead of a live table; by default where the output is no terminal.
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
        more = f" and {len(datasets) - MOST_NAMES} more" if len(datasets) > MOST_NAMES else ""
        self.say(f"round {round_index}: training {len(datasets)} adapters: {', '.join(datasets[:MOST_NAMES])}{more}")
        if self._plain:
            yield
            return
        with Live(get_renderable=self._table, console=self.console, refresh_per_second=4, transient=True):
            yield

    def update(self, dataset: str, progress: "Progress | None", host: str) -> None:
        """Shows how far the training of `dataset` is; `progress` is None while its trainer gets ready."""
        self._rows[dataset], self._updated_s[dataset] = (progress, host), time.monotonic()
        every_s = max(PLAIN_EVERY_S, len(self._rows))  # a line a second in all, however many train
        if self._plain and progress and time.monotonic() - self._said_s.get(dataset, -every_s) >= every_s:
            self._said_s[dataset] = time.monotonic()
            self.say(
                f"round {self._round_index} {dataset}: step {progress.step}/{progress.max_steps} loss {progress.loss:.3f} "
                f"{progress.speech_seconds_per_second:.1f} s speech/s on {host}"
            )

    def _table(self) -> Table:
        table = Table(title=f"round {self._round_index}", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("data set", "", "step", "loss", "speech s/s", "host"):
            table.add_column(column)
        shown = list(self._rows)
        if len(shown) > (room := max(5, self.console.height - 4)):  # those that reported last
            latest = set(heapq.nlargest(room, shown, key=lambda name: self._updated_s.get(name, 0.0)))
            shown = [name for name in shown if name in latest]
        for dataset in shown:
            progress, host = self._rows[dataset]
            if progress is None:
                table.add_row(dataset, ProgressBar(total=1, completed=0, width=24), "-", "-", "-", host)
                continue
            bar = ProgressBar(total=progress.max_steps, completed=progress.step, width=24)
            steps = f"{progress.step}/{progress.max_steps}" + ("" if progress.phase == "train" else f" {progress.phase}")
            table.add_row(dataset, bar, steps, f"{progress.loss:.3f}", f"{progress.speech_seconds_per_second:.1f}", host)
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
