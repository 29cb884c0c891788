"""The chapter of a run's report on what the errors are, and RUN/report/errors.json with the same numbers."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from wfc_dist.evaluation.explain import FORMULAS, Explanation, explain, in_words, shortened
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix
from wfc_dist.evaluation.rates import RateReader
from wfc_dist.evaluation.ratios import Ratio
from wfc_dist.reports import plots
from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section
from wfc_dist.reports.tables import between, metric_text, set_title
from wfc_dist.storage import durable

SCHEMA_VERSION = 1
_MODELS = 40  # in the chapter: reading what hundreds of adapters wrote takes minutes
_WORST = 4  # sets in the plot
_OPEN_ROWS = 24
_KINDS = ("substitutions", "deletions", "insertions")
_HEADS = {
    "rate": "rate", "substitutions": "substituted", "deletions": "deleted", "insertions": "inserted",
    "hallucinated_clips": "clips with hallucinations", "hallucinated_insertions": "inserted there",
    "rate_without_hallucinations": "rate without them", "decoded_apart": "decoded one by one",
    "foreign_script": "other script", "language_errors": "language mistaken",
}  # fmt: skip
_INTRO = (
    "An error is a word substituted, deleted or inserted; the three add up to the rate, which passes 100 % only by insertions. "
    "Much of that can be invented: text flooded with words nobody said, or one phrase over and over. Such clips are counted, and "
    "the rate is given without them. Text in an alphabet that the set does not use shows an answer in another language; between "
    "languages of one alphabet that can't be seen in a text."
)
_SHOWN = (
    "For the sets with most errors a bar for every model: its substitutions, deletions and insertions. The table has the numbers."
)
_SWITCH_INTRO = (
    "Words at a switch are the last before and the first after a change of language within a clip; the rest are the other words "
    "of the same clips. A positive gap says that switching itself is hard for the model."
)

Explained = Mapping[str, Mapping[str, Explanation]]  # set -> model's title -> why


def _explained(matrix: ScoreMatrix, models: Sequence[ScoredModel], reader: RateReader) -> Explained:
    explained: dict[str, dict[str, Explanation]] = {}
    blocks = {name: matrix.config.evaluate.of(dataset) for name, dataset in matrix.config.test_sets().items()}
    for name in [*matrix.own, *matrix.protected]:
        for model in models:
            if name in model.scores and model.hypotheses(name).is_file():
                hypotheses, counts = reader.texts(model, name)
                explanation = explain(hypotheses, blocks[name], reader.spelling(model.run_dir), counts)
                explained.setdefault(name, {})[model.title] = explanation
    return explained


def errors_section(matrix: ScoreMatrix, json_path: Path, reader: RateReader) -> Section:
    """Returns the chapter; writes its numbers as JSON. Base 0, the last base and the adapters, from their hypotheses on disk.

    Raises:
        InputError, IntegrityError: Hypotheses of another schema or damaged ones.
    """
    bases = [matrix.bases[index] for index in dict.fromkeys((0, matrix.last)) if index in matrix.bases]
    models = [*bases, *matrix.adapters.values()]
    explained = _explained(matrix, models[:_MODELS], reader)
    if not explained:
        return Section(parts=[Part(note="No hypotheses are on disk.")])
    sets = {name: {title: explanation.as_tree() for title, explanation in of_set.items()} for name, of_set in explained.items()}
    tree = {"schema": SCHEMA_VERSION, "metric": matrix.config.metric_record(), "formulas": FORMULAS, "sets": sets}
    durable.write_json(json_path, tree)
    titled = {set_title(matrix.config, name): of_set for name, of_set in explained.items()}
    highest = {name: max(each.figures["rate"].value for each in of_set.values()) for name, of_set in titled.items()}
    worst = sorted(highest, key=lambda name: -highest[name])[:_WORST]
    shares = {
        name: {title: [explanation.figures[kind].value for kind in _KINDS] for title, explanation in titled[name].items()}
        for name in worst
    }
    parts = [Part("Where they are most", svg=plots.errors_plot(shares, _KINDS), alternative=_SHOWN), _worst_part(matrix, titled)]
    if len(models) > _MODELS:
        parts.insert(0, Part(note=f"the first {_MODELS} of {len(models)} models"))
    parts += [_table_part(titled), *_switch_part(explained), *_language_part(titled), _formulas_part()]
    return Section(_INTRO, parts)


def _worst_part(matrix: ScoreMatrix, explained: Explained) -> Part:
    """Returns each model's worst set in words."""
    worst: dict[str, tuple[str, Explanation]] = {}
    for name, title, explanation in _rows(explained):
        if title not in worst or explanation.figures["rate"].value > worst[title][1].figures["rate"].value:
            worst[title] = (name, explanation)
    rows = [[Cell(title), Cell(name), Cell(in_words(explanation), css="wrap")] for title, (name, explanation) in worst.items()]
    text = f"{metric_text(matrix.config)}, in percent of the reference tokens"
    return Part("Each model's worst set", table=HtmlTable(["model", "set", "what the errors are"], rows, caption=text, left=True))


