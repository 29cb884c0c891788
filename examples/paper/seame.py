"""Prepares SEAME, Mandarin-English conversations and interviews of Singapore and Malaysia (LDC2015S04).

    python examples/paper/seame.py --corpus LDC2015S04 --lists SEAME-dev-set --out corpora/paper/seame

Obtain: the corpus from the Linguistic Data Consortium, catalogue entry LDC2015S04, whose page has the licence; and the
lists of the test sets, the public repository zengzp0912/SEAME-dev-set.

Layout, one of two forms; other folders may lie between:
    LDC2015S04/seame_d1/data/conversation/{audio/*.flac, transcript/*.txt}   seame_d2/data/interview/{audio, transcript}
    data/{conversation,interview}/{audio/*.flac, transcript/{phaseI,phaseII}/*.txt}
    SEAME-dev-set/{train/wav_file.txt, dev_man/text, dev_sge/text}
Transcripts are UTF-8 with tabs and no header, times in milliseconds. Phase I: recording, start, end, text. Phase II:
recording, start, end, language (EN, ZH or CS), text. Where a recording has lines of both phases, those of phase II are
taken.

Writes train, dev, test_man and test_sge (the lists' dev_man and dev_sge) and test, which is both. A line is of a test set
if its start and end differ from a listed stretch by less than 0.03 s. dev is a share of the lines of train, drawn by the
hash of the id. It has the speakers of train and serves early stopping only.

Cleaning: lower case; noises such as (ppl), <ppb> and <v-noise> are deleted; full-width letters become ASCII, Latin letters
lose their accents, punctuation and symbols become spaces (an apostrophe in a word stays), control characters go; no space
between two Chinese characters. Unclear speech (<unk>, <unl>, <unk ...>): the clip is dropped from train and dev; the mark
is deleted in the test sets, so that they stay whole. Dropped: lines with another number of columns, clips of 0.01 s or
less, clips with another mark in < >. Times that are no numbers stop the script.

Not verified (written without the disc): whether the first form has a folder for each phase (the number of columns decides
there), and whether the speaker is always the five letters before the session (NI01M of NI01MAX, NC01F of 01NC01FBX).
"""

import argparse
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from manifests import (
    Clip,
    Dropped,
    LayoutError,
    by_stem,
    draw_share,
    end_within,
    folder,
    length_s,
    parser_of,
    read_lines,
    run,
    write_manifests,
)
from texts import marks_to, one_spaced, plain

LANGUAGES = ("EN", "ZH", "CS")
TOLERANCE = 3
"""Hundredths of a second by which a listed stretch and a line differ less."""
NOISE = re.compile(r"\(\s*pp\w+\s*\)|<\s*pp\w+\s*>|<\s*v-noise\s*>|\bpp[lbco]\b")
UNCLEAR = re.compile(r"<\s*un[kl]\b[^<>]*>")
MIN_S = 0.01


@dataclass(frozen=True)
class Line:
    """A line of a transcript. `phase` is 1 or 2; times are milliseconds."""

    recording: str
    start_ms: float
    end_ms: float
    text: str
    phase: int
    where: str

    @property
    def speaker(self) -> str:
        """The speaker's five letters, such as ni01m."""
        return self.recording.lstrip("0123456789")[:5]

    @property
    def id(self) -> str:
        """The recording and the times."""
        return f"{self.recording}-{self.start_ms:07.0f}-{self.end_ms:07.0f}"


def clean(text: str) -> str:
    """Returns the text by the rule above; marks of unclear speech are deleted. Another mark in < > stays."""
    text = UNCLEAR.sub(" ", NOISE.sub(" ", plain(text).lower()))
    if "<" in text or ">" in text:
        return " ".join(text.split())
    letters = unicodedata.normalize("NFD", text)
    letters = re.sub(r"(?<=[a-z])[\u0300-\u036f]+", "", letters)
    return one_spaced(marks_to(unicodedata.normalize("NFC", letters), " "))


def read_transcript(path: Path, phase: int | None, dropped: Dropped) -> Iterator[Line]:
    """Yields the lines of a transcript; the number of columns decides the phase where no folder does."""
    for where, line in read_lines(path):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        its = phase or (2 if len(cells) > 4 and cells[3].upper() in LANGUAGES else 1)
        while len(cells) > 3 + its and not cells[-1]:  # tabs at the end of the line
            cells.pop()
        if len(cells) != 3 + its:
            dropped.add("-", f"the line has not the {3 + its} columns of its phase", where)
            continue
        try:
            start_ms, end_ms = float(cells[1]), float(cells[2])
        except ValueError as error:
            raise LayoutError(f"{where}: {cells[1]!r} and {cells[2]!r} are no times; expected milliseconds") from error
        yield Line(cells[0].lower(), start_ms, end_ms, cells[-1], its, where)


def read_corpus(corpus: Path, dropped: Dropped) -> list[Line]:
    """Returns the lines of all transcripts, those of phase I only for recordings that phase II lacks; by recording and time."""
    paths = sorted(path for path in corpus.rglob("*.txt") if "transcript" in _folders(path, corpus))
    if not paths:
        raise LayoutError(f"no transcript/**/*.txt in {corpus}; expected one of the two forms that --help shows")
    lines: list[Line] = []
    for path in paths:
        phase = {"phasei": 1, "phaseii": 2}.get(path.parent.name.lower())
        lines += read_transcript(path, phase, dropped)
    newer = {line.recording for line in lines if line.phase == 2}
    for line in lines:
        if line.phase == 1 and line.recording in newer:
            dropped.add("-", "phase I of a recording that phase II has", line.where)
    kept = [line for line in lines if line.phase == 2 or line.recording not in newer]
    return sorted(kept, key=lambda line: (line.recording, line.start_ms, line.end_ms))


