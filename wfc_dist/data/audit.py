"""Checks every data set of a configuration before training. Loads neither torch nor ray."""

import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wfc_dist.config.datasets import SPLITS, DatasetConfig, SplitName
from wfc_dist.config.schema import BaseModelConfig, Config
from wfc_dist.data.audio_files import decode, true_duration_s
from wfc_dist.data.packing import MAX_LABEL_TOKENS, MAX_TEXT_TOKENS, WINDOW_S
from wfc_dist.data.rows import SourceRow
from wfc_dist.data.sources import clip_language, read_rows
from wfc_dist.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DURATION_TOLERANCE_S = 0.1
SHOWN_ERRORS = 4


@dataclass(frozen=True)
class Problem:
    """A problem of `num_clips` clips of a split (0: of the split itself). An error stops the run, a warning does not."""

    level: Literal["error", "warning"]
    what: str
    num_clips: int
    first: str
    todo: str


@dataclass(frozen=True)
class AuditRow:
    """One split of one data set: counts, durations in seconds, clips per language, problems."""

    name: str
    split: SplitName
    num_clips: int
    hours: float
    min_s: float
    mean_s: float
    max_s: float
    languages: dict[str, int]
    problems: tuple[Problem, ...]

    def lines(self, level: Literal["error", "warning"]) -> list[str]:
        """Returns one line a problem, such as "3 of 120 clips of es/train: audio is missing, first: ...; correct ..."."""
        clips = f"of {self.num_clips} clips of {self.name}/{self.split}"
        return [
            f"{p.num_clips} {clips}: {p.what}, first: {p.first}; {p.todo}" if p.num_clips else p.what
            for p in self.problems
            if p.level == level
        ]


@dataclass(frozen=True)
class AuditReport:
    """The problems of all splits, in the configuration's order."""

    rows: tuple[AuditRow, ...]

    @property
    def errors(self) -> list[str]:
        """One line per error."""
        return [line for row in self.rows for line in row.lines("error")]

    @property
    def warnings(self) -> list[str]:
        """One line per warning."""
        return [line for row in self.rows for line in row.lines("warning")]

    def raise_for_errors(self) -> None:
        """Raises InputError with the first few errors of every data set, if there is any."""
        lines = []
        for name in dict.fromkeys(row.name for row in self.rows):
            errors = [line for row in self.rows if row.name == name for line in row.lines("error")]
            lines += errors[:SHOWN_ERRORS]
            if len(errors) > SHOWN_ERRORS:
                lines.append(f"{name}: {len(errors) - SHOWN_ERRORS} more kinds of error")
        if lines:
            raise InputError("the data has errors, nothing was started:\n  " + "\n  ".join(lines))


@dataclass(frozen=True)
class _Finding:
    level: Literal["error", "warning"]
    what: str
    todo: str


_MISSING = _Finding("error", "audio is missing or unreadable", "correct the manifest or put the files there")
_SHORTER = _Finding("error", "audio ends before the stated duration", "correct duration (and offset)")
_EMPTY = _Finding("error", "the text is empty", "write it, or take the rows out")
_LANGUAGE = _Finding("error", "no language, or none that Whisper knows", "set language: for the data set, or lang in every row")
_LONG = _Finding("warning", "longer than train.max_duration_s, left out", f"cut them, or raise the limit (at most {WINDOW_S})")
_SHORT = _Finding("warning", "shorter than train.min_duration_s, left out", "nothing to do unless there are many")
_PIECES = _Finding("warning", f"longer than {WINDOW_S} s, decoded in pieces", "cut them where nobody speaks")
_TOKENS = _Finding("warning", f"more than {MAX_LABEL_TOKENS} label tokens, left out", "cut them into shorter clips")
_TWICE = _Finding("warning", "the same audio as an earlier clip", "take the rows out, they weigh double")
_LEAKED = _Finding("error", "the same audio as a training clip", "take them out of one of the two splits")
_SEEN = _Finding("warning", "the same text as a training clip", "scores on them are too good; split by text")
_LEAVES_OUT = frozenset({_LONG, _SHORT, _TOKENS, _EMPTY})


def audit(config: Config, *, deep: bool = False) -> AuditReport:
    """Checks all splits of all data sets, and the test splits of the protected ones.

    The header of every audio file is read. With `deep` every clip is decoded too, which finds files that are damaged after an
    intact header. Label tokens are counted if the base's tokenizer.json is on this machine; nothing is downloaded.
    """
    checker = _RowChecker(config, deep=deep)
    rows = []
    for name, dataset in config.datasets.items():
        seen = _Seen(set(), set())
        for split in (split for split in SPLITS if split in dataset.splits):
            rows.append(_audit_split(name, dataset, split, seen, checker))
    for name, dataset in config.evaluate.protected.items():
        rows.append(_audit_split(name, dataset, "test", _Seen(set(), set()), checker))
    return AuditReport(tuple(rows))


@dataclass
class _Seen:
    """Audio and texts of the training split, which dev and test must not contain."""

    audio: set[Hashable]
    texts: set[str]


@dataclass(frozen=True)
class _CheckedRow:
    duration_s: float
    language: str | None
    findings: list[tuple[_Finding, str]]


