"""What the scripts of this folder share: clips, counts of what is dropped, manifests, and files.

A line that makes no clip (too few columns, an empty text, no audio, an end before its start) is dropped and counted by its
reason; the place of the first one is shown. A file that is not what the script expects stops the script with file and line, and
no manifest is written: a guess there would make wrong labels of a whole corpus.
"""

import argparse
import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import soundfile as sf

END_TOLERANCE_S = 0.1
"""A stretch that ends later than its recording by at most this much is cut at the end of the recording."""
_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy id is it ja jw "
    "ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru sa sd si sk sl sn so sq sr su "
    "sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo yue zh"
)
WHISPER_LANGUAGES = frozenset(_CODES.split())
"""The codes of the language tokens of whisper-large-v3; older models lack yue."""
RENAMED = {"cmn": "zh", "nb": "no", "fil": "tl", "jv": "jw", "zh-hk": "yue"}
"""Names of FLEURS and Common Voice whose first part is not Whisper's code."""


class LayoutError(Exception):
    """A file or folder is not what the script expects. The message says what, where, and what to do."""


@dataclass(frozen=True)
class Clip:
    """One row of a manifest; what is None or empty is left out of the row.

    Attributes:
        id: The same on every machine, so that results do not depend on where the corpus lies.
        audio: The file, or the recording that the clip is a stretch of.
        offset_s: Start of the stretch; None for a whole file.
        duration_s: Length of the stretch, or of the file.
        channel: Channel of the recording, from 0; None for a recording of one channel.
        word_langs: One language code a word of the text, where the corpus says so.
    """

    id: str
    audio: Path
    text: str
    lang: str
    offset_s: float | None = None
    duration_s: float | None = None
    channel: int | None = None
    speaker: str = ""
    word_langs: tuple[str, ...] = ()

    def line(self) -> str:
        """Returns the row as JSON, with a line end."""
        row = {
            "id": self.id,
            "audio_filepath": os.path.abspath(self.audio),
            "offset": None if self.offset_s is None else round(self.offset_s, 4),
            "duration": None if self.duration_s is None else round(self.duration_s, 4),
            "channel": self.channel,
            "text": self.text,
            "lang": self.lang,
            "speaker": self.speaker or None,
            "word_langs": list(self.word_langs) or None,
        }
        return json.dumps({key: value for key, value in row.items() if value is not None}, ensure_ascii=False) + "\n"


@dataclass
class Dropped:
    """What became no clip: (split, reason) -> how many, and where the first one is."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    notes: dict[tuple[str, str], int] = field(default_factory=dict)
    """The same of what was kept although something is missing."""

    def note(self, split: str, what: str, where: str) -> None:
        """Counts a clip that is kept."""
        self.notes[split, what] = self.notes.get((split, what), 0) + 1
        self.first.setdefault((split, what), where)

    def add(self, split: str, reason: str, where: str) -> None:
        """Counts one. The split is "-" where none is known."""
        self.counts[split, reason] = self.counts.get((split, reason), 0) + 1
        self.first.setdefault((split, reason), where)


# Manifests


def write_manifests(out: Path, splits: Mapping[str, Sequence[Clip]], dropped: Dropped) -> None:
    """Writes OUT/<split>.jsonl of every split, each at once or not at all, and prints what was kept and dropped.

    Of clips with the same id the first is kept.

    Raises:
        LayoutError: A split has no clip; nothing is written then.
    """
    kept = {split: list(_without_repeats(split, clips, dropped)) for split, clips in splits.items()}
    print(table(kept, dropped), flush=True)
    if empty := [split for split, clips in kept.items() if not clips]:
        raise LayoutError(f"no clip for {', '.join(empty)}, nothing was written to {out}; the reasons are in the table")
    for split, clips in kept.items():
        write_atomically(out / f"{split}.jsonl", "".join(clip.line() for clip in clips).encode())


def _without_repeats(split: str, clips: Sequence[Clip], dropped: Dropped) -> Iterator[Clip]:
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            dropped.add(split, "the id of an earlier clip", clip.id)
        else:
            seen.add(clip.id)
            yield clip


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file at once; its folder is made. A file of these bytes is left as it is."""
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def table(splits: Mapping[str, Sequence[Clip]], dropped: Dropped) -> str:
    """Returns lines with clips and hours of every split, then what was dropped of each and why."""
    lines = [f"{'split':<12}{'clips':>9}{'hours':>9}{'dropped':>9}"]
    for split in [*splits, *sorted({split for split, _ in dropped.counts} - set(splits))]:
        clips = splits.get(split, ())
        hours = sum(clip.duration_s or 0 for clip in clips) / 3600
        num_dropped = sum(count for (name, _), count in dropped.counts.items() if name == split)
        lines.append(f"{split:<12}{len(clips):>9}{hours:>9.2f}{num_dropped:>9}")
        for kind, counts in (("dropped", dropped.counts), ("kept", dropped.notes)):
            for (name, reason), count in sorted(counts.items()):
                if name == split:
                    lines.append(f"    {count} {kind}: {reason}; first: {dropped.first[name, reason]}")
    return "\n".join(lines)


