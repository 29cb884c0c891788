"""Checks every data set of a configuration before training: one pass over the rows of each split. Loads neither torch nor ray."""

import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from wfc_dist.config.datasets import SPLITS, DatasetConfig, SplitName
from wfc_dist.config.schema import Config
from wfc_dist.data import findings, leaks, signals
from wfc_dist.data.audio_files import blocks, decode, remaining_s
from wfc_dist.data.findings import AuditRow, Finding, Problem
from wfc_dist.data.label_tokens import LabelTokens
from wfc_dist.data.packing import WINDOW_S
from wfc_dist.data.recordings import Recording, Recordings
from wfc_dist.data.rows import SourceRow
from wfc_dist.data.sources import CHUNK_ROWS, Clip, Fingerprint, UniqueIds, clip_language, expected_rows, iter_rows
from wfc_dist.data.text import shown
from wfc_dist.errors import InputError

DURATION_TOLERANCE_S = 0.1
SHOWN_ERRORS = 4
FAR_MP3_S = 300.0
LEAST_MS = 60.0
"""A duration that is longer than that may be in milliseconds: no clip that is trained on has as many seconds."""

Told = Callable[[str, int, int | None], None]
"""Is told (name of the split, rows that are checked, rows that there are if that is known)."""


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


def audit(config: Config, *, deep: bool = False, show: int = 0, told: Told = lambda name, done, total: None) -> AuditReport:
    """Checks all splits of all data sets, and the test splits of the protected ones.

    The header of every audio file is read, and the first of its sound. With `deep` every clip is decoded too, which finds files
    that are damaged after an intact header. Label tokens are counted if the base's tokenizer.json is on this machine; nothing is
    downloaded.

    Args:
        config: The configuration.
        deep: Whether to decode every clip.
        show: How many transcripts of a split to keep as they were and as they are, of those that cleaning changed.
        told: Is told about the progress.
    """
    tokens = LabelTokens(config.base)
    sets = [(name, dataset, split) for name, dataset in config.datasets.items() for split in SPLITS if split in dataset.splits]
    sets += [(name, dataset, "test") for name, dataset in config.evaluate.protected.items()]
    audits = [_SplitAudit(name, dataset, split, config, tokens, deep=deep, show=show) for name, dataset, split in sets]
    with Recordings(with_signs=True) as recordings:
        for one in audits:
            recordings.use_cache_of(one.dataset.local_folder())
            one.read(recordings, told)
            recordings.use_cache_of(None)
        _tell_leaks(audits, recordings)
    return AuditReport(tuple(one.result() for one in audits))


