"""What an audit can find in a split: each kind with its level, its words, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wfc_dist.config.datasets import SplitName
from wfc_dist.data import signals
from wfc_dist.data.packing import MAX_LABEL_TOKENS, WINDOW_S
from wfc_dist.data.text_kinds import KINDS

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A kind of fault: an error stops the run, a warning does not."""

    level: Level
    what: str
    todo: str


@dataclass(frozen=True)
class Problem:
    """A finding in `num_clips` clips of a split (0: in the split itself), with the first place."""

    level: Level
    what: str
    num_clips: int
    first: str
    todo: str


@dataclass(frozen=True)
class AuditRow:
    """One split of one data set: counts, durations in seconds, clips per language, problems.

    `fingerprint` is that of `sources.Fingerprint`; None where a clip cannot be read. `shown` are the first transcripts that
    cleaning changed, before and after.
    """

    name: str
    split: SplitName
    num_clips: int
    hours: float
    min_s: float
    mean_s: float
    max_s: float
    languages: Mapping[str, int]
    problems: tuple[Problem, ...]
    fingerprint: str | None = None
    shown: tuple[tuple[str, str], ...] = ()

    def lines(self, level: Level) -> list[str]:
        """Returns one line a problem, such as "3 of 120 clips of es/train: audio is missing, first: ...; correct ..."."""
        clips = f"of {self.num_clips} clips of {self.name}/{self.split}"
        return [
            f"{p.num_clips} {clips}: {p.what}, first: {p.first}; {p.todo}" if p.num_clips else p.what
            for p in self.problems
            if p.level == level
        ]


MISSING = Finding("error", "audio is missing or unreadable", "correct the manifest or put the files there")
SHORTER = Finding("error", "audio ends before the stated duration", "correct duration (and offset)")
CHANNEL = Finding("error", "audio has no such channel", "correct channel, which counts from 0")
EMPTY = Finding("error", "the text is empty", "write it, or take the rows out")
LANGUAGE = Finding(
    "error", "no language, or none that Whisper knows",
    "set language: for the data set, or lang in every row, to a code such as en or es")  # fmt: skip
TOKEN = Finding("error", "the base's tokenizer has no token of the language", "use a base that knows it, or set language:")
LONG = Finding("warning", "longer than train.max_duration_s, left out", f"cut them, or raise the limit (at most {WINDOW_S})")
SHORT = Finding("warning", "shorter than train.min_duration_s, left out", "nothing to do unless there are many")
PIECES = Finding("warning", f"longer than {WINDOW_S} s, decoded in pieces", "cut them where nobody speaks")
TOO_MANY = Finding("warning", f"more than {MAX_LABEL_TOKENS} label tokens, left out", "cut them into shorter clips")
TWICE = Finding("warning", "the same audio as an earlier clip", "take the rows out, they weigh double")
SEEN = Finding("warning", "the same text as a training clip", "scores on them are too good; split by text")
DOUBT = Finding("warning", "the header does not fit the file", "look at the file, and write it anew if audio is missing")
SEVERAL = Finding(
    "warning", "audio has several channels and the row names none, so that their mean is read",
    "name the speaker's channel (column channel, from 0) where each has one")  # fmt: skip
FAR_MP3 = Finding(
    "warning", "a stretch of a long mp3, of which every reading decodes all before it", "convert the files to flac or wav"
)
LEAVES_OUT = frozenset({LONG, SHORT, TOO_MANY, EMPTY})
SIGNS = {
    signals.NOT_FINITE: Finding("error", "samples are NaN or infinite", "write the files anew, or take their rows out"),
    signals.SCALE: Finding(
        "error", "float samples are far beyond -1..1, such as integers that were stored as floats", "divide them by 32768"),
    signals.CANCELS: Finding(
        "warning", "the channels cancel each other, so that their mean is nearly silence", "name one channel (column channel)"),
    signals.SILENT: Finding("warning", "the audio is digital silence", "look at the files, or take the rows out"),
    signals.CLIPPED: Finding("warning", "the audio is clipped", "nothing to do unless there are many"),
}  # fmt: skip
TEXTS = {name: Finding(kind.level, kind.what, kind.todo) for name, kind in KINDS.items()}
MENDED = {name: Finding("warning", kind.what, "nothing to do: cleaning removes it") for name, kind in KINDS.items()}


def leaked(train: str | None) -> Finding:
    """Returns the finding of test audio that a training split has: that of the same set (None), or of the set `train`."""
    if train is None:
        return Finding("error", "the same audio as a training clip, or an overlap", "take them out of one of the two splits")
    todo = f"take them out of one of the two, or name the set in datasets.{train}.allow_overlap"
    return Finding("error", f"the same audio as a training clip of {train}, or an overlap", todo)


def shared_with_dev(dev: str) -> Finding:
    """Returns the finding of test audio that the dev split of the set `dev` has."""
    todo = "take them out of one of the two: the dev split decides when training stops"
    return Finding("warning", f"the same audio as a dev clip of {dev}, or an overlap", todo)


def unread(columns: tuple[str, ...]) -> Finding:
    """Returns the finding of columns that look as if they mattered and are not read."""
    named = ", ".join(columns)
    return Finding("warning", f"not read: {named}", "name what is to be read in columns:, and null for what is not what it seems")
