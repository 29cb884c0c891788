"""The matrix R[t][j]: error of base t on test set j, and of every single adapter beside it; as tables."""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wfc_dist.config import Config
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.metrics import Score
from wfc_dist.run_layout import read_config

_BASE = re.compile(r"base-(\d{4,})")
_ADAPTERS_AT_ONCE = 3  # with two bases and intervals that is 120 columns
WIDTH = 120


@dataclass(frozen=True)
class Column:
    """One scored model.

    Attributes:
        kind: `base` or `adapter`.
        index: Base index, or the adapter's round.
        dataset: Of an adapter; empty for a base.
        folder: Holds scores.json and the hypotheses, `<set>.jsonl`.
        scores: Test set -> score.
    """

    kind: str
    index: int
    dataset: str
    folder: Path
    scores: Mapping[str, Score]

    @property
    def title(self) -> str:
        """Returns `base 1`, or `2:fisher` for the adapter of round 2."""
        return f"base {self.index}" if self.kind == "base" else f"{self.index}:{self.dataset}"


@dataclass(frozen=True)
class Matrix:
    """Everything that was scored in a run.

    Attributes:
        config: The run's configuration: which set was learned in which round, which are protected, the metric.
        bases: Base index -> its scores.
        adapters: (round, data set) -> its scores, in the order of the rounds.
    """

    config: Config
    bases: Mapping[int, Column]
    adapters: Mapping[tuple[int, str], Column]

    @property
    def last(self) -> int:
        """Returns T, the index of the last scored base; 0 when there is none."""
        return max(self.bases, default=0)

    @property
    def protected(self) -> list[str]:
        """Returns the names of the protected sets."""
        return list(self.config.evaluate.protected)

    @property
    def learned(self) -> dict[str, int]:
        """Returns test set -> the last round up to T that trained on it, in the order they were learned."""
        rounds = self.config.round_list()[: self.last]
        tested = self.config.test_sets()
        return {name: index for index, names in enumerate(rounds, start=1) for name in names if name in tested}

    @property
    def own(self) -> list[str]:
        """Returns the test sets that are not protected, in the order they are learned; those in no round come last."""
        tested = [name for name in self.config.test_sets() if name not in self.config.evaluate.protected]
        in_rounds = [name for names in self.config.round_list() for name in names if name in tested]
        return list(dict.fromkeys(in_rounds + tested))

    def columns(self, round_index: int | None = None) -> list[Column]:
        """Returns the models in the order they came to be: of one round (with the bases before and after it) or all."""
        rounds = range(len(self.config.round_list()) + 1) if round_index is None else (round_index - 1, round_index)
        found: list[Column] = []
        for index in rounds:
            if round_index is None or index == round_index:
                found += [column for (of_round, _), column in self.adapters.items() if of_round == index]
            found += [self.bases[index]] if index in self.bases else []
        return found


def _read_scores(path: Path) -> dict[str, Any]:
    known = {field.name for field in fields(Score)}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        sets = {
            name: Score(**{key: value for key, value in score.items() if key in known}) for name, score in tree["sets"].items()
        }
        return {"model": tree["model"], "kind": tree["kind"], "round": int(tree["round"]), "sets": sets}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise IntegrityError(f"{path} is no scores file ({error!r}); remove it and run again") from error


def read_matrix(run_dir: Path) -> Matrix:
    """Reads RUN/config.json and every RUN/round-*/evaluation/<model>/scores.json.

    Raises:
        InputError: Not a run directory.
        IntegrityError: A damaged scores file.
    """
    config = read_config(run_dir)
    bases: dict[int, Column] = {}
    adapters: dict[tuple[int, str], Column] = {}
    for path in sorted(run_dir.glob("round-*/evaluation/*/scores.json")):
        tree = _read_scores(path)
        if tree["kind"] == "interim":
            continue  # of a stream: told of by `wfc status`
        if tree["kind"] == "base":
            match = _BASE.fullmatch(tree["model"])
            if match is None:
                raise IntegrityError(f"{path}: {tree['model']!r} is no base; remove it and run again")
            bases[int(match[1])] = Column("base", int(match[1]), "", path.parent, tree["sets"])
        else:
            key = (tree["round"], tree["model"])
            adapters[key] = Column("adapter", *key, path.parent, tree["sets"])
    order = {(index, name): None for index, names in enumerate(config.round_list(), start=1) for name in names}
    ordered = {key: adapters[key] for key in [*order, *(key for key in adapters if key not in order)] if key in adapters}
    return Matrix(config, dict(sorted(bases.items())), ordered)