def draw(key: str) -> str:
    """Returns what a key is ordered by where something is drawn: the same on every machine."""
    return hashlib.sha256(key.encode()).hexdigest()


def draw_share(clips: Sequence[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    """Returns the clips without a drawn share of them, and that share (at least one clip of two), both in order."""
    size = min(max(1, round(share * len(clips))), len(clips) - 1)
    drawn = {clip.id for clip in sorted(clips, key=lambda clip: draw(clip.id))[: max(0, size)]}
    return [clip for clip in clips if clip.id not in drawn], [clip for clip in clips if clip.id in drawn]


# Files


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields ("file:line", line) without line ends; a byte-order mark is skipped.

    Raises:
        LayoutError: The file cannot be read, or is not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield f"{path}:{number}", line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise LayoutError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    except OSError as error:
        raise LayoutError(f"cannot read {path}: {error.strerror}; check the folder that you gave") from error


def read_table(
    path: Path, needed: Sequence[str], dropped: Dropped, split: str, *, quoted: bool = True
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields ("file:line", cells by column) of a table with a header: commas and quotes, or tabs and no quotes.

    A row with another number of cells than the header is dropped.

    Raises:
        LayoutError: A needed column is absent, a column is there twice, or a quote opens and does not close on its line.
    """
    rows = _quoted_rows(path) if quoted else ((where, line.split("\t")) for where, line in read_lines(path))
    _, header = next(rows, ("", []))
    if absent := [column for column in needed if column not in header]:
        raise LayoutError(f"{path}:1: no column {', '.join(absent)} in the header {header}; expected {', '.join(needed)}")
    if len(set(header)) < len(header):
        raise LayoutError(f"{path}:1: two columns of one name in the header {header}; rename one")
    for where, cells in rows:
        if cells in ([], [""]):
            continue
        if len(cells) != len(header):
            dropped.add(split, f"the row has not the {len(header)} cells of the header", where)
            continue
        yield where, dict(zip(header, cells, strict=True))


def _quoted_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    for where, line in read_lines(path):
        try:
            yield where, next(csv.reader([line], strict=True), [])
        except csv.Error as error:
            raise LayoutError(f"{where}: {error}; a quote must open and close around a cell of one line, correct it") from error


def folder(path: Path, expected: str) -> Path:
    """Returns a folder. Raises LayoutError with what is expected there if there is none."""
    if not path.is_dir():
        raise LayoutError(f"{path} is no folder; expected {expected}")
    return path


def by_stem(paths: Sequence[Path], expected: str) -> dict[str, Path]:
    """Returns files by their names without suffix. Raises LayoutError if there is none, or if two have one name."""
    found: dict[str, Path] = {}
    for path in sorted(paths):
        if path.stem in found:
            raise LayoutError(f"{path} and {found[path.stem]} have one name; take one of them out")
        found[path.stem] = path
    if not found:
        raise LayoutError(f"no {expected} found; check the folder that you gave")
    return found


def unique_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Returns files by name and by stem; a name that several files have is left out."""
    found: dict[str, set[Path]] = {}
    for path in paths:
        for name in (path.name, path.stem):
            found.setdefault(name, set()).add(path)
    return {name: next(iter(same)) for name, same in found.items() if len(same) == 1}


def whisper_language(name: str, where: str) -> str:
    """Returns Whisper's code for a name of FLEURS or Common Voice, such as cmn_hans_cn. Raises LayoutError if it has none."""
    whole = name.lower().replace("_", "-")
    first = whole.split("-")[0]
    code = RENAMED.get(whole) or RENAMED.get(first) or first
    if code not in WHISPER_LANGUAGES:
        raise LayoutError(f"{where}: Whisper has no token for the language {name!r}; leave it out")
    return code


# Audio


def length_s(path: Path) -> float | None:
    """Returns the seconds of an audio file from its header; None if it is absent, empty or unreadable."""
    try:
        info = sf.info(str(path))
    except (sf.SoundFileError, OSError):
        return None
    return info.frames / info.samplerate if info.frames else None


def is_stated_length(length: float, stated: str | float | None) -> bool:
    """Says whether a file has the seconds that a table states; also if the table states none. Another length is another file."""
    try:
        return not stated or abs(length - float(stated)) <= END_TOLERANCE_S
    except ValueError:
        return False


def end_within(start_s: float, end_s: float, length: float) -> float | None:
    """Returns the end of a stretch, cut at the end of its recording; None if the stretch is empty or ends well after that."""
    if not 0 <= start_s < min(end_s, length) or end_s > length + END_TOLERANCE_S:
        return None
    return min(end_s, length)


# Command line


def parser_of(documentation: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is the docstring of the script, with --out, the folder of the manifests."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the manifests; it is made")
    return parser


def run(prepare: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, words: Sequence[str] | None) -> None:
    """Reads the command line and prepares the corpus. Ends with 2 and a message where a file is not as expected."""
    arguments = parser.parse_args(words)
    try:
        prepare(arguments)
    except LayoutError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except OSError as error:
        parser.exit(2, f"{parser.prog}: {error}; nothing more was written\n")
