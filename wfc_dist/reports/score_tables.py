"""The tables that `wfc run` prints at its end: the matrix R[t][j], round by round, and the figures of continual learning."""

from collections.abc import Iterable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from wfc_dist.config.schema import Config, EvaluateConfig
from wfc_dist.evaluation.continual import FIGURES, Estimate, Summary, summarize
from wfc_dist.evaluation.explain import Explanation
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.tables import between, metric_text, plain_table, set_caption, set_title

_ADAPTERS_AT_ONCE = 3  # in one table: more are hard to compare
_WIDE = 100  # columns of a terminal that has room for intervals beside their figures
_BETWEEN, _EDGES = 2, 2  # columns between two cells of a table, and at both of its ends
_SHORTEST_NAME = 10  # a column may always be so wide; longer names are folded
ESTIMATES = {
    "new_relative": ("new sets, ratio of means", "%"),
    "new_relative_each": ("new sets, mean of ratios", "%"),
    "protected_relative": ("protected sets, ratio of means (backward)", "%"),
    "protected_relative_each": ("protected sets, mean of ratios", "%"),
    "bwt": ("backward transfer (BWT)", "points"),
}
"""Figure of continual learning -> title and unit."""


def percent(score: Score | None) -> str:
    """Returns `12.3 [10.1, 14.8]`, in percent; `-` for what was not scored."""
    return "-" if score is None else f"{100 * score.rate:.1f} {between(score.low, score.high)}".rstrip()


def scores_table(model: str, config: Config, scores: Mapping[str, Score]) -> Table:
    """Returns a row for each test set that a model was scored on."""
    evaluate, metric = config.evaluate, metric_text(config)
    title = f"{model}: {metric} %, {evaluate.normalizer} normalizer{_precision(evaluate)}"
    table = Table(title=title, title_justify="left")
    rate = metric if isinstance(config.metric_record(), str) else "error rate"
    for column in ("set", rate, f"{100 * evaluate.confidence:g} % interval", "clips", "units"):
        table.add_column(column)
    for name, score in scores.items():
        interval = f"{100 * score.low:.1f} .. {100 * score.high:.1f}" if score.low is not None and score.high is not None else "-"
        table.add_row(set_title(config, name), f"{100 * score.rate:.1f}", interval, str(score.num_clips), str(score.num_units))
    return table


def explained_table(model: str, config: Config, explained: Mapping[str, Explanation]) -> Table:
    """Returns a row for each figure of each test set, in percent: what the errors of a model are (docs/metrics.md)."""
    evaluate = config.evaluate
    title = f"{model}: {metric_text(config)} %, language {evaluate.language}{_precision(evaluate)}"
    table = Table(title=title, title_justify="left")
    for column in ("set", "figure", "%", f"{100 * evaluate.confidence:g} % interval"):
        table.add_column(column)
    for name, explanation in explained.items():
        for number, (figure, ratio) in enumerate(explanation.figures.items()):
            title = set_title(config, name) if number == 0 else ""
            table.add_row(title, figure, f"{100 * ratio.value:.1f}", between(ratio.low, ratio.high))
    return table


def _precision(evaluate: EvaluateConfig) -> str:
    return "" if evaluate.precision == "fp32" else f", decoded in {evaluate.precision}"


def caption(matrix: ScoreMatrix) -> str:
    """Returns what the numbers are: metric, normaliser, interval, how it was decoded."""
    evaluate = matrix.config.evaluate
    parts = [f"{metric_text(matrix.config)} in percent, corpus level, {evaluate.normalizer} normalizer"]
    if evaluate.intervals:
        parts.append(f"[{100 * evaluate.confidence:.0f} % interval]")
    if evaluate.packing:
        parts.append("decoded in windows of several clips")
    return ", ".join(parts) + _precision(evaluate) + "; * the set an adapter was trained on"