class _SplitAudit:
    """The audit of one split: figures and findings, gathered row by row."""

    def __init__(
        self, name: str, dataset: DatasetConfig, split: SplitName, config: Config, tokens: LabelTokens, *, deep: bool, show: int
    ) -> None:
        self.name, self.dataset, self.split = name, dataset, split
        self.stretches, self.texts = leaks.Stretches(), array("q")
        self._train, self._tokens, self._deep, self._num_shown = config.train, tokens, deep, show
        self._found: dict[Finding, tuple[int, str]] = {}
        self._languages: Counter[str] = Counter()
        self._durations_s, self._num_left = array("d"), 0
        self._ids, self._fingerprint, self._is_whole = UniqueIds(), Fingerprint(), True
        self._shown: list[tuple[str, str]] = []
        self._failure = ""

    def read(self, recordings: Recordings, told: Told) -> None:
        """Checks all rows."""
        try:
            rows, total = iter_rows(self.name, self.dataset, self.split), expected_rows(self.dataset, self.split)
            while chunk := list(islice(rows, CHUNK_ROWS)):
                for row, recording in zip(chunk, recordings.of([row.audio for row in chunk]), strict=True):
                    self._add(row, recording)
                told(f"{self.name}/{self.split}", len(self._durations_s), total)
        except InputError as error:
            self._failure = str(error)

    def tell(self, finding: Finding, place: str, num_clips: int = 1) -> None:
        """Adds clips with a finding; the first place is kept."""
        count, first = self._found.get(finding, (0, place))
        self._found[finding] = (count + num_clips, first)

    def tell_clips(self, finding: Finding, clips: list[int]) -> None:
        """Adds the clips with these numbers; the place of the first is looked up in the source."""
        if clips:
            row = next(islice(iter_rows(self.name, self.dataset, self.split), clips[0], None))
            self.tell(finding, row.where, len(clips))

    def _add(self, row: SourceRow, recording: Recording | InputError) -> None:
        found = list(self._of_text(row))
        language = None
        try:
            language = clip_language(self.dataset, row)
            self._languages[language] += 1
            if not self._tokens.knows(language):
                found.append((findings.TOKEN, f"{row.where} (<|{language}|>)"))
        except InputError as error:
            found.append((findings.LANGUAGE, str(error).rpartition("; ")[0]))  # the finding says what to do
        if isinstance(recording, InputError):
            duration_s = row.duration_s or 0.0
            found.append((findings.MISSING, str(recording)))
            self.stretches.add(-1, 0.0, 0.0, None)
        else:
            there_s = remaining_s(row.audio, recording.facts)
            duration_s = there_s if row.duration_s is None else row.duration_s
            found += self._of_audio(row, recording, duration_s, there_s)
            offset_s = row.audio.offset_s
            self.stretches.add(recording.number, offset_s, offset_s + duration_s, row.audio.channel)
        found += [(finding, row.where) for finding in self._of_length(row.text, duration_s)]
        for finding, place in found:
            self.tell(finding, place)
        self._durations_s.append(duration_s)
        self._num_left += all(finding not in findings.LEAVES_OUT for finding, _ in found)
        self.texts.append(hash(normal_text(row.text)))
        if language is None or isinstance(recording, InputError):
            self._is_whole = False
        else:
            clip = Clip(self._ids(row), row.text, language, duration_s, group=row.group)
            self._fingerprint.add(clip, recording.size_bytes, row.audio.channel)

    def _of_text(self, row: SourceRow) -> Iterator[tuple[Finding, str]]:
        for kinds, table in ((row.kinds, findings.TEXTS), (row.mended, findings.MENDED)):
            for kind in kinds:
                yield table[kind], f"{row.where} ({shown(row.raw)!r})" if row.raw else row.where
        if not row.text and not row.kinds:
            yield findings.EMPTY, row.where
        if row.text != row.raw.strip() and len(self._shown) < self._num_shown:
            self._shown.append((shown(row.raw.strip(), 200), shown(row.text, 200)))
        if row.unread:
            yield findings.unread(row.unread), row.where

    def _of_audio(self, row: SourceRow, recording: Recording, duration_s: float, there_s: float) -> Iterator[tuple[Finding, str]]:
        facts, audio = recording.facts, row.audio
        if duration_s > there_s + DURATION_TOLERANCE_S or not there_s:
            whole_s = facts.frames / facts.rate_hz
            is_in_ms = duration_s > LEAST_MS and (audio.offset_s + duration_s) / 1000 <= whole_s + DURATION_TOLERANCE_S
            stated = "" if row.duration_s is None else f"{duration_s:.2f} s stated, "
            hint = f"; {facts.doubt}" if facts.doubt else "; milliseconds? set time_unit: ms" if is_in_ms else ""
            behind = f" behind {audio.offset_s:g} s" if audio.offset_s else ""
            yield findings.SHORTER, f"{row.where} ({stated}{there_s:.2f} s there{behind}{hint})"
        elif facts.doubt:
            yield findings.DOUBT, f"{row.where} ({facts.doubt})"
        if audio.channel is not None and audio.channel >= facts.channels:
            yield findings.CHANNEL, f"{row.where} (channel {audio.channel} of {facts.channels}, counted from 0)"
            return
        if audio.channel is None and facts.channels > 1 and signals.CANCELS not in recording.signs:
            yield findings.SEVERAL, f"{row.where} ({facts.channels} channels)"
        if audio.offset_s and facts.codec.startswith("MP3") and facts.frames > FAR_MP3_S * facts.rate_hz:
            yield findings.FAR_MP3, row.where
        yield from self._of_sound(row, recording)

    def _of_sound(self, row: SourceRow, recording: Recording) -> Iterator[tuple[Finding, str]]:
        signs = recording.signs
        if self._deep:
            try:
                decode(row.audio)
                signs |= signals.signs(block for _, block in blocks(row.audio))
            except InputError as error:
                yield findings.MISSING, str(error)
        if row.audio.channel is not None:
            signs -= {signals.CANCELS}
        for sign in sorted(signs):
            yield findings.SIGNS[sign], row.where

    def _of_length(self, text: str, duration_s: float) -> Iterator[Finding]:
        if self.split == "test":
            if duration_s > WINDOW_S:
                yield findings.PIECES
            return
        if duration_s > self._train.max_duration_s:
            yield findings.LONG
        if duration_s < self._train.min_duration_s:
            yield findings.SHORT
        if self._tokens.is_too_long(text):
            yield findings.TOO_MANY

    def result(self) -> AuditRow:
        """Returns the split's row of the report."""
        problems = [Problem(f.level, f.what, count, first, f.todo) for f, (count, first) in self._found.items()]
        durations = np.asarray(self._durations_s) if self._durations_s else np.zeros(1)
        if self._failure:
            problems.append(Problem("error", self._failure, 0, "", ""))
        elif not self._durations_s:
            what = f"{self.name}/{self.split}: no clips in {self.dataset.where()}; check source and splits"
            problems.append(Problem("error", what, 0, "", ""))
        elif self.split != "test" and not self._num_left:
            what = f"{self.name}/{self.split}: no clip is left to train on; see its other findings"
            problems.append(Problem("error", what, 0, "", ""))
        total_s = float(sum(self._durations_s))
        fingerprint = self._fingerprint.hexdigest() if self._is_whole and not self._failure else None
        return AuditRow(
            self.name, self.split, len(self._durations_s), total_s / 3600, float(durations.min()), total_s / len(durations),
            float(durations.max()), dict(sorted(self._languages.items())), tuple(problems), fingerprint, tuple(self._shown),
        )  # fmt: skip


