"""The tables that `wfc run` prints at its end: the matrix R[t][j], round by round, and the figures of continual learning."""

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from wfc_dist.config.schema import Config
from wfc_dist.evaluation.continual import FIGURES, Estimate, Summary, summarize
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.tables import between, metric_text, plain_table, set_caption, set_title

_ADAPTERS_AT_ONCE = 3  # with two bases and intervals that is 120 columns
ESTIMATES = {
    "new_relative": ("new sets", "%"),
    "protected_relative": ("protected sets (backward, relative)", "%"),
    "bwt": ("backward transfer (BWT)", "points"),
}
"""Figure of continual learning -> title and unit."""


def percent(score: Score | None) -> str:
    """Returns `12.3 [10.1, 14.8]`, in percent; `-` for what was not scored."""
    return "-" if score is None else f"{100 * score.rate:.1f} {between(score.low, score.high)}".rstrip()


def scores_table(model: str, config: Config, scores: Mapping[str, Score]) -> Table:
    """Returns a row for each test set that a model was scored on."""
    evaluate, metric = config.evaluate, metric_text(config)
    table = Table(title=f"{model}: {metric} %, {evaluate.normalizer} normalizer", title_justify="left")
    rate = metric if isinstance(config.metric_record(), str) else "error rate"
    for column in ("set", rate, f"{100 * evaluate.confidence:g} % interval", "clips"):
        table.add_column(column)
    for name, score in scores.items():
        interval = f"{100 * score.low:.1f} .. {100 * score.high:.1f}" if score.low is not None and score.high is not None else "-"
        table.add_row(set_title(config, name), f"{100 * score.rate:.1f}", interval, str(score.num_clips))
    return table


def caption(matrix: ScoreMatrix) -> str:
    """Returns what the numbers are: metric, normaliser, interval, how it was decoded."""
    evaluate = matrix.config.evaluate
    parts = [f"{metric_text(matrix.config)} in percent, corpus level, {evaluate.normalizer} normalizer"]
    if evaluate.bootstrap_samples:
        parts.append(f"[{100 * evaluate.confidence:.0f} % bootstrap interval over clips]")
    if evaluate.packing:
        parts.append("decoded in windows of several clips")
    return ", ".join(parts) + "; * the set an adapter was trained on"


def _table(matrix: ScoreMatrix, models: Sequence[ScoredModel], heading: str) -> Table:
    made = plain_table(heading)
    made.add_column("test set", no_wrap=True)
    for model in models:
        made.add_column(escape(model.title), justify="right")
    for title, names in (("", matrix.own), ("protected:", matrix.protected)):
        if title and names:
            made.add_section()
            made.add_row(title)
        for name in names:
            stars = ["*" if matrix.trained_on(model, name) else "" for model in models]
            cells = (star + percent(model.scores.get(name)) for star, model in zip(stars, models, strict=True))
            made.add_row(set_title(matrix.config, name), *map(escape, cells))
    return made


def _split(models: Sequence[ScoredModel]) -> Iterable[list[ScoredModel]]:
    adapters = [model for model in models if model.kind == "adapter"]
    bases = [model for model in models if model.kind == "base"]
    for start in range(0, max(1, len(adapters)), _ADAPTERS_AT_ONCE):
        yield [*bases[:-1], *adapters[start : start + _ADAPTERS_AT_ONCE], *bases[-1:]]


def round_tables(matrix: ScoreMatrix) -> list[Table]:
    """Returns the matrix as one table a round (more when it has many adapters), each readable at 120 columns."""
    made = []
    for index, names in enumerate(matrix.config.round_list(), start=1):
        models = matrix.models_of(index)
        if index > 1 and not any(model.index == index for model in models):
            break  # not begun
        made += [_table(matrix, part, f"round {index}: {', '.join(names)}") for part in _split(models)] if models else []
    if made:
        set_caption(made[-1], caption(matrix))
    return made


def summary_tables(matrix: ScoreMatrix) -> list[Table]:
    """Returns what `wfc run` prints at its end: a table a round, then what was learned and forgotten, with formulas."""
    return [*round_tables(matrix), figures_table(summarize(matrix))] if matrix.bases else []


def estimate_number(estimate: Estimate) -> str:
    """Returns `+1.2 points`, or `-` without a value."""
    return "-" if estimate.value is None else f"{100 * estimate.value:+.1f} {ESTIMATES[estimate.name][1]}"


def figures_table(summary: Summary) -> Table:
    """Returns the figures of a run as a table, formulas included."""
    made = plain_table(summary.sentence)
    made.add_column("figure", no_wrap=True)
    made.add_column("value", justify="right", no_wrap=True)
    made.add_column("formula")
    for estimate in summary.estimates:
        formula = escape(f"{FIGURES[estimate.name].formula} ({estimate.over})")
        value = f"{estimate_number(estimate)} {between(estimate.low, estimate.high, '+')}".rstrip()
        made.add_row(ESTIMATES[estimate.name][0], escape(value), formula)
    return made
