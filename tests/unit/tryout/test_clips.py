"""A clip is a file that was uploaded to the page, and audio of a bearable size; everything else is refused in words."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wfc_dist.errors import InputError
from wfc_dist.tryout import clips


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    (folder / "a").mkdir(parents=True)
    sf.write(folder / "a" / "talk.wav", np.zeros(8000, np.float32), 16_000)
    return folder


def test_a_clip_and_its_length(uploads: Path) -> None:
    path = uploads / "a" / "talk.wav"
    assert clips.require_clip(str(path), uploads) == (path, 0.5)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{uploads}/../secret.wav", "{uploads}/link.wav", "{uploads}/none.wav", "{uploads}", "http://127.0.0.1/a.wav"],
)
def test_a_file_that_was_not_uploaded_is_refused(uploads: Path, path: str) -> None:
    sf.write(uploads.parent / "secret.wav", np.zeros(8000, np.float32), 16_000)
    (uploads / "link.wav").symlink_to(uploads.parent / "secret.wav")
    with pytest.raises(InputError, match="was not uploaded here"):
        clips.require_clip(path.format(uploads=uploads), uploads)


@pytest.mark.parametrize(
    ("limits", "content", "message"),
    [
        ({}, None, "there is no clip; record one"),
        ({}, b"no audio", "talk.wav cannot be read as audio"),
        ({}, "empty", "talk.wav is empty; record it again"),
        ({"MAX_S": 0.4}, "half", "lasts 0.0 minutes; the page takes"),
        ({"MAX_MB": 0.001}, "half", "the page takes 0.001 MB, `wfc transcribe` takes any size"),
    ],
)
def test_what_is_no_clip_is_refused_without_naming_the_folder(uploads: Path, monkeypatch, limits, content, message) -> None:
    path = uploads / "a" / "talk.wav"
    if content == "empty":
        sf.write(path, np.zeros(0, np.float32), 16_000)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    for name, value in limits.items():
        monkeypatch.setattr(clips, name, value)
    with pytest.raises(InputError, match=message) as refused:
        clips.require_clip(None if content is None else str(path), uploads)
    assert str(uploads) not in refused.value.message
