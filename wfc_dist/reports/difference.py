"""The tables of `wfc diff`: tensors that moved, and errors side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from wfc_dist.exporting.diff import Difference, Moved
from wfc_dist.reports.tables import between, plain_table


def tables(found: Difference, num_shown: int) -> list[Table]:
    """Returns the table of tensors, `num_shown` of them, and that of errors, where a model was scored."""
    in_all = f"{len(found.moved)} of {found.num_tensors} tensors differ; in all ||B - A|| / ||A|| = {found.relative:.3g}"
    tensors = plain_table(f"A {found.a}, B {found.b}", in_all)
    for column in ("tensor", "||B - A|| / ||A||", "largest |B - A|"):
        tensors.add_column(column, justify="left" if column == "tensor" else "right")
    for item in found.moved[:num_shown]:
        tensors.add_row(escape(item.name), *_how_far(item))
    if len(found.moved) > num_shown:
        tensors.add_row(f"and {len(found.moved) - num_shown} more", "", "")
    if not found.scores:
        return [tensors]
    notes = ["- stands for a set on which a model was not scored"]
    if others := [name for name, pair in found.scores.items() if not _is_same_set(pair)]:
        notes.append(
            "the clips, the words counted in them or the precision of decoding are others in A than in B, so do not compare: "
            + ", ".join(others)
        )
    errors = plain_table("error in percent, with its interval", "; ".join(notes))
    for column in ("test set", "metric", "clips", "units", "A", "B"):
        errors.add_column(column)
    for name, pair in found.scores.items():
        facts = (_each(pair, key) for key in ("metric", "num_clips", "num_units"))
        rates = ["-" if score is None else f"{100 * score['rate']:.1f} {between(score['low'], score['high'])}" for score in pair]
        errors.add_row(escape(name), *facts, *(escape(rate.rstrip()) for rate in rates))
    return [tensors, errors]


def _is_same_set(pair: Sequence[Mapping[str, Any] | None]) -> bool:
    """Returns whether two scores count the same: metric, clips, tokens of the references, precision. A missing one differs from
    none."""
    keys = ("metric", "num_clips", "reference_length", "precision")
    counted = {tuple(score.get(key) for key in keys) for score in pair if score is not None}
    return len(counted) == 1


def _each(pair: Sequence[Mapping[str, Any] | None], key: str) -> str:
    """Returns a field of two scores: once where it is the same, else of A / of B."""
    return " / ".join(dict.fromkeys(str(score.get(key, "-")) for score in pair if score is not None))


def _how_far(item: Moved) -> tuple[str, str]:
    if item.relative is None or item.largest is None:
        return escape(item.why), ""
    return f"{item.relative:.3g}", f"{item.largest:.3g}"
