"""Test audio that training hears, by any road; and what is no leak."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile as sf

from wfc_dist.config import loading
from wfc_dist.data.audio_files import AudioFile, decode
from wfc_dist.data.audit import audit

RATE = 16_000
SECONDS = 6.0


def noise(seed: int, seconds: float = SECONDS) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def manifest(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"lang": "en", "text": f"words of {path.stem}", **row}) + "\n" for row in rows))


def found(sets: dict, **blocks: dict) -> tuple[list[str], list[str]]:
    """Returns the errors and the warnings about audio that is heard twice."""
    tree = {"run": {"name": "r"}, "base": {"model": "none"}, "datasets": sets, "rounds": [list(sets)], **blocks}
    report = audit(loading.parse(tree | {"train": {"max_steps": 1, "warmup_steps": 0}}))
    return tuple([line for line in lines if "same audio" in line] for lines in (report.errors, report.warnings))


def jsonl(folder: Path, **more) -> dict:
    return {"source": str(folder), "splits": {"train": "train.jsonl", "test": "test.jsonl"}, **more}


def a_wav(folder: Path) -> None:
    sf.write(folder / "a.wav", noise(0), RATE)


def copied(folder: Path) -> str:
    shutil.copy(folder / "a.wav", folder / "b.wav")
    return "b.wav"


def symlink(folder: Path) -> str:
    (folder / "b.wav").symlink_to(folder / "a.wav")
    return "b.wav"


def hard_link(folder: Path) -> str:
    os.link(folder / "a.wav", folder / "b.wav")
    return "b.wav"


def to_flac(folder: Path) -> str:
    sf.write(folder / "b.flac", sf.read(folder / "a.wav")[0], RATE)
    return "b.flac"


def to_aiff(folder: Path) -> str:
    sf.write(folder / "b.aiff", sf.read(folder / "a.wav")[0], RATE)
    return "b.aiff"


def with_a_tag(folder: Path) -> str:
    """The same samples in a file of another size."""
    content = (folder / "a.wav").read_bytes()
    tag = b"LIST" + (20).to_bytes(4, "little") + b"INFOISFT" + (8).to_bytes(4, "little") + b"somebody"
    (folder / "b.wav").write_bytes(b"RIFF" + (len(content) - 8 + len(tag)).to_bytes(4, "little") + content[8:] + tag)
    return "b.wav"


ROADS: dict[str, Callable[[Path], str]] = {
    "same path": lambda folder: "a.wav",
    "absolute path": lambda folder: str(folder / "a.wav"),
    "path with dots": lambda folder: "../" + folder.name + "/./a.wav",
    **{road.__name__: road for road in (copied, symlink, hard_link, to_flac, to_aiff, with_a_tag)},
}


@pytest.mark.parametrize("road", ROADS)
def test_the_same_recording_is_found_by_any_road(road: str, tmp_path: Path) -> None:
    a_wav(tmp_path)
    other = ROADS[road](tmp_path)
    manifest(tmp_path / "train.jsonl", {"audio_filepath": "a.wav"})
    manifest(tmp_path / "test.jsonl", {"audio_filepath": other})
    errors, _ = found({"a": jsonl(tmp_path)})
    assert len(errors) == 1 and errors[0].startswith("1 of 1 clips of a/test: the same audio as a training clip")
    assert "test.jsonl:1" in errors[0]


WHOLE = {"audio_filepath": "a.wav"}


def part(offset: float, duration: float, **more) -> dict:
    return {**WHOLE, "offset": offset, "duration": duration, **more}


@pytest.mark.parametrize(
    ("train", "test", "is_leak"),
    [
        (WHOLE, part(2, 1), True),
        (part(2, 1), WHOLE, True),
        (part(0, 3), part(0.001, 3), True),
        (part(0, 3), part(2.5, 3), True),
        (part(1, 4), part(2, 1), True),
        (part(0, 3), part(3, 3), False),
        (part(0, 3), part(2.95, 3), False),  # cuts are rounded
        (part(3, 3), part(0, 3), False),
        (part(0, 0.05), part(0, 0.05), True),
        (part(0, 3, channel=0), part(0, 3, channel=1), False),
        (part(0, 3, channel=0), part(1, 3, channel=0), True),
        (part(0, 3), part(1, 3, channel=1), True),
    ],
)
def test_stretches_leak_if_they_share_sound(train: dict, test: dict, is_leak: bool, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.stack([noise(0), noise(1)], 1), RATE)
    manifest(tmp_path / "train.jsonl", train)
    manifest(tmp_path / "test.jsonl", test)
    assert bool(found({"a": jsonl(tmp_path)})[0]) == is_leak


def test_other_audio_of_the_same_size_is_no_leak(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        sf.write(tmp_path / f"{name}.wav", noise(seed), RATE)
    manifest(tmp_path / "train.jsonl", WHOLE)
    manifest(tmp_path / "test.jsonl", {"audio_filepath": "b.wav"})
    assert found({"a": jsonl(tmp_path)}) == ([], [])


def test_recordings_that_differ_at_one_place_are_two(tmp_path: Path) -> None:
    samples = noise(0)
    for name, place in (("a", 0), ("b", 100), ("c", -100)):
        other = samples.copy()
        other[place] = 0.5
        sf.write(tmp_path / f"{name}.wav", other, RATE)
    manifest(tmp_path / "train.jsonl", WHOLE)
    manifest(tmp_path / "test.jsonl", {"audio_filepath": "b.wav"}, {"audio_filepath": "c.wav"})
    assert found({"a": jsonl(tmp_path)}) == ([], [])


def two_sets(tmp_path: Path, **more) -> dict:
    """Set b trains on what set a tests."""
    for name in "ab":
        (tmp_path / name).mkdir()
        sf.write(tmp_path / name / "own.wav", noise(ord(name)), RATE)
        manifest(tmp_path / name / "train.jsonl", {"audio_filepath": "own.wav"})
        manifest(tmp_path / name / "test.jsonl", {"audio_filepath": "own.wav", "offset": 5.95})
    a_wav(tmp_path / "a")
    sf.write(tmp_path / "b/copy.flac", sf.read(tmp_path / "a/a.wav")[0], RATE)
    manifest(tmp_path / "a/train.jsonl", {"audio_filepath": "own.wav", "duration": 3.0})
    manifest(tmp_path / "a/test.jsonl", WHOLE)
    manifest(tmp_path / "b/train.jsonl", {"audio_filepath": "copy.flac"})
    return {"a": jsonl(tmp_path / "a"), "b": {**jsonl(tmp_path / "b"), "splits": {"train": "train.jsonl"}, **more}}


def test_a_leak_between_sets_is_an_error_that_names_both(tmp_path: Path) -> None:
    errors, _ = found(two_sets(tmp_path))
    assert len(errors) == 1 and "clips of a/test: the same audio as a training clip of b" in errors[0]
    assert "datasets.b.allow_overlap" in errors[0]


@pytest.mark.parametrize(("allowed", "is_told"), [(["a"], False), (["c"], True)])
def test_allow_overlap_names_the_sets_that_may_share_audio(allowed: list[str], is_told: bool, tmp_path: Path) -> None:
    assert bool(found(two_sets(tmp_path, allow_overlap=allowed))[0]) == is_told


def test_allow_overlap_is_not_for_the_set_itself(tmp_path: Path) -> None:
    a_wav(tmp_path)
    for split in ("train", "test"):
        manifest(tmp_path / f"{split}.jsonl", WHOLE)
    assert found({"a": jsonl(tmp_path, allow_overlap=["a"])})[0]


def test_protected_sets_and_parts_of_a_mix_are_compared(tmp_path: Path) -> None:
    sets = two_sets(tmp_path)
    protected = {"old": {**sets["a"], "splits": {"test": "test.jsonl"}}}
    assert "old/test" in found({"b": sets["b"]}, evaluate={"protected": protected})[0][0]
    mix = {"format": "mix", "splits": {"train": "x"}, "parts": {"b": sets["b"]}}
    errors, _ = found({"a": sets["a"], "m": mix})
    assert len(errors) == 1 and "a/test: the same audio as a training clip of m" in errors[0]


def test_the_parts_of_a_mix_may_share_what_they_name(tmp_path: Path) -> None:
    sets = two_sets(tmp_path, allow_overlap=["a"])
    mix = {"format": "mix", "splits": {"train": "x"}, "parts": {"b": sets["b"]}}
    assert found({"a": sets["a"], "m": mix}) == ([], [])


def test_cells_of_a_saved_data_set_are_compared_by_their_bytes(tmp_path: Path) -> None:
    cells = []
    for seed in range(3):
        sf.write(tmp_path / f"{seed}.wav", noise(seed), RATE)
        cells.append({"audio": {"bytes": (tmp_path / f"{seed}.wav").read_bytes(), "path": None}, "text": f"text {seed}"})
    rows = {"train": cells[:2], "test": [cells[2], cells[0] | {"text": "another reading"}]}
    sets = {
        split: datasets.Dataset.from_list(part).cast_column("audio", datasets.Audio(decode=False)) for split, part in rows.items()
    }
    datasets.DatasetDict(sets).save_to_disk(tmp_path / "saved")
    block = {"source": str(tmp_path / "saved"), "format": "saved", "language": "en", "splits": {"train": "train", "test": "test"}}
    errors, _ = found({"a": block})
    assert len(errors) == 1 and errors[0].startswith("1 of 2 clips of a/test") and "row 1" in errors[0]


def test_a_repeated_clip_of_one_split_is_a_warning(tmp_path: Path) -> None:
    a_wav(tmp_path)
    manifest(tmp_path / "train.jsonl", part(0, 2), part(2, 2), part(0, 2), part(0, 1))
    sf.write(tmp_path / "b.wav", noise(5), RATE)
    manifest(tmp_path / "test.jsonl", {"audio_filepath": "b.wav"})
    errors, warnings = found({"a": jsonl(tmp_path)})
    assert errors == [] and len(warnings) == 1
    assert warnings[0].startswith("1 of 4 clips of a/train: the same audio as an earlier clip") and "train.jsonl:3" in warnings[0]


def test_a_tagged_wav_has_the_same_samples(tmp_path: Path) -> None:
    """The premise of the road `with_a_tag`."""
    a_wav(tmp_path)
    with_a_tag(tmp_path)
    assert (tmp_path / "a.wav").stat().st_size != (tmp_path / "b.wav").stat().st_size
    assert np.array_equal(*(decode(AudioFile(str(tmp_path / f"{name}.wav"))) for name in "ab"))


@pytest.mark.parametrize("is_shared", [True, False])
def test_audio_that_dev_and_test_share_is_a_warning(is_shared: bool, tmp_path: Path) -> None:
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", noise(number), RATE)
    shutil.copy(tmp_path / f"{1 if is_shared else 2}.wav", tmp_path / "copy.wav")
    for split, name in (("train", "0.wav"), ("dev", "1.wav"), ("test", "copy.wav")):
        manifest(tmp_path / f"{split}.jsonl", {"audio_filepath": name, "text": split, "lang": "en"})
    splits = {split: f"{split}.jsonl" for split in ("train", "dev", "test")}
    errors, warnings = found({"a": jsonl(tmp_path) | {"splits": splits}})
    assert not errors and [("the same audio as a dev clip of a" in line) for line in warnings] == [True] * is_shared