def _table(matrix: ScoreMatrix, models: Sequence[ScoredModel], heading: str, name_width: int) -> Table:
    made = plain_table(heading)
    made.add_column("test set", overflow="fold", max_width=name_width)
    for model in models:
        widest = max([0, *(len(_cell(matrix, model, name)) for name in [*matrix.own, *matrix.protected])])
        made.add_column(escape(model.title), justify="right", overflow="fold", max_width=max(widest, _SHORTEST_NAME))
    for title, names in (("", matrix.own), ("protected:", matrix.protected)):
        if title and names:
            made.add_section()
            made.add_row(title)
        for name in names:
            cells = [_cell(matrix, model, name) for model in models]
            made.add_row(*map(escape, [set_title(matrix.config, name), *cells]))
    return made


def _cell(matrix: ScoreMatrix, model: ScoredModel, name: str) -> str:
    return ("*" if matrix.trained_on(model, name) else "") + percent(model.scores.get(name))


def _split(models: Sequence[ScoredModel], num_adapters: int) -> Iterable[list[ScoredModel]]:
    adapters = [model for model in models if model.kind == "adapter"]
    bases = [model for model in models if model.kind == "base"]
    for start in range(0, max(1, len(adapters)), num_adapters):
        yield [*bases[:-1], *adapters[start : start + num_adapters], *bases[-1:]]


def _layout(matrix: ScoreMatrix, models: Sequence[ScoredModel], width: int) -> tuple[int, int]:
    """Returns how many adapters fit into one table, and how wide its names may be."""
    names = [*matrix.own, *matrix.protected]
    cell = _BETWEEN + max([_SHORTEST_NAME, *(len(_cell(matrix, model, name)) for model in models for name in names)])
    bases = sum(model.kind == "base" for model in models)
    longest = max([len("protected:"), *(len(set_title(matrix.config, name)) for name in names)])
    name_width = min(longest, max(_SHORTEST_NAME, width - _EDGES - (bases + 1) * cell))
    num_adapters = (width - _EDGES - name_width) // cell - bases
    return max(1, min(_ADAPTERS_AT_ONCE, num_adapters)), name_width


def round_tables(matrix: ScoreMatrix, width: int = 120) -> list[Table]:
    """Returns the matrix as one table a round (more when it has many adapters), each readable at `width` columns (80 or more)."""
    made = []
    for index, names in enumerate(matrix.config.round_list(), start=1):
        models = matrix.models_of(index)
        if index > 1 and not any(model.index == index for model in models):
            break  # not begun
        if models:
            num_adapters, name_width = _layout(matrix, models, width)
            heading = f"round {index}: {', '.join(names)}"
            made += [_table(matrix, part, heading, name_width) for part in _split(models, num_adapters)]
    if made:
        set_caption(made[-1], caption(matrix))
    return made


def summary_tables(matrix: ScoreMatrix, width: int = 120) -> list[Table]:
    """Returns what `wfc run` prints at its end: a table a round, then what was learned and forgotten, with formulas.

    `width` is the number of columns of the terminal; nothing is cut from 80 on.
    """
    return [*round_tables(matrix, width), figures_table(summarize(matrix), width)] if matrix.bases else []


def estimate_number(estimate: Estimate) -> str:
    """Returns `+1.2 points`, or `-` without a value."""
    return "-" if estimate.value is None else f"{100 * estimate.value:+.1f} {ESTIMATES[estimate.name][1]}"


def figures_table(summary: Summary, width: int = 120) -> Table:
    """Returns the figures of a run as a table, formulas included; an interval stands below its figure in a narrow terminal."""
    made, is_wide = plain_table(summary.sentence), width >= _WIDE
    made.add_column("figure", no_wrap=is_wide, overflow="fold")
    made.add_column("value", justify="right", no_wrap=True)
    made.add_column("formula", overflow="fold")
    for estimate in summary.estimates:
        formula = escape(f"{FIGURES[estimate.name].formula} ({estimate.over})")
        parts = [estimate_number(estimate), between(estimate.low, estimate.high, "+")]
        value = (" " if is_wide else "\n").join(part for part in parts if part)
        made.add_row(ESTIMATES[estimate.name][0], escape(value), formula)
    return made