def percent(score: Score | None) -> str:
    """Returns `12.3 [10.1, 14.8]`, in percent; `-` for what was not scored."""
    if score is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{100 * score.rate:.1f}"
    return f"{100 * score.rate:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def cell(column: Column, name: str) -> str:
    """Returns the text of one cell; an adapter's own set carries a star."""
    return ("*" if column.dataset == name else "") + percent(column.scores.get(name))


def caption(matrix: Matrix) -> str:
    """Returns what the numbers are: metric, normaliser, interval, how it was decoded."""
    evaluate = matrix.config.evaluate
    parts = [f"{evaluate.metric.upper()} in percent, corpus level, {evaluate.normalizer} normalizer"]
    if evaluate.bootstrap_samples:
        parts.append(f"[{100 * evaluate.confidence:.0f} % bootstrap interval over clips]")
    if evaluate.packing:
        parts.append("decoded in windows of several clips")
    return ", ".join(parts) + "; * the set an adapter was trained on"


def _table(matrix: Matrix, columns: Sequence[Column], title: str) -> Table:
    made = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("test set", no_wrap=True)
    for column in columns:
        made.add_column(escape(column.title), justify="right")
    for name in matrix.own:
        made.add_row(name, *(escape(cell(column, name)) for column in columns))
    if matrix.protected:
        made.add_section()
        made.add_row("protected:")
    for name in matrix.protected:
        made.add_row(name, *(escape(cell(column, name)) for column in columns))
    return made


def table(matrix: Matrix) -> Table:
    """Returns the whole matrix as one table: rows are test sets, protected ones below a rule; columns as they came to be."""
    made = _table(matrix, matrix.columns(), f"{matrix.config.run.name}: {matrix.config.evaluate.metric.upper()} %")
    made.caption, made.caption_justify = escape(caption(matrix)), "left"
    return made


def _split(columns: Sequence[Column]) -> Iterable[list[Column]]:
    adapters = [column for column in columns if column.kind == "adapter"]
    bases = [column for column in columns if column.kind == "base"]
    for start in range(0, max(1, len(adapters)), _ADAPTERS_AT_ONCE):
        yield [*bases[:-1], *adapters[start : start + _ADAPTERS_AT_ONCE], *bases[-1:]]


def round_tables(matrix: Matrix) -> list[Table]:
    """Returns the matrix as one table a round (more when it has many adapters), each readable at 120 columns."""
    made = []
    for index, names in enumerate(matrix.config.round_list(), start=1):
        columns = matrix.columns(index)
        if index > 1 and not any(column.index == index for column in columns):
            break  # not begun
        made += [_table(matrix, part, f"round {index}: {', '.join(names)}") for part in _split(columns)] if columns else []
    if made:
        made[-1].caption, made[-1].caption_justify = escape(caption(matrix)), "left"
    return made


def summary_tables(matrix: Matrix) -> list[Table]:
    """Returns what `wfc run` prints at its end: a table a round, then what was learned and forgotten, with formulas."""
    from wfc_dist.evaluation.transfer import figures_table, summarize

    return [*round_tables(matrix), figures_table(summarize(matrix))] if matrix.bases else []


def as_text(matrix: Matrix, width: int = WIDTH) -> str:
    """Returns `summary_tables` as plain text for logs."""
    console = Console(file=io.StringIO(), width=width, no_color=True, force_terminal=False)
    for item in summary_tables(matrix):
        console.print(item)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def as_markdown(matrix: Matrix) -> str:
    """Returns the whole matrix as a Markdown table, with the figures and their formulas below it."""
    from wfc_dist.evaluation.transfer import summarize

    columns = matrix.columns()
    lines = [
        "| test set | " + " | ".join(column.title for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in [*matrix.own, *matrix.protected]:
        label = f"{name} (protected)" if name in matrix.protected else name
        lines.append(f"| {label} | " + " | ".join(cell(column, name) for column in columns) + " |")
    lines += ["", caption(matrix), ""]
    lines += [f"- {figure.name}: {figure.text} ({figure.formula}; {figure.over})" for figure in summarize(matrix).figures]
    return "\n".join(lines) + "\n"
