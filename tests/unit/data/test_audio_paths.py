"""Files, folders and patterns of audio, and what is written for each."""

from pathlib import Path

import pytest

from wfc_dist.data.audio_paths import FoundAudio, find_audio, output_names
from wfc_dist.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.wav", "a.FLAC", "notes.txt", "deep/c.mp3", "deep/a.wav", "x[1].wav"):
        path = tmp_path / "talks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["talks/b.wav"], ["b.wav"]),
        (["talks/notes.txt"], ["notes.txt"]),  # named by hand: whoever reads it says what it is
        (["talks"], ["a.FLAC", "b.wav", "deep/a.wav", "deep/c.mp3", "x[1].wav"]),
        (["talks/*"], ["a.FLAC", "b.wav", "a.wav", "c.mp3", "x[1].wav"]),
        (["talks/*.wav"], ["b.wav", "x[1].wav"]),
        (["talks/**/*.wav"], ["b.wav", "a.wav", "x[1].wav"]),
        (["talks/x[1].wav"], ["x[1].wav"]),
        (["talks/b.wav", "talks/?.wav", "talks/b.wav"], ["b.wav"]),
    ],
)
def test_places_become_files(folder, places, names):
    found = find_audio([folder / place for place in places])
    assert [name.as_posix() for _, name in found] == names and all(path.is_file() for path, _ in found)


@pytest.mark.parametrize(
    ("place", "message"),
    [("none.wav", "no such audio file"), ("talks/*.ogg", "no such audio file"), ("empty", "has no audio file; known endings")],
)
def test_a_place_without_audio_is_named(folder, place, message):
    with pytest.raises(InputError, match=message) as caught:
        find_audio([folder / "talks", folder / place])
    assert place in str(caught.value)


def test_what_is_written_keeps_sub_folders(folder):
    names = output_names(find_audio([folder / "talks"]), "srt")
    assert [name.as_posix() for name in names] == ["a.srt", "b.srt", "deep/a.srt", "deep/c.srt", "x[1].srt"]


def test_two_files_with_one_name_are_refused():
    found = [FoundAudio(Path("x/a.wav"), Path("a.wav")), FoundAudio(Path("y/a.mp3"), Path("a.mp3"))]
    with pytest.raises(InputError, match=r"x/a\.wav and y/a\.mp3 would both be written to a\.txt"):
        output_names(found, "txt")
