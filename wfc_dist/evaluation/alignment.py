"""The minimal alignment of two texts as stretches of equal and differing tokens, so that a page can mark the errors. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from wfc_dist.evaluation.metrics import edits

Kind = Literal["equal", "substitute", "delete", "insert"]


class Stretch(NamedTuple):
    """Neighbouring tokens of one kind.

    Attributes:
        kind: `equal`, `substitute`, `delete` or `insert`.
        said: Tokens of the reference; none of an insertion.
        written: Tokens of the hypothesis; none of a deletion. Of a substitution there are as many as of `said`.
    """

    kind: Kind
    said: tuple[str, ...]
    written: tuple[str, ...]


def align(said: Sequence[str], written: Sequence[str]) -> list[Stretch]:
    """Returns the stretches of the alignment that the error rates count (see `metrics.edits`), in the order of the reference.

    The tokens of all `said` together are the reference, those of all `written` the hypothesis.

    Args:
        said: Tokens of the reference, such as those of `metrics.TOKENIZERS`.
        written: Tokens of the hypothesis.
    """
    stretches: list[Stretch] = []
    said_place = written_place = 0

    def add(kind: Kind, num_said: int, num_written: int) -> None:
        nonlocal said_place, written_place
        if num_said or num_written:
            here, there = said[said_place : said_place + num_said], written[written_place : written_place + num_written]
            stretches.append(Stretch(kind, tuple(here), tuple(there)))
        said_place, written_place = said_place + num_said, written_place + num_written

    for kind, start, stop, num_written in edits(list(said), list(written)):
        if stop > start or num_written:
            add("equal", start - said_place, start - said_place)
            add(kind, stop - start, num_written)  # type: ignore[arg-type]
    add("equal", len(said) - said_place, len(written) - written_place)
    return stretches
