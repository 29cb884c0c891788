"""Facts of audio files are read once, and kept beside the manifest."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wfc_dist.config import loading
from wfc_dist.data import recordings as module
from wfc_dist.data.audio_files import AudioFile
from wfc_dist.data.audit import audit
from wfc_dist.data.facts_cache import NAME
from wfc_dist.data.recordings import Recordings
from wfc_dist.errors import InputError

RATE = 16_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", 0.1 * np.random.default_rng(number).standard_normal(RATE * (number + 1)), RATE)
    return tmp_path


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the files that are opened, in order."""
    paths: list[str] = []
    real = module.audio_facts

    def facts(audio: AudioFile):
        paths.append(Path(audio.path).name)
        return real(audio)

    monkeypatch.setattr(module, "audio_facts", facts)
    return paths


def read(folder: Path, *, with_signs: bool = True) -> list[float]:
    reading = Recordings(with_signs=with_signs)
    reading.use_cache_of(folder)
    found = reading.of([AudioFile(str(folder / f"{number}.wav"), offset) for number in range(3) for offset in (0.0, 0.5)])
    reading.use_cache_of(None)
    return [one.facts.frames / one.facts.rate_hz for one in found]


def test_each_file_is_opened_once_and_the_next_time_none(folder: Path, looked: list[str]) -> None:
    first = read(folder)
    assert first == [1, 1, 2, 2, 3, 3] and sorted(looked) == ["0.wav", "1.wav", "2.wav"]
    looked.clear()
    assert read(folder) == first and looked == []
    assert (folder / NAME).is_file()


def test_a_file_that_changed_is_opened_again(folder: Path, looked: list[str]) -> None:
    read(folder)
    looked.clear()
    sf.write(folder / "1.wav", np.zeros(RATE * 5), RATE)
    assert read(folder) == [1, 1, 5, 5, 3, 3] and looked == ["1.wav"]
    looked.clear()
    os.utime(folder / "0.wav", ns=(1, 1))
    assert read(folder) == [1, 1, 5, 5, 3, 3] and looked == ["0.wav"]


def test_an_entry_without_a_look_at_the_samples_is_not_enough_for_the_audit(folder: Path, looked: list[str]) -> None:
    read(folder, with_signs=False)
    looked.clear()
    read(folder, with_signs=True)
    assert len(looked) == 3
    looked.clear()
    read(folder, with_signs=False)
    assert looked == []


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "pickle", "numbers", "packed"])
def test_a_damaged_cache_is_as_none(damage: str, folder: Path, looked: list[str]) -> None:
    wanted = read(folder)
    path, content = folder / NAME, (folder / NAME).read_bytes()
    if damage == "pickle":
        np.savez(folder / "x.npz", key=np.array([object()], dtype=object))
        content = (folder / "x.npz").read_bytes()
    elif damage == "numbers":
        with np.load(path) as file:
            arrays = dict(file)
        arrays["kind"] += 1000
        np.savez(folder / "x.npz", **arrays)
        content = (folder / "x.npz").read_bytes()
    elif damage == "packed":  # zeros that unpack to more than memory holds
        np.savez_compressed(folder / "x.npz", key=np.zeros(1 << 20, np.uint64))
        content = (folder / "x.npz").read_bytes()
    else:
        content = {"empty": b"", "text": b"no archive", "cut": content[: len(content) // 2]}[damage]
    path.write_bytes(content)
    looked.clear()
    assert read(folder) == wanted and len(looked) == 3
    looked.clear()
    assert read(folder) == wanted and looked == []


def test_a_folder_that_cannot_be_written_leaves_the_cache_to_the_user(folder, looked, monkeypatch, tmp_path_factory) -> None:
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    (folder / NAME).mkdir()  # no file can take its place
    wanted = read(folder)
    looked.clear()
    assert read(folder) == wanted and looked == []
    assert len(list(home.rglob("*.npz"))) == 1


def test_links_are_one_recording_and_errors_are_kept_apart(folder: Path) -> None:
    (folder / "link.wav").symlink_to(folder / "0.wav")
    reading = Recordings()
    paths = ["0.wav", "link.wav", "1.wav", "missing.wav"]
    first, link, other, missing = reading.of([AudioFile(str(folder / path)) for path in paths])
    assert first is link and first.number != other.number
    assert isinstance(missing, InputError) and "missing.wav is missing" in str(missing)
    assert [one.number for one in reading.by_number()] == [0, 1]


@pytest.mark.parametrize("year", [1950, 2500])
def test_a_time_of_change_may_be_far_away(year: int, folder: Path) -> None:
    far = (year - 1970) * 31_556_952
    os.utime(folder / "1.wav", (far, far))
    assert read(folder) == read(folder) == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to nothing"])
def test_what_is_no_cache_file_is_neither_waited_for_nor_read(kind: str, folder: Path, tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    path = folder / NAME
    {"pipe": os.mkfifo, "folder": os.mkdir, "link to nothing": lambda place: os.symlink("none", place)}[kind](path)
    assert read(folder) == read(folder) == [1, 1, 2, 2, 3, 3]


def test_the_parts_of_a_mix_are_opened_once_too(folder: Path, looked: list[str]) -> None:
    rows = "".join(f'{{"audio_filepath": "{number}.wav", "text": "words", "lang": "en"}}\n' for number in range(3))
    (folder / "train.jsonl").write_text(rows)
    part = {"source": str(folder), "splits": {"train": "train.jsonl"}}
    mix = {"format": "mix", "splits": {"train": "x"}, "parts": {"hub": {**part, "source": "org/name"}, "own": part}}
    mix["parts"]["hub"]["splits"] = {"dev": "dev"}  # no training clips, and no folder on this machine
    tree = {"run": {"name": "r"}, "base": {"model": "none"}, "datasets": {"m": mix}, "rounds": [["m"]]}
    config = loading.parse(tree)
    first = audit(config).rows[0]
    assert first.num_clips == 3 and sorted(looked) == ["0.wav", "1.wav", "2.wav"]
    looked.clear()
    assert audit(config).rows[0] == first and looked == []
