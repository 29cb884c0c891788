"""Prepares ArzEn, Egyptian Arabic-English interviews, 12 h, 6216 utterances.

    python examples/paper/arzen.py --audio ArzEn/wavs --table ArzEn/transcripts.tsv --out corpora/paper/arzen
    python examples/paper/arzen.py --parquet arzen-llm-speech-ds --out corpora/paper/arzen

Obtain: the corpus on request from its authors (Hamed et al., LREC 2020), whose form has the licence; the lists of the
splits come with ArzEn-ST. Or the hub's copy ahmedheakl/arzen-llm-speech-ds, which has no speakers and no official splits.

Layout, one of two:
    --audio FOLDER --table FILE   audio files at any depth, each with a name of its own, and a table with a header: tabs, or
                                  commas where the name ends in .csv. Columns: file (the name with or without suffix) and
                                  text; speaker, start and end (seconds) if there.
                                  --file-column and the like name others.
    --parquet FOLDER              **/*.parquet, one split, columns audio and sentence. The audio is written to OUT/audio.
Writes train, dev and test: by --test-list and --dev-list (one file name or row id a line, the rest is train), or by share:
whole speakers where the table has them, otherwise whole sentences, drawn by hash, so that no speaker, or no sentence, is on
two sides.

Cleaning: Arabic diacritics and tatweel go; what stands in [ ], ( ) or < > goes, hesitations and the like; a + between a
clitic and its word goes, so that they are one word (--plus space keeps them apart); control characters go. Case and
punctuation stay. Dropped: rows without text, without readable audio, with another number of cells than the header, or with
an empty stretch.

Not verified: the official layout is in no public recipe; whether a clitic is joined by +, and the sizes of the official
splits.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cells import read_rows, save_audio
from manifests import (
    Clip,
    Dropped,
    LayoutError,
    draw,
    end_within,
    folder,
    length_s,
    parser_of,
    read_lines,
    read_table,
    run,
    unique_names,
    write_manifests,
)
from texts import one_spaced, plain, without_arabic_marks

SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph"})
BRACKETED = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|<[^<>]*>")


def clean(text: str, plus: str) -> str:
    """Returns the text by the rule above."""
    text = BRACKETED.sub(" ", without_arabic_marks(plain(text)))
    return one_spaced(re.sub(r"\s*\+\s*", plus, text))


def from_table(arguments: argparse.Namespace, dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of a folder of audio and its table."""
    paths = folder(arguments.audio, "the audio files").rglob("*")
    audio = unique_names([path for path in paths if path.suffix.lower() in SUFFIXES])
    lengths = {path: length_s(path) for path in sorted(set(audio.values()))}
    needed = (arguments.file_column, arguments.text_column)
    for where, row in read_table(arguments.table, needed, dropped, "-", quoted=arguments.table.suffix == ".csv"):
        path = audio.get(Path(row[arguments.file_column]).name)
        length, text = lengths.get(path) if path else None, clean(row[arguments.text_column], arguments.plus)
        if path is None or not length:
            dropped.add("-", "no readable audio", where)
        elif not text:
            dropped.add("-", "the text is empty after cleaning", where)
        else:
            start_s, end_s = times(row, arguments, where)
            end = end_within(start_s, length if end_s is None else end_s, length)
            if end is None:
                dropped.add("-", "the stretch is empty, or not in the recording", where)
                continue
            name = path.stem if end_s is None else f"{path.stem}-{round(start_s * 1000):07d}-{round(end * 1000):07d}"
            offset_s = None if end_s is None else start_s
            yield Clip(name, path, text, "ar", offset_s, end - start_s, speaker=row.get(arguments.speaker_column, ""))


def times(row: dict[str, str], arguments: argparse.Namespace, where: str) -> tuple[float, float | None]:
    """Returns start and end of a row in seconds; the end is None where the table has no such columns."""
    start, end = row.get(arguments.start_column), row.get(arguments.end_column)
    if start is None and end is None:
        return 0.0, None
    try:
        return float(start or ""), float(end or "")
    except ValueError as error:
        raise LayoutError(f"{where}: start {start!r} and end {end!r}; expected seconds in both columns") from error


