"""Aligns what was said with what a model wrote, token by token, with the errors that are counted. Pure: texts in, pieces out."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wfc_dist.evaluation.alignment import align as align_tokens
from wfc_dist.evaluation.hallucinations import invented_loops
from wfc_dist.evaluation.metrics import TOKENIZERS

EQUAL, SUBSTITUTION, DELETION, INSERTION, LOOP = KINDS = ("equal", "substitution", "deletion", "insertion", "loop")
_SHOWN_LOOP = 2  # times that a loop is written out
_KIND_OF = {"equal": EQUAL, "substitute": SUBSTITUTION, "delete": DELETION, "insert": INSERTION}


@dataclass(frozen=True)
class Piece:
    """A token, or a run of tokens of one kind.

    Attributes:
        kind: One of KINDS; a loop is an insertion inside a phrase that the model repeats and the reference does not.
        said: The reference; "" of an insertion or a loop.
        written: The text of the model; "" of a deletion.
        left_out: Tokens of a loop that are not written out here.
    """

    kind: str
    said: str = ""
    written: str = ""
    left_out: int = 0


def align(said: str, written: str, metric: str) -> list[Piece]:
    """Returns the pieces of a minimal alignment; both texts are normalised.

    The substitutions, deletions and insertions (those of loops included) are as many as `metrics.count` counts in a window.

    Args:
        said: The reference.
        written: The text of the model.
        metric: `wer`, `cer` or `mer`: what a token is.
    """
    tokenize = TOKENIZERS[metric]
    references, texts = tokenize(said), tokenize(written)
    pieces = list(_pieces(references, texts, _in_loops(references, texts)))
    return list(_joined(pieces)) if metric == "cer" else list(_shortened(pieces))


def num_errors(pieces: Sequence[Piece], kind: str) -> int:
    """Returns how many tokens are errors of a kind; a loop counts as insertions only."""
    kinds = (INSERTION, LOOP) if kind == INSERTION else (kind,)
    return sum(max(1, piece.left_out) for piece in pieces if piece.kind in kinds)


def _in_loops(said: Sequence[str], written: Sequence[str]) -> set[int]:
    """Returns the places of written tokens that are part of a loop of `written` that is none of `said`."""
    places: set[int] = set()
    for ngram, times in invented_loops(said, written):
        size = len(ngram) * times
        for start in range(len(written) - size + 1):
            if tuple(written[start : start + size]) == ngram * times:
                places.update(range(start, start + size))
    return places


def _pieces(said: list[str], written: list[str], loops: set[int]) -> Iterator[Piece]:
    place = 0
    for stretch in align_tokens(said, written):
        for token, new in itertools.zip_longest(stretch.said, stretch.written, fillvalue=""):
            is_loop = stretch.kind == "insert" and place in loops
            yield Piece(LOOP if is_loop else _KIND_OF[stretch.kind], token, new)
            place += stretch.kind != "delete"


def _shortened(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yields the pieces with long runs of a loop cut short."""
    for kind, run in itertools.groupby(pieces, key=lambda piece: piece.kind):
        of_run = list(run)
        period = _period([piece.written for piece in of_run]) if kind == LOOP else 0
        shown = _SHOWN_LOOP * period
        if period and len(of_run) > shown + period:
            yield from of_run[:shown]
            yield Piece(LOOP, left_out=len(of_run) - shown)
        else:
            yield from of_run


def _period(tokens: Sequence[str]) -> int:
    """Returns after how many tokens a loop repeats itself."""
    return next((n for n in range(1, len(tokens)) if list(tokens[n:]) == list(tokens[:-n])), len(tokens))


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yields the pieces of characters with equal neighbours of one kind joined, so that words can be read."""
    for kind, run in itertools.groupby(pieces, key=lambda piece: piece.kind):
        of_run = list(run)
        if kind == EQUAL:
            text = "".join(piece.said for piece in of_run)
            yield Piece(EQUAL, text, text)
        else:
            yield from of_run