def _cell(ratio: Ratio | None, sign: str = "", before: str = "") -> Cell:
    if ratio is None:
        return Cell("-")
    return Cell(before + format(100 * ratio.value, f"{sign}.1f"), between(ratio.low, ratio.high, sign))


def _kept(title: str, heads: Sequence[str], rows: Sequence[Sequence[Cell] | str], caption: str, note: str = "") -> Part:
    folded = f"{len(rows)} rows" if len(rows) > _OPEN_ROWS else ""
    return Part(title, note, table=HtmlTable(heads, rows, caption=caption), folded=folded)


def _rows(explained: Explained) -> Iterable[tuple[str, str, Explanation]]:
    return ((name, title, explanation) for name, of_set in explained.items() for title, explanation in of_set.items())


def _table_part(explained: Explained) -> Part:
    given = {key for _, _, explanation in _rows(explained) for key in explanation.figures}
    shown = {key: head for key, head in _HEADS.items() if key in given}
    rows: list[Sequence[Cell] | str] = []
    for name, of_set in explained.items():
        rows.append(name)
        for title, explanation in of_set.items():
            loop = shortened(explanation.longest_loop) if explanation.longest_loop else "-"
            scripts = ", ".join(f"{script.lower()} {number}" for script, number in list(explanation.scripts.items())[:3])
            rows.append([Cell(title), *(_cell(explanation.figures.get(key)) for key in shown), Cell(loop, scripts)])
    text = "percent; longest loop: the phrase that was repeated most, beside it the scripts that are foreign to the set"
    return _kept("Every set", ["model", *shown.values(), "longest loop"], rows, text)


def _switch_part(explained: Explained) -> list[Part]:
    keys = [f"{metric}_{side}" for metric in ("wer", "mer") for side in ("switched", "rest", "gap")]
    rows = [
        [Cell(name), Cell(title), *(_cell(explanation.figures.get(key), "+" if "gap" in key else "") for key in keys),
         Cell(f"{explanation.num_switched} of {explanation.num_switched + explanation.num_rest}")]
        for name, title, explanation in _rows(explained) if explanation.num_switched
    ]  # fmt: skip
    if not rows:
        return []
    heads = ["set", "model", "WER at a switch", "WER, rest", "gap", "MER at a switch", "MER, rest", "gap", "words at a switch"]
    return [_kept("Words at a change of language", heads, rows, "percent, gaps in points", _SWITCH_INTRO)]


def _language_part(explained: Explained) -> list[Part]:
    rows: list[Sequence[Cell] | str] = []
    heads = ["model", "rate of each language"]
    for name, of_set in explained.items():
        if any(explanation.languages for explanation in of_set.values()):
            rows.append(name)
        for title, explanation in of_set.items():
            if explanation.languages:
                cells = [_cell(ratio, before=f"{language} ") for language, ratio in explanation.languages.items()]
                rows.append([Cell(title), *cells])
    width = max((len(row) for row in rows if not isinstance(row, str)), default=0)
    return [_kept("Sets of several languages", [*heads, *[""] * (width - 2)], rows, "percent")] if rows else []


def _formulas_part() -> Part:
    rows = [[Cell(name), Cell(formula, css="wrap")] for name, formula in FORMULAS.items()]
    letters = "S, D, I: substitutions, deletions, insertions; N: reference tokens"
    table = HtmlTable(["figure in errors.json", "formula"], rows, left=True, caption=letters)
    return Part("Formulas", table=table, folded="what every figure is")