def _tell_leaks(audits: list[_SplitAudit], recordings: Recordings) -> None:
    """Adds what splits share: audio that a split repeats, and audio or text of training that dev and test have, too."""
    trained = [one for one in audits if one.split == "train"]
    tested = [one for one in audits if one.split != "train"]
    dev = [one for one in audits if one.split == "dev"]
    content = leaks.contents(recordings.by_number(), _numbers([*trained, *dev]), _numbers(tested))
    tables = {one: one.stretches.table(content) for one in audits}
    for one in audits:
        one.tell_clips(findings.TWICE, leaks.repeats(tables[one]))
    for one in tested:
        for train in trained:
            is_own = train.name == one.name
            if _may_overlap(train, one):
                continue
            heard = leaks.overlaps(tables[train], tables[one])
            one.tell_clips(findings.leaked(None if is_own else train.name), heard)
            if is_own:
                read = np.isin(np.asarray(one.texts), np.asarray(train.texts))
                one.tell_clips(findings.SEEN, np.setdiff1d(np.flatnonzero(read), heard).tolist())

    for one in (one for one in tested if one.split == "test"):
        for other in (other for other in dev if not _may_overlap(other, one)):
            one.tell_clips(findings.shared_with_dev(other.name), leaks.overlaps(tables[other], tables[one]))


def _may_overlap(one: _SplitAudit, other: _SplitAudit) -> bool:
    return one.name != other.name and bool(
        {one.name, other.name} & (one.dataset.may_share_audio_with() | other.dataset.may_share_audio_with())
    )


def _numbers(audits: Iterable[_SplitAudit]) -> list[int]:
    return sorted({number for one in audits for number in one.stretches.recordings().tolist()})


class _Letters(dict[int, int | str]):
    """A table for str.translate: letters, digits and marks stay, anything else becomes a space. It fills itself."""

    def __missing__(self, code: int) -> int | str:
        char = chr(code)
        self[code] = code if char.isalnum() or unicodedata.category(char) == "Mn" else " "
        return self[code]


_LETTERS = _Letters()


def normal_text(text: str) -> str:
    """Returns the lower-cased letters and digits of a text, with one space between words, to compare sentences."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_LETTERS).lower().split())
