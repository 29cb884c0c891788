"""Prepares TALCS, also TAL_CSASR: Mandarin-English lessons online, 587 h, about 370,000 clips.

    python examples/paper/talcs.py --corpus TALCS_corpus --out corpora/paper/talcs

Obtain: from TAL Education's page of open data, ai.100tal.com/dataset, which has the licence.

Layout:
    TALCS_corpus/{train_set,dev_set,test_set}/label.txt       UTF-8; id, white space, text; the id is the stem of a wav
    TALCS_corpus/{train_set,dev_set,test_set}/wav/**/*.wav    16 kHz, one file a clip
Writes train, dev and test. There are no speakers. The length of every wav is read from its header, in threads, and written,
so that nobody has to read it again.

Cleaning: full-width letters become ASCII; the marks # = ; , ? . / ! : " @ [ ] and their Chinese forms, also the brackets of
titles, are deleted; - ~ and the enumeration comma become spaces (WeNet's rule; lhotse's deletes them); curly quotes become
'; no space between two Chinese characters. Letters keep their case. Dropped: lines without a wav, wavs without a line,
lines without text, and unreadable wavs. Two wavs of one name in a set stop the script.

Not verified (written without the corpus): the layout as a whole. An earlier release has one folder cs_wav and one file
label; it is not read.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from manifests import Clip, Dropped, by_stem, folder, length_s, parser_of, read_lines, run, write_manifests
from texts import one_spaced, plain

SETS = {"train": "train_set", "dev": "dev_set", "test": "test_set"}
CLEANING = str.maketrans({**dict.fromkeys('#=;,?./!:"@[]。《》“”', ""), **dict.fromkeys("-~、", " ")})
"""Applied after full-width marks have become ASCII."""
THREADS = 16


def clean(text: str) -> str:
    """Returns the text by the rule above."""
    return one_spaced(plain(text).translate(CLEANING))


def clips(root: Path, split: str, dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of one set, in the order of label.txt."""
    wavs = by_stem(list(folder(root / "wav", "wav/**/*.wav").rglob("*.wav")), f"wav/**/*.wav in {root}")
    found: list[tuple[str, str, str]] = []
    for where, line in read_lines(root / "label.txt"):
        name, text = (*line.split(None, 1), "", "")[:2]
        if name and name not in wavs:
            dropped.add(split, "a line without a wav", where)
        elif name:
            found.append((name, clean(text), where))
    for name in sorted(wavs.keys() - {name for name, _, _ in found}):
        dropped.add(split, "a wav without a line", str(wavs[name]))
    with ThreadPoolExecutor(THREADS) as pool:
        lengths = pool.map(lambda row: length_s(wavs[row[0]]), found)
        for (name, text, where), length in zip(found, lengths, strict=True):
            if not text:
                dropped.add(split, "the text is empty after cleaning", where)
            elif length is None:
                dropped.add(split, "an unreadable or empty wav", str(wavs[name]))
            else:
                yield Clip(name, wavs[name], text, "zh", duration_s=length)


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests."""
    dropped = Dropped()
    sets = {split: folder(arguments.corpus / name, "TALCS_corpus/{train_set,dev_set,test_set}") for split, name in SETS.items()}
    write_manifests(arguments.out, {split: list(clips(root, split, dropped)) for split, root in sets.items()}, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="TALCS_corpus")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
