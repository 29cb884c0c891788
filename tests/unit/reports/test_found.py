"""The table of what was found fits a narrow terminal, and says what was left aside."""

import io
from collections import Counter

from rich.console import Console

from wfc_dist.data.detection.facts import SplitFacts
from wfc_dist.data.detection.look import Corpus
from wfc_dist.reports.found import found_table


def shown(**corpora: Corpus) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(found_table({name.replace("_", "-"): corpus for name, corpus in corpora.items()}))
    return console.export_text()


def test_a_row_a_split_within_80_columns():
    facts = {
        "train": SplitFacts(1_234_567, 2345.678, is_about=True, languages=Counter(["es", "en", "fr", "de", "it"])),
        "test": SplitFacts(None, None, languages=Counter(["es"])),
    }
    long = Corpus(["x"], {"source": "x", "format": "webdataset", "splits": {"train": "a", "test": "b"}}, facts)  # type: ignore[arg-type]
    text = shown(a_name_of_a_data_set_that_is_rather_long=long)
    assert max(map(len, text.splitlines())) <= 80
    assert "about 2345.68" in text and "1234567" in text and "de en es fr" in text and text.count("?") == 2


def test_what_is_left_aside_and_what_is_to_be_done_is_said():
    facts = {"train": SplitFacts(3, 1.0, strange=Counter({"mixed": 3}), num_missing=2)}
    corpus = Corpus(["x"], {"source": "x", "splits": {"train": "a"}}, facts, passed_over=list("abcdef"), todo=["language: x [y]"])  # type: ignore[arg-type]
    text = shown(mine=corpus)
    for sentence in (
        "mine: 2 recordings are missing", "mine: not read: a, b, c, d and 2 more", "mine: no test split", "language: x [y]",
    ):  # fmt: skip
        assert sentence in text
