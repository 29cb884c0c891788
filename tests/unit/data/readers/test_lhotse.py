import gzip
import json
from pathlib import Path

import pytest
from recordings import PITCHES, heard, opened, tone, write, write_call, write_long
from unit.data.readers.test_archives import write_tar

from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


def recording(path: str = "long.wav", **changes) -> dict:
    return {
        "id": "rec", "sources": [{"type": "file", "channels": [0], "source": path}], "sampling_rate": 16_000,
        "num_samples": 48_000, "duration": 3.0, "channel_ids": [0], **changes,
    }  # fmt: skip


def supervision(number: int, start: float, **changes) -> dict:
    return {
        "id": f"sup{number}", "recording_id": "rec", "start": start, "duration": 1.0, "channel": 0, "text": f"text {number}",
        "language": "English", "speaker": "x", **changes,
    }  # fmt: skip


def cut(supervisions: list[dict], start: float = 0, **changes) -> dict:
    """Returns a cut as lhotse 1.33 writes it."""
    return {
        "id": "cut", "start": start, "duration": 3.0, "channel": 0, "supervisions": supervisions, "recording": recording(),
        "type": "MonoCut", **changes,
    }  # fmt: skip


def write_lines(path: Path, lines: list[dict]) -> Path:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path.parent


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
@pytest.mark.parametrize(
    "lines",
    [
        [cut([supervision(number, number) for number in range(3)])],
        [cut([supervision(number, 0.0)], start=number, duration=1.0) for number in range(3)],
        [cut([supervision(0, -1e-3)]), cut([supervision(1, 0.5)], start=0.5), cut([]), cut([supervision(2, -1)], start=3)],
    ],
    ids=["several supervisions a cut", "trimmed", "before the cut's start"],
)
def test_cuts(tmp_path, name, lines):
    write_long(tmp_path / "long.wav")
    split = opened(write_lines(tmp_path / name, lines), name, format="lhotse")
    assert heard(split) == CLIPS and [clip.id for clip in split.clips] == ["sup0", "sup1", "sup2"]


@pytest.mark.parametrize(("column", "groups"), [("speaker", ["0", "1", "0"]), ("recording", ["rec"] * 3)])
def test_a_group_is_a_speaker_or_a_recording_where_the_configuration_says_so(tmp_path, column, groups):
    write_long(tmp_path / "long.wav")
    made = write_lines(
        tmp_path / "cuts.jsonl", [cut([supervision(number, number, speaker=str(number % 2)) for number in range(3)])]
    )
    split = opened(made, "cuts.jsonl", format="lhotse", columns={"group": column})
    assert [clip.group for clip in split.clips] == groups


def test_supervisions_with_their_recordings(tmp_path):
    write_long(tmp_path / "audio" / "long.wav")
    write_lines(tmp_path / "my_recordings_train.jsonl", [recording("/their/audio/long.wav")])
    write_lines(tmp_path / "my_supervisions_train.jsonl", [supervision(number, number) for number in range(3)])
    assert heard(opened(tmp_path, "my_supervisions_train.jsonl", format="lhotse", path_parts=2)) == CLIPS
    write_lines(tmp_path / "my_recordings_train.jsonl", [recording(id="other")])
    with pytest.raises(InputError, match=r"my_supervisions_train\.jsonl:1: no recording 'rec' in .*my_recordings_train\.jsonl"):
        opened(tmp_path, "my_supervisions_train.jsonl", format="lhotse")


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", ["MonoCut", "MultiCut"])
def test_channels(tmp_path, kind, side):
    write_call(tmp_path / "call.wav")
    sources = [{"type": "file", "channels": [0, 1], "source": "call.wav"}]
    line = cut([supervision(number, number, channel=[side] if kind == "MultiCut" else side) for number in range(3)], type=kind)
    write_lines(tmp_path / "cuts.jsonl", [line | {"recording": recording(sources=sources, channel_ids=[0, 1])}])
    assert heard(opened(tmp_path, "cuts.jsonl", format="lhotse")) == [(text, s, pitch + 1000 * side) for text, s, pitch in CLIPS]


def test_channels_in_files_of_their_own(tmp_path):
    write(tmp_path / "a.wav", 300)
    write(tmp_path / "b.wav", 500)
    sources = [{"type": "file", "channels": [number], "source": f"{name}.wav"} for number, name in enumerate("ab")]
    lines = [cut([supervision(number, 0, channel=number)]) | {"recording": recording(sources=sources)} for number in (0, 1)]
    assert heard(opened(write_lines(tmp_path / "cuts.jsonl", lines), "cuts.jsonl", format="lhotse")) == CLIPS[:2]


