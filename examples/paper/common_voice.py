"""Prepares Common Voice, read sentences in many languages: what must be kept, scored and never trained on.

    python examples/paper/common_voice.py --corpus cv-corpus-22.0 --locales es tr zh-CN --out corpora/paper/common-voice

Obtain: the releases of the locales from Mozilla, whose page has the licence; unpack them into one folder.

Layout:
    cv-corpus-<version>/<locale>/{train,dev,test}.tsv   UTF-8, tabs, a header, no quoting: a " is a letter
    cv-corpus-<version>/<locale>/clips/*.mp3            path in the table is the file name
Columns that are read: client_id, path, sentence. clip_durations.tsv is not needed: the length of a clip is counted by
decoding, since the header of an mp3 may not have it. test alone takes minutes a locale; --splits train takes hours for
large ones.

Writes OUT/<locale>/<split>.jsonl, of test by default. The language is Whisper's code: zh for zh-CN and zh-TW, yue for
zh-HK; a locale that Whisper lacks, such as ga-IE, stops the script.

Cleaning: Unicode form NFC and single spaces, nothing else; --strip-quotes takes quotes off that stand around the whole
sentence. Dropped: rows with another number of cells than the header, without text, and with a clip that is absent, empty or
not decodable.

Not verified: nothing that is read here; the layout is public.
"""

import argparse
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile as sf
from manifests import Clip, Dropped, folder, parser_of, read_table, run, whisper_language, write_manifests
from texts import one_spaced

BLOCK = 1 << 16
THREADS = 8
QUOTES = {'"': '"', "\u201c": "\u201d", "\u00ab": "\u00bb", "\u201e": "\u201c"}


def clean(text: str, *, strip_quotes: bool = False) -> str:
    """Returns the text by the rule above."""
    text = one_spaced(unicodedata.normalize("NFC", text))
    if strip_quotes and len(text) > 2 and QUOTES.get(text[0]) == text[-1]:
        return text[1:-1].strip()
    return text


def decoded_length_s(path: Path) -> float | None:
    """Returns the seconds that are decoded of a file; None if it is absent, empty or not decodable."""
    try:
        with sf.SoundFile(str(path)) as file:
            frames = sum(len(block) for block in file.blocks(BLOCK, dtype="float32"))
            return frames / file.samplerate if frames else None
    except (sf.SoundFileError, OSError):
        return None


def clips(locale: Path, split: str, lang: str, dropped: Dropped, *, strip_quotes: bool) -> Iterator[Clip]:
    """Yields the clips of one table."""
    rows = list(read_table(locale / f"{split}.tsv", ("client_id", "path", "sentence"), dropped, split, quoted=False))
    paths = [locale / "clips" / Path(row["path"]).name for _, row in rows]
    with ThreadPoolExecutor(THREADS) as pool:
        for (where, row), path, length in zip(rows, paths, pool.map(decoded_length_s, paths), strict=True):
            text = clean(row["sentence"], strip_quotes=strip_quotes)
            if not text:
                dropped.add(split, "the text is empty", where)
            elif length is None:
                dropped.add(split, "the clip is absent, empty or not decodable", f"{where}: {path.name}")
            else:
                yield Clip(path.stem, path, text, lang, duration_s=length, speaker=row["client_id"])


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests of all locales that are asked for."""
    folder(arguments.corpus, "cv-corpus-<version>")
    for name in arguments.locales:
        dropped, lang = Dropped(), whisper_language(name, "--locales")
        locale = folder(arguments.corpus / name, "the folder of a locale, with its tables and clips")
        splits = {
            split: list(clips(locale, split, lang, dropped, strip_quotes=arguments.strip_quotes)) for split in arguments.splits
        }
        print(name, flush=True)
        write_manifests(arguments.out / name, splits, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="cv-corpus-<version>")
    parser.add_argument("--locales", nargs="+", required=True, help="folders of locales, such as es zh-CN")
    parser.add_argument("--splits", nargs="+", choices=("train", "dev", "test"), default=["test"], help="default test")
    parser.add_argument("--strip-quotes", action="store_true", help="take quotes off around a whole sentence")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