def _folders(path: Path, below: Path) -> list[str]:
    return [part.lower() for part in path.relative_to(below).parts[:-1]]


def read_train_list(path: Path) -> set[str]:
    """Returns the recordings to train on: of every path the last folder."""
    found = set()
    for where, line in read_lines(path):
        if line.strip():
            parts = line.strip().split("/")
            if len(parts) < 2:
                raise LayoutError(f"{where}: {line!r} is no path; expected .../recording/file")
            found.add(parts[-2].lower())
    return found


def read_test_list(path: Path) -> dict[str, list[tuple[int, int]]]:
    """Returns recording -> (start, end) of a test set, in hundredths of a second."""
    found: dict[str, list[tuple[int, int]]] = {}
    for where, line in read_lines(path):
        if not line.strip():
            continue
        name = re.fullmatch(r"[^-]+-([^-]+)-(\d+)-(\d+)", line.split()[0])
        if not name:
            raise LayoutError(f"{where}: {line.split()[0]!r}; expected speaker-recording-start-end, times in 1/100 s")
        found.setdefault(name[1].lower(), []).append((int(name[2]), int(name[3])))
    return found


def assign(lines: Sequence[Line], lists: Path, dropped: Dropped) -> dict[str, list[Line]]:
    """Returns the lines of train and of the two test sets."""
    train = read_train_list(lists / "train" / "wav_file.txt")
    tests = {name: read_test_list(lists / f"dev_{name.removeprefix('test_')}" / "text") for name in ("test_man", "test_sge")}
    found: dict[str, list[Line]] = {"train": [], "test_man": [], "test_sge": []}
    rest = []
    for line in lines:
        match = next(((name, near) for name, listed in tests.items() if (near := _listed(line, listed))), None)
        if match is None:
            rest.append(line)
            continue
        name, stretch = match
        tests[name][line.recording].remove(stretch)
        found[name].append(line)
    for name, listed in tests.items():
        for recording, start, end in ((key, *times) for key, left in sorted(listed.items()) for times in left):
            dropped.add(name, "a listed stretch that no line has", f"{recording} at {start / 100:.2f} to {end / 100:.2f} s")
    tested = {line.speaker for name in tests for line in found[name]}
    for line in rest:
        if line.recording not in train:
            dropped.add("-", "the recording is in no list of train, the stretch in none of a test set", line.where)
        elif line.speaker in tested:
            dropped.add("train", "a speaker of a test set", line.where)
        else:
            found["train"].append(line)
    return found


def _listed(line: Line, listed: dict[str, list[tuple[int, int]]]) -> tuple[int, int] | None:
    """Returns the nearest listed stretch within the tolerance."""
    times = (round(line.start_ms / 10), round(line.end_ms / 10))
    near = [(abs(start - times[0]) + abs(end - times[1]), (start, end)) for start, end in listed.get(line.recording, ())
            if abs(start - times[0]) < TOLERANCE and abs(end - times[1]) < TOLERANCE]  # fmt: skip
    return min(near)[1] if near else None


def clips(lines: Sequence[Line], split: str, audio: dict[str, tuple[Path, float]], dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of a split."""
    for line in lines:
        text = clean(line.text)
        if line.recording not in audio:
            dropped.add(split, "no readable recording", line.where)
            continue
        path, length = audio[line.recording]
        end_s = end_within(line.start_ms / 1000, line.end_ms / 1000, length)
        if end_s is None or end_s - line.start_ms / 1000 <= MIN_S:
            dropped.add(split, "the stretch is empty, 0.01 s or less, or not in the recording", line.where)
        elif split == "train" and UNCLEAR.search(plain(line.text).lower()):
            dropped.add(split, "unclear speech", line.where)
        elif "<" in text or ">" in text:
            dropped.add(split, "a mark that the rule does not know", f"{line.where}: {line.text}")
        elif not text:
            dropped.add(split, "the text is empty after cleaning", line.where)
        else:
            start_s = line.start_ms / 1000
            yield Clip(line.id, path, text, "zh", start_s, end_s - start_s, speaker=line.speaker)


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests."""
    dropped = Dropped()
    corpus = folder(arguments.corpus, "the corpus, LDC2015S04")
    lists = folder(arguments.lists, "the lists, SEAME-dev-set")
    found = assign(read_corpus(corpus, dropped), lists, dropped)
    paths = by_stem([path for path in corpus.rglob("*.flac") if "audio" in _folders(path, corpus)], "audio/**/*.flac")
    needed = {line.recording for lines in found.values() for line in lines}
    lengths = {stem.lower(): (path, length_s(path)) for stem, path in paths.items() if stem.lower() in needed}
    audio = {stem: (path, length) for stem, (path, length) in lengths.items() if length}
    splits = {name: list(clips(lines, name, audio, dropped)) for name, lines in found.items()}
    train, dev = draw_share(splits["train"], arguments.dev_share)
    both = sorted([*splits["test_man"], *splits["test_sge"]], key=lambda clip: clip.id)
    tests = {name: splits[name] for name in ("test_man", "test_sge")}
    write_manifests(arguments.out, {"train": train, "dev": dev, "test": both, **tests}, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="LDC2015S04, or the folder of conversation and interview")
    parser.add_argument("--lists", type=Path, required=True, help="SEAME-dev-set")
    parser.add_argument("--dev-share", type=float, default=0.05, help="share of train for dev; default 0.05")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
