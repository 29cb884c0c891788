"""The committed demo data: what a newcomer runs first must be clean, small, and split fairly."""

import io
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wfc_dist.config import loading
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audit import audit, normal_text
from wfc_dist.data.sources import open_split

DEMO = Path(__file__).parents[3] / "examples" / "demo"
DATA = DEMO / "data"
TRAINED = ("es", "fr", "it", "ru", "cs-en-es")
SPLITS = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}

sys.path.insert(0, str(DEMO))
import build_corpus  # noqa: E402


def texts(name: str, split: str) -> set[str]:
    dataset = DatasetConfig(source=str(DATA / name), splits=SPLITS)
    return {normal_text(clip.text) for clip in open_split(name, dataset, split).clips}


def test_everything_is_clean():
    datasets = {name: {"source": str(DATA / name), "splits": SPLITS} for name in TRAINED}
    protected = {"en": {"source": str(DATA / "en"), "splits": {"test": "test.jsonl"}}}
    tree = {"run": {"name": "demo"}, "base": {"model": "none"}, "datasets": datasets, "rounds": [list(TRAINED)]}
    report = audit(loading.parse({**tree, "evaluate": {"protected": protected}}), deep=True)
    report.raise_for_errors()
    assert not report.warnings
    hours = {row.name: row.hours for row in report.rows if row.split == "train"}
    assert all(7 / 60 < value < 9.5 / 60 for value in hours.values())
    assert all(row.num_clips in range(20, 25) for row in report.rows if row.split == "test")


@pytest.mark.parametrize("name", TRAINED)
def test_no_sentence_is_on_two_sides(name):
    sides = [texts(name, split) for split in SPLITS]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_code_switched_halves_come_from_their_own_side():
    words = ["alpha", "bravo", "delta", "echo", "golf", "hotel", "india", "kilo", "lima", "oscar"]
    samples = np.random.default_rng(0).standard_normal(12_000).astype(np.float32)
    english, spanish = (
        [build_corpus.Prompt(f"{a}-{b}", f"{code}{a} {b}", code, samples) for a in words for b in words] for code in ("en", "es")
    )
    assembled = build_corpus.assemble(english, spanish)
    for name, clips in assembled.items():
        for clip in clips:
            words_of = clip.text.split()
            first, second = " ".join(words_of[:2]), " ".join(words_of[2:])
            assert build_corpus.side(first) == build_corpus.side(second) == name
            assert first.startswith(clip.language)
            assert [word[:2] for word in words_of][::2] == [clip.word_languages[0], clip.word_languages[2]]
            assert len(clip.word_languages) == len(words_of)
    assert len(assembled["test"]) == build_corpus.NUM_TEST


def test_words_of_the_code_switched_clips_are_marked_with_one_switch_each():
    dataset = DatasetConfig(source=str(DATA / "cs-en-es"), splits=SPLITS)
    for split in SPLITS:
        for clip in open_split("cs-en-es", dataset, split).clips:
            assert clip.word_languages[0] == clip.language
            assert set(clip.word_languages) == {"en", "es"}
            assert sum(before != after for before, after in pairwise(clip.word_languages)) == 1


def test_no_long_test_sentence_is_part_of_code_switched_training():
    protected = open_split("en", DatasetConfig(source=str(DATA / "en"), splits={"test": "test.jsonl"}), "test")
    tested = {normal_text(clip.text) for clip in protected.clips} | texts("es", "test")
    sentences = [text for text in tested if len(text.split()) > 4]  # shorter ones are also parts of other sentences
    assert len(sentences) > 20
    assert not [
        text for text in sentences for switched in texts("cs-en-es", "train") | texts("cs-en-es", "dev") if text in switched
    ]


def test_it_is_small_and_only_what_the_manifests_name():
    files = [path for path in DATA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    named = set()
    for manifest in DATA.rglob("*.jsonl"):
        dataset = DatasetConfig(source=str(manifest), splits={"test": "x"})
        named |= {manifest.parent / clip.id for clip in open_split("demo", dataset, "test").clips}
    assert {path for path in files if path.suffix == ".opus"} == named


def test_every_set_has_its_licence():
    text = (DATA / "LICENSE.md").read_text()
    for name in (*TRAINED, "en"):
        assert f"| `{name}` |" in text


def test_encoding_is_the_same_every_time():
    samples = (0.1 * np.sin(np.arange(12_000) / 5)).astype(np.float32)
    first, second = build_corpus.encode(samples), build_corpus.encode(samples)
    assert first == second
    decoded, rate_hz = sf.read(io.BytesIO(first), dtype="float32")
    assert rate_hz == build_corpus.RATE_HZ and len(decoded) == len(samples)


def test_page_checksums_are_those_libsndfile_writes():
    buffer = io.BytesIO()
    sf.write(buffer, np.zeros(8_000, np.float32), 8_000, format="OGG", subtype="OPUS")
    data = buffer.getvalue()
    serial = int.from_bytes(data[14:18], "little")
    assert build_corpus.with_serial(data, serial) == data != build_corpus.with_serial(data, serial ^ 1)


def test_sides_depend_on_the_words_only():
    sentences = [f"sentence number {word}" for word in ("one", "two", "three", "four", "five", "six")]
    assert [build_corpus.side(text) for text in sentences] == [build_corpus.side(f" {text.upper()}!") for text in sentences]
