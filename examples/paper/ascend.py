"""Prepares ASCEND, Mandarin-English conversations of Hong Kong, 10.6 h, 23 speakers.

    python examples/paper/ascend.py --corpus ASCEND --out corpora/paper/ascend

Obtain: the data set CAiRE/ASCEND of the Hugging Face hub, whose card has the licence; unpack waves.tar.bz2 there (tar
-xjf). The loading script of the hub's repository is not run.

Layout:
    ASCEND/{train,validation,test}_metadata.csv   file_name,transcription,duration,language,original_speaker_id,session_id,topic
    ASCEND/waves/*.wav                            one file a clip; a path that is not there is looked for by its file name
Writes train, dev and test, all with the language zh: the table's language is zh, en or mixed, and mixed is no language of
Whisper.

Cleaning: tags in [ ] or < > are deleted, such as [UNK]; control characters go; no space between two Chinese characters.
Case, marks and fillers stay. Clips with [UNK], words that nobody understood, are dropped from train and dev; the test set
stays whole. Dropped: rows with another number of cells than the header, without text, without a readable wav, or with a wav
whose length is not the table's duration. A quote that does not close on its line stops the script.

Not verified: whether fillers are spelt in one way, and which paths the older revisions have.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from manifests import Clip, Dropped, folder, is_stated_length, length_s, parser_of, read_table, run, unique_names, write_manifests
from texts import one_spaced, plain

TABLES = {"train": "train_metadata.csv", "dev": "validation_metadata.csv", "test": "test_metadata.csv"}
TAG = re.compile(r"\[[^\[\]]*\]|<[^<>]*>")
UNCLEAR = re.compile(r"[\[<]\s*unk\s*[\]>]", re.I)


def clean(text: str) -> str:
    """Returns the text by the rule above."""
    return one_spaced(TAG.sub(" ", plain(text)))


def clips(corpus: Path, split: str, by_name: dict[str, Path], dropped: Dropped) -> Iterator[Clip]:
    """Yields the clips of one table."""
    for where, row in read_table(corpus / TABLES[split], ("file_name", "transcription"), dropped, split):
        path = corpus / row["file_name"]
        path = path if path.is_file() else by_name.get(path.name, path)
        text, length = clean(row["transcription"]), length_s(path)
        if length is None:
            dropped.add(split, "no readable wav", where)
        elif not is_stated_length(length, row.get("duration")):
            dropped.add(split, "the wav has not the duration of the table", where)
        elif split != "test" and UNCLEAR.search(plain(row["transcription"])):
            dropped.add(split, "words that nobody understood, [UNK]", where)
        elif not text:
            dropped.add(split, "the text is empty after cleaning", where)
        else:
            yield Clip(path.stem, path, text, "zh", duration_s=length, speaker=row.get("original_speaker_id", ""))


def prepare(arguments: argparse.Namespace) -> None:
    """Writes the manifests."""
    corpus, dropped = folder(arguments.corpus, "ASCEND with the tables and the unpacked waves"), Dropped()
    by_name = unique_names(list(corpus.rglob("*.wav")))
    write_manifests(arguments.out, {split: list(clips(corpus, split, by_name, dropped)) for split in TABLES}, dropped)


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    parser = parser_of(__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the tables and of waves")
    run(prepare, parser, words)


if __name__ == "__main__":
    main()