def test_a_shar_folder(tmp_path):
    shar = tmp_path / "shar"
    for shard, numbers in enumerate([(0, 1), (2,)]):
        files, lines = {}, []
        for number in numbers:
            files[f"cut{number}.flac"] = write(tmp_path / "a.flac", tone(PITCHES[number])).read_bytes()
            files[f"cut{number}.json"] = json.dumps(recording(sources=[{"type": "shar", "channels": [0], "source": ""}])).encode()
            shar_recording = recording(sources=[{"type": "shar", "channels": [0], "source": ""}])
            lines.append(cut([supervision(number, 0)], id=f"cut{number}", recording=shar_recording))
        write_tar(shar / f"recording.{shard:06d}.tar", files)
        write_lines(shar / f"cuts.{shard:06d}.jsonl.gz", lines)
    assert heard(opened(tmp_path, "shar", format="lhotse")) == CLIPS
    write_lines(shar / "cuts.000001.jsonl.gz", [lines[0] | {"id": "other"}])
    with pytest.raises(InputError, match=r"cuts\.000001\.jsonl\.gz:1: no audio of other in .*recording\.000001\.tar"):
        opened(tmp_path, "shar", format="lhotse")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty is no Shar folder"):
        opened(tmp_path, "empty", format="lhotse")


def source(kind: str) -> dict:
    return {"recording": recording(sources=[{"type": kind, "channels": [0], "source": "x"}])}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"id": "x", "tracks": [], "type": "MixedCut"}, "a MixedCut is no stretch of one recording"),
        ({"id": "x", "duration": 1.0, "type": "PaddingCut"}, "a PaddingCut is no stretch"),
        ({"audio_filepath": "a.wav", "text": "x"}, "a line without type is no stretch"),
        (cut([supervision(0, 0, channel=[0, 1])], type="MultiCut"), r"of the channels \[0, 1\]"),
        (cut([supervision(0, 0, channel=1)]), "the recording has no channel 1"),
        (cut([supervision(0, 0)], recording=recording(transforms=[{"name": "Speed"}])), "the recording has transforms"),
        (cut([supervision(0, 0)], recording=None, features={}), "the cut has no recording"),
        (cut([supervision(0, 0)], **source("url")), "the audio is of type 'url', only files are read"),
        (cut([supervision(0, 0)], **source("command")), "the audio is of type 'command'"),
        (cut([supervision(0, 0)], **source("memory")), "the audio is of type 'memory'"),
        (cut([supervision(0, 0)], **source("shar")), "the audio is of type 'shar'"),
        (cut([supervision(0, -1)]), "offset is -1"),
        (cut([supervision(0, "0")]), "start is '0', which no manifest"),
        (cut([supervision(0, 0, duration=None)]), "duration is 'None', which no manifest"),
        (cut(["x"]), "a supervision is 'x', not an object"),
        (cut(None), "supervisions is 'None'"),
        (cut([supervision(0, 0)], start=True), "start is 'True'"),
        (cut([supervision(0, 0)], recording={"sources": ["x"]}), "the recording has no channel 0"),
        (cut([supervision(0, 0)], recording={}), "sources is 'None'"),
    ],
)  # fmt: skip
def test_what_is_no_clip_of_a_file_is_named(tmp_path, line, message):
    write_long(tmp_path / "long.wav")
    write_lines(tmp_path / "cuts.jsonl", [cut([supervision(1, 1)]), line])
    with pytest.raises(InputError, match=rf"^set/train: .*cuts\.jsonl:2: .*{message}"):
        opened(tmp_path, "cuts.jsonl", format="lhotse")


def test_cuts_without_supervisions_are_counted(tmp_path, caplog):
    write_long(tmp_path / "long.wav")
    write_lines(tmp_path / "cuts.jsonl", [cut([]), cut([supervision(0, 0)])])
    with caplog.at_level("INFO"):
        assert heard(opened(tmp_path, "cuts.jsonl", format="lhotse")) == CLIPS[:1]
    assert any("1 cuts without supervisions are left out" in said for said in caplog.messages)


def test_a_supervision_without_text_is_an_empty_text(tmp_path):
    write_long(tmp_path / "long.wav")
    line = supervision(0, 0)
    del line["text"]
    split = opened(write_lines(tmp_path / "cuts.jsonl", [cut([line])]), "cuts.jsonl", format="lhotse")
    assert [clip.text for clip in split.clips] == [""]
