"""A configuration with comments is read back as it was, and its comments are the schema's own words."""

import pytest
import yaml

from wfc_dist.config.commented import WIDTH, commented, half_sentence

TREE = {
    "run": {"name": "größe", "dir": "runs"},
    "datasets": {
        name: {"source": f"data/{name} # 1: x", "columns": {"start": None}, "splits": {"train": "a: b.jsonl"}} for name in "ab"
    },
    "rounds": [["a", "b"]],
    "train": {"lr": 1e-3, "early_stopping": {"metric": "loss"}},
    "evaluate": {"protected": {"c": {"source": "x", "splits": {"test": "{0..1}.jsonl"}}}},
}


def test_it_is_read_back_as_it_was():
    text = commented(TREE, {"train.lr": "reason # with: colon"}, "Head.", {"datasets.a": ["a comment: of # mine"]})
    assert yaml.safe_load(text) == TREE
    assert "größe" in text and "# a comment: of # mine" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_key_has_its_meaning_and_the_reason():
    lines = commented(TREE, {"train.lr": "so said the paper"}).splitlines()
    assert "  lr: 0.001  # the highest learning rate, which the warm-up ends at; so said the paper" in lines


def test_nothing_is_told_twice():
    text = commented(TREE, {})
    assert text.count("a folder, a file, or a hub id") == 1


def test_mappings_stand_in_one_line_and_blocks_do_not():
    lines = commented(TREE, {}).splitlines()
    assert "    columns: {start: null}" in [line.partition("  #")[0] for line in lines]
    assert any(line.startswith("  early_stopping:") and "loss" not in line for line in lines)


@pytest.mark.parametrize(
    ("text", "half"),
    [
        ("A folder, a file, or a hub id (`format: hub`); of a `mix` nothing.", "a folder, a file, or a hub id"),
        ("The data sets, such as [[es, it]]; {centralize_every: 2} makes rounds.", "the data sets, such as [[es, it]]"),
        ("Steps: a number.", "steps"),
        ("WER is counted.", "WER is counted"),
        ("Such as s3://bucket/runs.", "such as s3://bucket/runs"),
        ("", ""),
    ],
)
def test_half_a_sentence(text, half):
    assert half_sentence(text) == half