@dataclass
class _TokenCounter:
    """Counts label tokens with the base's tokenizer, read when the first text comes that is long enough to matter."""

    base: BaseModelConfig

    @cached_property
    def _tokenizer(self) -> "Tokenizer | None":
        from tokenizers import Tokenizer

        path = self._tokenizer_file()
        try:
            return Tokenizer.from_file(str(path)) if path and path.is_file() else None
        except Exception as error:  # tokenizers raises nothing narrower
            raise InputError(f"{path} is no tokenizer: {error}; fetch the base again") from error

    def _tokenizer_file(self) -> Path | None:
        if Path(self.base.model).is_dir():
            return Path(self.base.model, "tokenizer.json")
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            path = try_to_load_from_cache(self.base.model, "tokenizer.json", revision=self.base.revision)
        except HFValidationError:  # the error comes when the run is opened
            return None
        return Path(path) if isinstance(path, str) else None

    def is_too_long(self, text: str) -> bool:
        """Says whether a text has more tokens than the decoder has positions for text."""
        labels = f" {text}"
        if len(labels.encode()) <= MAX_TEXT_TOKENS or self._tokenizer is None:  # a token has at least one byte
            return False
        return len(self._tokenizer.encode(labels, add_special_tokens=False).ids) > MAX_TEXT_TOKENS


class _RowChecker:
    """Checks single rows; see `audit`."""

    def __init__(self, config: Config, *, deep: bool) -> None:
        self._train, self._tokens, self._deep = config.train, _TokenCounter(config.base), deep

    def check(self, dataset: DatasetConfig, split: SplitName, row: SourceRow) -> _CheckedRow:
        """Returns the duration and language of a row, and what is wrong with it."""
        duration_s, findings = self._check_audio(row)
        language = None
        try:
            language = clip_language(dataset, row)
        except InputError as error:
            findings.append((_LANGUAGE, str(error)))
        if not row.text:
            findings.append((_EMPTY, row.where))
        findings += [(finding, row.where) for finding in self._check_length(split, row.text, duration_s)]
        return _CheckedRow(duration_s, language, findings)

    def _check_audio(self, row: SourceRow) -> tuple[float, list[tuple[_Finding, str]]]:
        try:
            there_s = true_duration_s(row.audio)
            if self._deep:
                decode(row.audio)
        except InputError as error:
            return row.duration_s or 0.0, [(_MISSING, str(error))]
        stated_s = there_s if row.duration_s is None else row.duration_s
        if stated_s > there_s + DURATION_TOLERANCE_S or not there_s:
            return stated_s, [(_SHORTER, f"{row.where} ({stated_s:.2f} s stated, {there_s:.2f} s there)")]
        return stated_s, []

    def _check_length(self, split: SplitName, text: str, duration_s: float) -> Iterator[_Finding]:
        if split == "test":
            if duration_s > WINDOW_S:
                yield _PIECES
            return
        if duration_s > self._train.max_duration_s:
            yield _LONG
        if duration_s < self._train.min_duration_s:
            yield _SHORT
        if self._tokens.is_too_long(text):
            yield _TOKENS


def _audit_split(name: str, dataset: DatasetConfig, split: SplitName, seen: _Seen, checker: _RowChecker) -> AuditRow:
    try:
        rows = read_rows(name, dataset, split)
    except InputError as error:
        return _summary(name, split, [], (Problem("error", str(error), 0, "", ""),))
    if not rows:
        empty = Problem("error", f"{name}/{split}: no clips in {dataset.where()}; check source and splits", 0, "", "")
        return _summary(name, split, [], (empty,))
    checked = [checker.check(dataset, split, row) for row in rows]
    places: dict[_Finding, list[str]] = {}
    for finding, place in [*chain.from_iterable(row.findings for row in checked), *_repeats(rows, split, seen)]:
        places.setdefault(finding, []).append(place)
    problems = [Problem(f.level, f.what, len(where), where[0], f.todo) for f, where in places.items()]
    if split != "test" and all(any(finding in _LEAVES_OUT for finding, _ in row.findings) for row in checked):
        problems.append(Problem("error", f"{name}/{split}: no clip is left to train on; see its other findings", 0, "", ""))
    return _summary(name, split, checked, tuple(problems))


def _summary(name: str, split: SplitName, checked: Sequence[_CheckedRow], problems: tuple[Problem, ...]) -> AuditRow:
    durations = [row.duration_s for row in checked] or [0.0]
    languages = Counter(row.language for row in checked if row.language)
    total_s = sum(durations)
    return AuditRow(
        name, split, len(checked), total_s / 3600, min(durations), total_s / len(durations), max(durations),
        dict(sorted(languages.items())), problems,
    )  # fmt: skip


def _repeats(rows: Sequence[SourceRow], split: SplitName, seen: _Seen) -> Iterator[tuple[_Finding, str]]:
    """Yields audio that the split repeats, and audio or text that is in the training split too. Fills `seen` from train."""
    here: set[Hashable] = set()
    for row in rows:
        key, text = (row.audio.recording, row.audio.offset_s, row.audio.channel), normal_text(row.text)
        if key in here:
            yield _TWICE, row.where
        here.add(key)
        if split == "train":
            seen.audio.add(key)
            seen.texts.add(text)
        elif key in seen.audio:
            yield _LEAKED, row.where
        elif text in seen.texts:
            yield _SEEN, row.where


def normal_text(text: str) -> str:
    """Returns the lower-cased letters and digits of a text, with one space between words, to compare sentences."""
    composed = unicodedata.normalize("NFC", text)
    letters = (char if char.isalnum() or unicodedata.category(char) == "Mn" else " " for char in composed)
    return " ".join("".join(letters).lower().split())
