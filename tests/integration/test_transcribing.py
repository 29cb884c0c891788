"""`wfc transcribe` on real speech with whisper-base: files, folders, long audio, times, formats, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from processes import wfc

import wfc_dist
from wfc_dist.data.audio_files import RATE_HZ, AudioFile, decode
from wfc_dist.errors import InputError
from wfc_dist.evaluation import any_model

REPO = Path(__file__).parents[2]
WHISPER = REPO / "models" / "whisper-base"
CLIP = REPO / "examples" / "demo" / "data" / "en" / "audio" / "is-set-to.opus"
pytestmark = pytest.mark.skipif(not WHISPER.is_dir(), reason="needs models/whisper-base: make models/whisper-base/config.json")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with a short recording, and one of 31 s in a sub-folder, made of clips in a row."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("talks")
    rows = [json.loads(line) for line in (CLIP.parents[1] / "test.jsonl").read_text().splitlines()]
    clips = [decode(AudioFile(str(CLIP.parents[1] / row["audio_filepath"]))) for row in rows]
    audio, gap = np.zeros(0, np.float32), np.zeros(RATE_HZ // 2, np.float32)
    for clip in clips:
        audio = np.concatenate([audio, clip, gap]) if len(audio) < 31 * RATE_HZ else audio
    (folder / "deep").mkdir()
    sf.write(folder / "deep" / "long.flac", audio, RATE_HZ)
    sf.write(folder / "short.wav", clips[0], RATE_HZ)
    return folder


def test_a_folder_becomes_files_with_times_and_reports_how_far_it_is(talks: Path) -> None:
    told = []
    said = list(
        wfc_dist.transcribe(
            WHISPER, [talks], language="English", timestamps="word", told=lambda path, done, total: told.append((done, total))
        )
    )
    assert [item.path.name for item in said] == ["long.flac", "short.wav"] and {item.language for item in said} == {"en"}
    for item in said:
        times = [time for segment in item.segments for word in segment.words for time in (word.start_s, word.end_s)]
        assert times == sorted(times) and times[0] >= 0 and times[-1] <= item.duration_s
        spoken = " ".join(word.text for segment in item.segments for word in segment.words)
        assert spoken.split() == item.text.split()
    assert said[0].segments[-1].end_s > 30 and len(said[0].segments) > 3
    assert [done for done, _ in told] == sorted(done for done, _ in told) and told[0][0] == 0 and told[-1][0] == told[-1][1]
    assert len(told) > 4  # also within the long file


def test_a_long_file_has_a_text_without_times_and_the_language_is_detected(talks: Path) -> None:
    (said,) = wfc_dist.transcribe(WHISPER, [talks / "deep"])
    assert said.language == "en" and said.segments == () and len(said.text.split()) > 30


def test_the_command_writes_a_file_for_each_recording_and_nothing_else(talks: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("short.wav", "deep/again.wav"):
        (tmp_path / "in" / name).write_bytes((talks / "short.wav").read_bytes())
    done = wfc("transcribe", WHISPER, tmp_path / "in", "--format", "srt", "--out", tmp_path / "out", "--language", "en")
    assert done.stdout == ""
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")) == [
        "deep/again.srt", "short.srt",
    ]  # fmt: skip
    assert (tmp_path / "out" / "deep" / "again.srt").read_text().startswith("1\n00:00:0")
    alone = wfc("transcribe", WHISPER, talks / "short.wav", "--format", "json")
    assert json.loads(alone.stdout)["language"] == "en"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "Spnish"}, "language 'Spnish' is none of Whisper's languages; did you mean 'Spanish'"),
        ({"language": "xx"}, "language 'xx' is none"),
        ({"task": "translte"}, "did you mean 'translate'"),
        ({"timestamps": "words"}, "did you mean 'word'"),
        ({"files": [CLIP, "notes.wav"]}, "cannot read audio notes.wav"),
        ({"files": [CLIP, "empty.wav"]}, "empty.wav is empty"),
        ({"files": ["none.wav"]}, "no such audio file: none.wav"),
    ],
)
def test_what_cannot_be_done_is_named_before_a_model_is_loaded(tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.wav").write_text("no audio")
    sf.write("empty.wav", np.zeros(0, np.float32), RATE_HZ)
    monkeypatch.setattr(any_model, "load_model", lambda model: pytest.fail("loaded"))
    with pytest.raises(InputError, match=message):
        list(wfc_dist.transcribe(WHISPER, **{"files": [CLIP], **arguments}))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"is_multilingual": False}, {"language": "es"}, "language 'es': .* is an English-only model"),
        ({"is_multilingual": False}, {"task": "translate"}, "English only and cannot translate"),
        ({}, {"language": "yue"}, "language 'yue': .* has no token for it"),
        ({"alignment_heads": None}, {"timestamps": "word"}, "no alignment_heads"),
        ({"no_timestamps_token_id": 51864}, {"timestamps": "segment"}, "no tokens for times"),
    ],
)
def test_what_the_model_cannot_is_named_before_anything_is_decoded(monkeypatch, changes, arguments, message) -> None:
    loaded = any_model.load_model(WHISPER)
    for key, value in changes.items():
        setattr(loaded.model.generation_config, key, value)
    monkeypatch.setattr(any_model, "load_model", lambda model: loaded)
    monkeypatch.setattr(type(loaded.model), "generate", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(InputError, match=message):
        list(wfc_dist.transcribe(WHISPER, [CLIP], **arguments))
