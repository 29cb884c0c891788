"""`wfc status RUN --watch`: the status table, drawn again until the run ends; where there is no terminal, lines that change."""

import contextlib
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from wfc_dist.errors import WfcError
from wfc_dist.reports.status import progress_lines, status_table
from wfc_dist.runs.handle import Run
from wfc_dist.runs.watch import Watch, doubt_about

_ENDED = ("done", "failed", "interrupted")


def watch_run(open_run: Callable[[], Run], console: Console, every_s: float = 2.0) -> None:
    """Shows how far a run is until it ends, or until Ctrl-C, which leaves the run alone.

    Args:
        open_run: Opens the run anew for every look.
        console: Where to.
        every_s: Seconds between two looks.

    Raises:
        WfcError: No process works on the run, which has not ended.
    """
    run, watch = open_run(), Watch()
    with contextlib.suppress(KeyboardInterrupt):
        if console.is_terminal:
            with Live(status_table(run), console=console, auto_refresh=False) as live:
                while not _has_ended(run, watch):
                    time.sleep(every_s)
                    run = open_run()
                    live.update(status_table(run), refresh=True)
            return
        said = ""
        while not _has_ended(run, watch):
            line = doubt_about(run) or "; ".join(line.strip() for line in progress_lines(run)) or run.status().state
            if line != said:
                console.print(said := line, markup=False, highlight=False, soft_wrap=True)
            time.sleep(every_s)
            run = open_run()
        console.print(status_table(run))


def _has_ended(run: Run, watch: Watch) -> bool:
    status = run.status()
    if status.state in _ENDED:
        return True
    if watch.sees_nobody(run):
        process = f"process {status.facts['pid']} on {status.facts['host']}" if "pid" in status.facts else "its process"
        raise WfcError(
            f"{run.url or run.path}: attempt {max(status.attempt, 1)} is {status.state} by its records, but {process} is gone: "
            "it was killed, or its machine went down; the same `wfc run` goes on"
        )
    return False