def from_parquet(arguments: argparse.Namespace, dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of the hub's copy, the audio of each written to a file."""
    paths = sorted(folder(arguments.parquet, "**/*.parquet").rglob("*.parquet"))
    if not paths:
        raise LayoutError(f"no *.parquet in {arguments.parquet}; fetch the hub's copy")
    number = 0
    for path in paths:
        for where, row in read_rows(path, ("audio", "sentence")):
            stem = f"{number:05d}"
            number += 1
            file = save_audio(row["audio"], arguments.out / "audio", stem, where)
            length, text = length_s(file) if file else None, clean(row["sentence"] or "", arguments.plus)
            if file is None or length is None:
                dropped.add("-", "no readable audio", where)
            elif not text:
                dropped.add("-", "the text is empty after cleaning", where)
            else:
                yield Clip(stem, file, text, "ar", duration_s=length)


def by_lists(clips: Sequence[Clip], arguments: argparse.Namespace) -> dict[str, list[Clip]]:
    """Returns the splits of the lists; what is in none is train."""
    listed: dict[str, str] = {}
    for split, path in (("test", arguments.test_list), ("dev", arguments.dev_list)):
        for where, line in read_lines(path) if path else ():
            name = line.strip()
            if listed.get(name, split) != split:
                raise LayoutError(f"{where}: {name} is in both lists")
            listed[name] = split
    splits: dict[str, list[Clip]] = {"train": [], "dev": [], "test": []}
    used: set[str] = set()
    for clip in clips:
        names = {clip.id, clip.audio.stem, clip.audio.name} & listed.keys()
        used |= names
        splits[listed[min(names)] if names else "train"].append(clip)
    if unused := sorted(set(listed) - used - {""}):
        raise LayoutError(f"{len(unused)} names of the lists are of no clip, first {unused[0]!r}; expected file names or row ids")
    return splits


def by_share(clips: Sequence[Clip], share: float) -> dict[str, list[Clip]]:
    """Returns splits of whole speakers (or sentences): test and dev have the share of the clips each, at least one group."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(clip.speaker or clip.text, []).append(clip)
    order, sides = sorted(groups, key=draw), {}
    for split in ("test", "dev"):
        size = 0
        while order and size < max(1, share * len(clips)):
            name = order.pop(0)
            sides[name] = split
            size += len(groups[name])
    splits: dict[str, list[Clip]] = {"train": [], "dev": [], "test": []}
    for clip in clips:
        splits[sides.get(clip.speaker or clip.text, "train")].append(clip)
    return splits


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests."""
    dropped = Dropped()
    arguments.plus = "" if arguments.plus == "join" else " "
    if bool(arguments.parquet) == bool(arguments.audio and arguments.table):
        raise LayoutError("give --parquet, or --audio and --table")
    found = list((from_parquet if arguments.parquet else from_table)(arguments, dropped))
    listed = arguments.test_list or arguments.dev_list
    splits = by_lists(found, arguments) if listed else by_share(found, arguments.share)
    write_manifests(arguments.out, splits, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--audio", type=Path, help="folder of the audio files")
    parser.add_argument("--table", type=Path, help="table of the transcripts")
    for name in ("file", "text", "speaker", "start", "end"):
        parser.add_argument(f"--{name}-column", default=name, help=f"default {name}")
    parser.add_argument("--parquet", type=Path, help="folder of the hub's copy")
    parser.add_argument("--test-list", type=Path, help="names of the test clips, one a line")
    parser.add_argument("--dev-list", type=Path, help="names of the dev clips, one a line")
    parser.add_argument("--share", type=float, default=0.1, help="share of test, and of dev, without lists; default 0.1")
    parser.add_argument("--plus", choices=("join", "space"), default="join", help="what becomes of a clitic's +; default join")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
