"""The chapter of a run's report on its worst utterances: what was said and what the last base wrote, aligned, with audio."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.evaluation.hypotheses import Hypothesis, normalized
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix
from wfc_dist.evaluation.rates import RateReader
from wfc_dist.reports.alignment import DELETION, INSERTION, LOOP, SUBSTITUTION, Piece, align, num_errors
from wfc_dist.reports.clips import ClipPlayer, Sound
from wfc_dist.reports.pieces import Part, Section, Utterance
from wfc_dist.reports.tables import set_title

EACH = 3
"""Utterances of every set, unless audio is asked for of more."""
_AT_MOST = 60
_UNITS = {"wer": "words", "cer": "characters", "mer": "tokens"}
_INTRO = (
    "For every test set the utterances in which {model} makes most errors, after normalisation as for the score. The upper line "
    "is what was said, the lower line is what the model wrote."
)


@dataclass(frozen=True)
class _Window:
    """What a model wrote for one window, and how many errors that is."""

    hypothesis: Hypothesis
    num_errors: int
    num_tokens: int


def utterances_section(matrix: ScoreMatrix, reader: RateReader, audio: int = 0) -> Section:
    """Returns the chapter, from the hypotheses on disk.

    Args:
        matrix: Of the run.
        reader: Reads what models wrote.
        audio: Of so many utterances a set the audio becomes part of the page; 0 leaves audio out.

    Raises:
        InputError, IntegrityError: Hypotheses of another schema or damaged ones.
    """
    if matrix.last not in matrix.bases:
        return Section(parts=[Part(note="No model has been scored yet.")])
    return _Chapter(matrix, reader, audio).section()


class _Chapter:
    """Collects the utterances of all sets; their audio as far as it is asked for and fits."""

    def __init__(self, matrix: ScoreMatrix, reader: RateReader, audio: int) -> None:
        self._matrix, self._reader, self._num_audio = matrix, reader, audio
        self._model, self._root = matrix.bases[matrix.last], matrix.bases.get(0) if matrix.last else None
        self._player = ClipPlayer(matrix.config)

    def section(self) -> Section:
        parts, num_left = [], _AT_MOST
        for name in [*self._matrix.own, *self._matrix.protected]:
            wrong = [window for window in self._windows(self._model, name) if window.num_errors]
            worst = sorted(wrong, key=lambda window: (-window.num_errors, window.num_tokens, window.hypothesis.id))
            shown = worst[: min(max(EACH, self._num_audio), num_left)]
            num_left -= len(shown)
            if shown:
                parts.append(Part(set_title(self._matrix.config, name), utterances=self._utterances(name, shown)))
        if not parts:
            return Section(parts=[Part(note=f"{self._model.title} makes no error, or its hypotheses are not on disk.")])
        notes = [Part(note=self._player.summary())] if self._num_audio else []
        if not num_left:
            notes.append(Part(note=f"the first {_AT_MOST} utterances; further ones are left out"))
        return Section(_INTRO.format(model=self._model.title), [*notes, Part(has_legend=True), *parts])

    def _windows(self, model: ScoredModel | None, name: str) -> list[_Window]:
        if model is None or name not in model.scores or not model.hypotheses(name).is_file():
            return []
        hypotheses, counts = self._reader.texts(model, name)
        ends = np.cumsum([len(window.parts) for window in hypotheses]).tolist()
        return [
            _Window(window, int(counts.errors[start:end].sum()), int(counts.lengths[start:end].sum()))
            for window, start, end in zip(hypotheses, [0, *ends], ends, strict=False)
        ]

    def _utterances(self, name: str, shown: Sequence[_Window]) -> list[Utterance]:
        evaluate = self._matrix.config.evaluate.of(self._matrix.config.test_sets()[name])
        spelling = self._reader.spelling(self._model.run_dir)
        before = {(window.hypothesis.id, window.hypothesis.parts): window for window in self._windows(self._root, name)}
        made = []
        for place, window in enumerate(shown):
            hypothesis, pieces = window.hypothesis, _aligned(window, evaluate, spelling)
            earlier = before.get((hypothesis.id, hypothesis.parts))
            sound = self._player.clip(name, hypothesis) if place < self._num_audio else Sound()
            made.append(
                Utterance(
                    title=hypothesis.id, about=_about(window, pieces, evaluate.metric), language=hypothesis.language,
                    pieces=pieces, earlier=_aligned(earlier, evaluate, spelling) if earlier else [],
                    about_earlier=f"base 0 makes {_count(earlier.num_errors)} here" if earlier else "",
                    is_characters=evaluate.metric == "cer", audio=sound.uri, audio_note=sound.note,
                )
            )  # fmt: skip
        return made


def _aligned(window: _Window, evaluate: EvaluateConfig, spelling: dict[str, str]) -> list[Piece]:
    (clips,), (text,) = normalized([window.hypothesis], evaluate.normalizer, spelling)
    return align(" ".join(clip for clip in clips if clip.split()), text, evaluate.metric)


def _count(number: int) -> str:
    return f"{number} error{'s' * (number != 1)}" if number else "no error"


def _about(window: _Window, pieces: Sequence[Piece], metric: str) -> str:
    kinds = [(SUBSTITUTION, "substituted"), (DELETION, "missed"), (INSERTION, "added")]
    counts = [(num_errors(pieces, kind), words) for kind, words in kinds]
    said = ", ".join(f"{number} {words}" for number, words in counts if number)
    loops = num_errors(pieces, LOOP)
    looped = f" ({loops} in a loop)" if loops else ""
    clips = f"{len(window.hypothesis.parts)} clips, " if len(window.hypothesis.parts) > 1 else ""
    of = f"{_count(window.num_errors)} in {window.num_tokens} {_UNITS[metric]}"
    return f"{clips}{window.hypothesis.duration_s:.1f} s; {of}: {said}{looped}"
