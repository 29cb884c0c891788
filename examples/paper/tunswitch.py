"""Prepares TunSwitch, Tunisian Arabic with French and English.

    python examples/paper/tunswitch.py --corpus TunSwitch --annotation TunSwitch/annotation.csv --out corpora/paper/tunswitch

Obtain: record 8370566 of Zenodo, whose page has the licence. Unpack TunSwitchCS.zip, test_wavs.zip and
language_annotation.zip into one folder, and TunSwitchTO.zip for the Tunisian-only part. weakly_labeled_tn.zip and
TextData.zip are not needed.

Layout; other folders may lie between:
    TunSwitch/**/{train,validation,test}_{cs,to}.csv   SpeechBrain's tables: ID,duration,start,wav,spk_id,wrd[,char]
    TunSwitch/**/*.wav                                 one file a clip
The wav of a row is a path of another machine: of the files of its name the one is taken whose folders agree with it best,
if one does. The annotation is a table with a header, ID,languages: for every row of the code-switching part one language a
word, split at spaces, such as ar (or tn), fr, en. Where their number is that of the words they become word_langs.

Writes train, dev and test of the code-switching part, and train_to, dev_to and test_to of the Tunisian-only part where its
tables are there. The language is ar. The length of a clip comes from its wav.

Cleaning: Arabic diacritics and tatweel go, lower case, punctuation and symbols are deleted (an apostrophe in a word stays),
control characters go. Dropped: rows with another number of cells than the header, without text, without a readable wav, or
with a wav whose length is not the table's duration in seconds. A row whose start is not 0 stops the script, because the
unit of start is not known; so does an unknown language of the annotation.

Not verified (written without the files): the exact header of the tables, the unit of start, the form of the annotation.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from manifests import Clip, Dropped, LayoutError, folder, is_stated_length, length_s, parser_of, read_table, run, write_manifests
from texts import marks_to, plain, without_arabic_marks

TABLES = {"train": "train", "dev": "validation", "test": "test"}
LANGUAGES = {"ar": "ar", "tn": "ar", "ta": "ar", "aeb": "ar", "arabic": "ar", "tunisian": "ar",
             "fr": "fr", "french": "fr", "en": "en", "english": "en"}  # fmt: skip


class Wavs:
    """The audio of the corpus, found by the end of a path of another machine."""

    def __init__(self, corpus: Path) -> None:
        self._by_name: dict[str, list[Path]] = {}
        for path in sorted(corpus.rglob("*.wav")):
            self._by_name.setdefault(path.name, []).append(path)

    def find(self, foreign: str) -> Path | None:
        """Returns the file that shares the most last parts; None if there is none, or if several share as many."""
        parts = foreign.replace("\\", "/").split("/")
        same = self._by_name.get(parts[-1], [])
        shared = [_num_shared(parts, path.parts) for path in same]
        return same[shared.index(max(shared))] if same and shared.count(max(shared)) == 1 else None


def _num_shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Returns how many last parts two paths share."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False))))


def clean(word: str) -> str:
    """Returns a word, or a text, by the rule above."""
    return " ".join(marks_to(without_arabic_marks(plain(word)).lower(), "").split())


def read_annotation(path: Path, dropped: Dropped) -> dict[str, list[str]]:
    """Returns ID -> one language a word."""
    found = {}
    for where, row in read_table(path, ("ID", "languages"), dropped, "annotation"):
        names = row["languages"].lower().split()
        if unknown := sorted(set(names) - set(LANGUAGES)):
            raise LayoutError(f"{where}: unknown language {unknown[0]!r}; expected one of {', '.join(LANGUAGES)}")
        found[row["ID"]] = [LANGUAGES[name] for name in names]
    return found


def words_of(text: str, languages: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Returns the cleaned text and the language of every word left; () where the numbers differ."""
    raw = text.split()
    if len(raw) != len(languages):
        return clean(text), ()
    pairs = [(word, language) for part, language in zip(raw, languages, strict=True) for word in clean(part).split()]
    return " ".join(word for word, _ in pairs), tuple(language for _, language in pairs)


def is_zero(start: str) -> bool:
    """Says whether the start of a row is empty or 0, whatever its unit is."""
    try:
        return float(start or 0) == 0
    except ValueError:
        return False


def clips(table: Path, split: str, wavs: Wavs, annotation: dict[str, list[str]], dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of one table."""
    for where, row in read_table(table, ("ID", "wav", "wrd"), dropped, split):
        if not is_zero(row.get("start", "")):
            raise LayoutError(f"{where}: start is {row['start']}, expected 0: whole files; cut the stretches first")
        path = wavs.find(row["wav"])
        length = length_s(path) if path else None
        text, languages = words_of(row["wrd"], annotation.get(row["ID"], ()))
        if path is None or length is None:
            dropped.add(split, "no readable wav", where)
        elif not is_stated_length(length, row.get("duration")):
            dropped.add(split, "the wav has not the duration of the table", where)
        elif not text:
            dropped.add(split, "the text is empty after cleaning", where)
        else:
            if row["ID"] in annotation and not languages:
                dropped.note(split, "without word_langs, their number is not that of the words", where)
            yield Clip(row["ID"], path, text, "ar", duration_s=length, speaker=row.get("spk_id", ""), word_langs=languages)


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests."""
    corpus, dropped = folder(arguments.corpus, "the unpacked zip files of TunSwitch"), Dropped()
    annotation = read_annotation(arguments.annotation, dropped) if arguments.annotation else {}
    wavs, splits = Wavs(corpus), {}
    for part, suffix in (("cs", ""), ("to", "_to")):
        for split, name in TABLES.items():
            tables = sorted(corpus.rglob(f"{name}_{part}.csv"))
            if len(tables) > 1 or (not tables and part == "cs"):
                raise LayoutError(f"{len(tables)} files {name}_{part}.csv in {corpus}; expected one")
            if tables:
                splits[f"{split}{suffix}"] = list(clips(tables[0], f"{split}{suffix}", wavs, annotation, dropped))
    write_manifests(arguments.out, splits, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the unpacked zip files")
    parser.add_argument("--annotation", type=Path, help="table ID,languages; without it there is no word_langs")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
