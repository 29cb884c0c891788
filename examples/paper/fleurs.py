"""Prepares FLEURS, read sentences in 102 languages: what must be kept, scored and never trained on.

    python examples/paper/fleurs.py --corpus fleurs --languages cmn_hans_cn es_419 ar_eg --out corpora/paper/fleurs

Obtain: the data set google/fleurs of the Hugging Face hub, whose card has the licence. The loading script of the hub's
repository is not run.

Layout, one of two:
    revision refs/convert/parquet:   fleurs/<language>/{train,validation,test}/NNNN.parquet
    revision main:                   fleurs/data/<language>/audio/{train,dev,test}.tar.gz
                                     fleurs/data/<language>/{train,dev,test}.tsv, tabs, no header: id, file, raw transcription,
                                     transcription, letters, samples, gender
Writes OUT/<language>/{train,dev,test}.jsonl, those that are there (or --splits), and the audio, as it is in the parquet or
tar files, to OUT/<language>/audio. All readers of a sentence stay on one side: a clip of dev or train whose sentence, by id
or by text, is in test (or in dev) is dropped. The language is Whisper's code: zh for cmn_hans_cn, no for nb_no, tl for
fil_ph, jw for jv_id; a language that Whisper lacks stops the script.

Cleaning: the text is raw_transcription, with case and punctuation, in Unicode form NFC with single spaces; --plain-text
takes transcription, lower case without punctuation. No space between two Chinese characters. Dropped: rows with another
number of columns, without text or without readable audio, and audio whose length is not the stated number of samples at 16
kHz.

Not verified: nothing that is read here; both layouts are public.
"""

import argparse
import gzip
import math
import tarfile
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from cells import read_rows, save_audio
from manifests import (
    Clip,
    Dropped,
    LayoutError,
    folder,
    is_stated_length,
    length_s,
    parser_of,
    read_lines,
    run,
    whisper_language,
    write_atomically,
    write_manifests,
)
from texts import one_spaced

COLUMNS = ("id", "file", "raw_transcription", "transcription", "letters", "num_samples", "gender")
PARQUET_NAMES = {"train": "train", "dev": "validation", "test": "test"}
RATE_HZ = 16_000
Row = tuple[str, dict[str, Any], Path | None]
"""Where, the cells by column, the audio file."""


def sentence_key(text: str) -> str:
    """Returns the letters and digits of a sentence in lower case, to compare sentences."""
    return "".join(letter for letter in unicodedata.normalize("NFC", text).lower() if letter.isalnum())


def parquet_rows(corpus: Path, language: str, split: str, audio: Path) -> Iterator[Row]:
    """Yields the rows of the parquet layout."""
    paths = sorted((corpus / language / PARQUET_NAMES[split]).glob("*.parquet"))
    rows = chain.from_iterable(read_rows(path, ("id", "audio", "raw_transcription", "transcription")) for path in paths)
    for number, (where, row) in enumerate(rows):
        stem = Path(row.get("path") or f"{row['id']}-{number}").stem
        yield where, row, save_audio(row["audio"], audio, stem, where)


def tar_rows(data: Path, split: str, audio: Path, dropped: Dropped) -> Iterator[Row]:
    """Yields the rows of the layout of tar files."""
    unpack(data / "audio" / f"{split}.tar.gz", audio)
    for where, line in read_lines(data / f"{split}.tsv"):
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            dropped.add(split, f"the row has not {len(COLUMNS)} columns", where)
            continue
        path = audio / Path(cells[1]).name
        yield where, dict(zip(COLUMNS, cells, strict=True)), path if path.is_file() else None


def unpack(path: Path, audio: Path) -> None:
    """Writes the files of a tar file into one folder, by their names without folders.

    The stream is read to its end: a damaged header in the middle looks to tarfile like the end of the archive.
    """
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isfile() else None
                    if content is not None:
                        write_atomically(audio / Path(member.name).name, content.read())
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise LayoutError(f"cannot read {path}: {error}; fetch it again") from error


def stated_s(row: dict[str, Any]) -> float:
    """Returns the seconds of the stated number of samples; 0 if none is stated, not a number if it is none."""
    try:
        return int(row.get("num_samples") or 0) / RATE_HZ
    except ValueError:
        return math.nan


def clips(rows: Iterator[Row], split: str, column: str, lang: str, dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of a split; the id begins with that of the sentence."""
    for where, row, path in rows:
        text = one_spaced(unicodedata.normalize("NFC", row[column] or ""))
        length = length_s(path) if path else None
        if path is None or length is None:
            dropped.add(split, "no readable audio", where)
        elif not is_stated_length(length, stated_s(row)):
            dropped.add(split, "the audio has not the stated number of samples", where)
        elif not text:
            dropped.add(split, "the text is empty", where)
        else:
            yield Clip(f"{row['id']}/{path.stem}", path, text, lang, duration_s=length)


def without_leaks(splits: dict[str, list[Clip]], dropped: Dropped) -> dict[str, list[Clip]]:
    """Returns the splits, each without the sentences of those after it (train, dev, test): all readers stay on one side."""
    later: set[str] = set()
    kept: dict[str, list[Clip]] = {}
    for split in reversed(splits):
        kept[split] = []
        for clip in splits[split]:
            if later & {clip.id.split("/")[0], sentence_key(clip.text)}:
                dropped.add(split, "its sentence is on a later side, by another reader", clip.id)
            else:
                kept[split].append(clip)
        later |= {key for clip in kept[split] for key in (clip.id.split("/")[0], sentence_key(clip.text))}
    return {split: kept[split] for split in splits}


def prepare_language(arguments: argparse.Namespace, language: str) -> None:
    """Writes the manifests of one language."""
    dropped, out = Dropped(), arguments.out / language
    lang, column = whisper_language(language, "--languages"), "transcription" if arguments.plain_text else "raw_transcription"
    data = next((root for root in (arguments.corpus / "data" / language, arguments.corpus / language) if _has_tables(root)), None)
    splits: dict[str, list[Clip]] = {}
    for split in arguments.splits:
        audio = out / "audio" / split
        if data is not None and (data / f"{split}.tsv").is_file():
            rows = tar_rows(data, split, audio, dropped)
        elif data is None and (arguments.corpus / language / PARQUET_NAMES[split]).is_dir():
            rows = parquet_rows(arguments.corpus, language, split, audio)
        else:
            continue
        splits[split] = list(clips(rows, split, column, lang, dropped))
    if not splits:
        raise LayoutError(f"no split of {language} in {arguments.corpus}; expected one of the two layouts that --help shows")
    print(language, flush=True)
    write_manifests(out, without_leaks(splits, dropped), dropped)


def _has_tables(root: Path) -> bool:
    return any(root.glob("*.tsv"))


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests of all languages that are asked for."""
    folder(arguments.corpus, "the data set, as --help shows")
    arguments.splits = [split for split in PARQUET_NAMES if split in arguments.splits]
    for language in arguments.languages:
        prepare_language(arguments, language)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--languages", nargs="+", required=True, help="names of FLEURS, such as cmn_hans_cn es_419")
    parser.add_argument("--splits", nargs="+", choices=tuple(PARQUET_NAMES), default=list(PARQUET_NAMES), help="default all")
    parser.add_argument("--plain-text", action="store_true", help="take transcription instead of raw_transcription")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
