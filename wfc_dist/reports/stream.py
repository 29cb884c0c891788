"""The table of a stream: how soon each data set was served, and the error beside that of waiting for the K-th data set."""

from collections.abc import Sequence

from rich.table import Table

from wfc_dist.reports.tables import metric_text, set_title, titled_table
from wfc_dist.runs.handle import Run
from wfc_dist.runs.interim import staleness

_COLUMNS = ("round", "data set", "served after", "committed after", "own error", "had one waited", "sets so far",
            "had one waited")  # fmt: skip


def stream_table(run: Run) -> Table | None:
    """Returns a row for each data set that arrived; None where the run is no stream.

    "Own error" is the error, on the test sets of the data set, of the base that is served once the data set is learned; "sets so
    far" is the mean over all test sets learned until then. "Had one waited" is the same for the base committed before, which is
    served where there are no interim bases.
    """
    ages = staleness(run)
    if not ages:
        return None
    config = run.config
    table = titled_table(f"arrivals; {metric_text(config, averaged=True)} in percent", *_COLUMNS)
    tested, so_far = config.test_sets(), list[str]()
    for index, names in enumerate(config.round_list(), start=1):
        waited = _rates(run, index - 1, 0)
        for position, name in enumerate(names, start=1):
            learned = [part for part in config.with_parts([name]) if part in tested]
            so_far = list(dict.fromkeys(so_far + learned))
            served = _rates(run, index - 1, position) or _rates(run, index, 0)
            cells = [_mean(rates, wanted) for wanted in (learned, so_far) for rates in (served, waited)]
            if name in ages:
                table.add_row(str(index) if position == 1 else "", set_title(config, name), *map(_seconds, ages[name]), *cells)
    return table


def _rates(run: Run, index: int, num_pending: int) -> dict[str, float]:
    found = run.scores_of(index, num_pending)
    return {name: score["rate"] for name, score in found.sets.items()} if found else {}


def _mean(rates: dict[str, float], names: Sequence[str]) -> str:
    if not names or not set(names) <= rates.keys():
        return "-"
    return f"{100 * sum(rates[name] for name in names) / len(names):.1f}"


def _seconds(age_s: float | None) -> str:
    return "-" if age_s is None else f"{age_s:.0f} s"
