import sys
from pathlib import Path

import pytest
from recordings import PITCHES, heard, opened, tone, write, write_call, write_long

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data import audio_pipes
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


def directory(folder: Path, **files: str) -> Path:
    """Writes the files of a data directory; 'text' and 'segments' of three stretches of one recording by default."""
    usual = {
        "text": "".join(f"utt{number} text {number}\n" for number in range(3)),
        "segments": "".join(f"utt{number} rec {number}.0 {number + 1}.0\n" for number in range(3)),
    }
    (folder / "train").mkdir(parents=True, exist_ok=True)
    for name, content in (usual | files).items():
        if content:
            (folder / "train" / name).write_text(content)
    return folder


def write_archive(path: Path, kind: str) -> list[int]:
    """Writes three audio files into one archive, as wav-copy or ESPnet do; returns where they begin."""
    offsets, content = [], b""
    for number, pitch in enumerate(PITCHES):
        content += f"utt{number} ".encode()
        offsets.append(len(content))
        sound = write(path.with_suffix(f".{kind[:4].strip()}"), tone(pitch)).read_bytes()
        content += b"AUDIO\x03" + len(sound).to_bytes(3, "little") if "espnet" in kind else b""
        content += sound
    path.write_bytes(content)
    return offsets


def test_whole_recordings(tmp_path):
    for number, pitch in enumerate(PITCHES):
        write(tmp_path / "audio" / f"{number}.wav", pitch)
    scp = "".join(f"utt{number} ../audio/{number}.wav\n" for number in range(3))
    split = opened(directory(tmp_path, **{"wav.scp": scp}, segments=""), format="kaldi")
    assert heard(split) == CLIPS and [clip.id for clip in split.clips] == ["utt0", "utt1", "utt2"]


@pytest.mark.parametrize("path", ["long file.wav", "{folder}/train/long file.wav"])
def test_segments(tmp_path, path):
    write_long(tmp_path / "train" / "long file.wav")
    made = directory(tmp_path, **{"wav.scp": f"rec {path.format(folder=tmp_path)}\n"})
    assert heard(opened(made, format="kaldi")) == CLIPS


def test_a_segment_may_go_to_the_end(tmp_path):
    write_long(tmp_path / "train" / "long.wav")
    made = directory(tmp_path, **{"wav.scp": "rec long.wav\n"}, segments="u rec 2 -1\n", text="u the last\n")
    assert heard(opened(made, format="kaldi")) == [("the last", 1.0, 700)]


@pytest.mark.parametrize("kind", ["wav by wav-copy", "wav by espnet", "flac by espnet"])
def test_audio_in_an_archive(tmp_path, kind):
    (tmp_path / "train").mkdir()
    offsets = write_archive(tmp_path / "train" / "all.ark", kind)
    scp = "".join(f"utt{number} all.ark:{offset}\n" for number, offset in enumerate(offsets))
    assert heard(opened(directory(tmp_path, **{"wav.scp": scp}, segments=""), format="kaldi")) == CLIPS


@pytest.mark.process
def test_a_pipe_is_run_if_its_program_is_allowed(tmp_path):
    write_long(tmp_path / "a b.wav")
    program = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    scp = f"rec {sys.executable} -c \"{program}\" '{tmp_path}/a b.wav' |\n"
    made = directory(tmp_path, **{"wav.scp": scp})
    with pytest.raises(InputError, match=r"needs a shell"):  # the letters of the program, outside quotes or not
        opened(made, format="kaldi", allow_pipes=[Path(sys.executable).name])
    (tmp_path / "copy.py").write_text(program)
    directory(tmp_path, **{"wav.scp": f"rec {sys.executable} {tmp_path}/copy.py '{tmp_path}/a b.wav' |\n"})
    assert heard(opened(made, format="kaldi", allow_pipes=[sys.executable])) == CLIPS
    with pytest.raises(InputError, match=r"wav\.scp:1: the pipe would start the program 'python.*allow_pipes: \[python"):
        opened(made, format="kaldi", allow_pipes=["sph2pipe"])


@pytest.mark.process
@pytest.mark.parametrize(
    ("pipe", "message"),
    [
        ("sph2pipe -f wav a.sph |", r"would start the program 'sph2pipe'.*allow_pipes: \[sph2pipe\]"),
        ("/opt/sph2pipe -f wav a.sph |", r"would start the program 'sph2pipe'"),
        ("cat a.sph | sox - - |", "needs a shell"),
        ("cat a.sph|sox - - |", "needs a shell"),
        ("cat a.wav; rm b.wav |", "needs a shell"),
        ("cat $(ls) |", "needs a shell"),
        ("cat `ls` |", "needs a shell"),
        ("cat $HOME/a.wav |", "needs a shell"),
        ("cat < a.wav |", "needs a shell"),
        ("cat a.wav > b.wav |", "needs a shell"),
        ("cat a.wav & |", "needs a shell"),
        ("A=1 cat a.wav |", "would start the program 'A=1'"),
        ("cat 'a.wav |", "the pipe cannot be read"),
        ("|", "names no program"),
        ("cat none.wav |", r"cat none\.wav ended with 1: .*No such file"),
        ("true |", "true wrote no audio"),
        ("no-such-program-here a |", "cannot start no-such-program-here a"),
        ("echo text |", "cannot read audio echo text"),
    ],
)
def test_pipes_that_are_refused(tmp_path, pipe, message):
    made = directory(tmp_path, **{"wav.scp": f"rec {pipe}\n"}, segments="", text="rec text\n")
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(made, format="kaldi", allow_pipes=["cat", "true", "echo", "no-such-program-here"])


@pytest.mark.process
@pytest.mark.parametrize("place", ["./cat", "{folder}/cat", "/elsewhere/bin/cat"])
def test_a_program_that_a_corpus_brings_along_is_not_run(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    write_long(tmp_path / "a.wav")
    (tmp_path / "cat").write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    (tmp_path / "cat").chmod(0o755)
    made = directory(tmp_path, **{"wav.scp": f"rec {place.format(folder=tmp_path)} {tmp_path}/a.wav |\n"})
    assert heard(opened(made, format="kaldi", allow_pipes=["cat"])) == CLIPS
    assert not (tmp_path / "was-run").exists()


@pytest.mark.process
def test_a_pipe_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_pipes, "TIMEOUT_S", 0.1)
    made = directory(tmp_path, **{"wav.scp": "rec sleep 60 |\n"}, segments="", text="rec text\n")
    with pytest.raises(InputError, match=r"sleep 60 did not end within 0\.1 s"):
        opened(made, format="kaldi", allow_pipes=["sleep"])


@pytest.mark.parametrize(
    ("files", "side"),
    [
        ({"reco2file_and_channel": "rec call A\n"}, 0),
        ({"reco2file_and_channel": "rec call B\n"}, 1000),
        ({"reco2file_and_channel": "rec call 2\n"}, 1000),
        ({"segments": "".join(f"utt{number} rec {number} {number + 1} 1\n" for number in range(3))}, 1000),
    ],
)
def test_channels(tmp_path, files, side):
    write_call(tmp_path / "train" / "call.wav")
    split = opened(directory(tmp_path, **{"wav.scp": "rec call.wav\n"}, **files), format="kaldi")
    assert heard(split) == [(text, length, pitch + side) for text, length, pitch in CLIPS]


def test_a_mono_recording_is_channel_a(tmp_path):
    write_long(tmp_path / "train" / "long.wav")
    made = directory(tmp_path, **{"wav.scp": "rec long.wav\n", "reco2file_and_channel": "rec long A\n"})
    assert heard(opened(made, format="kaldi")) == CLIPS
    directory(tmp_path, reco2file_and_channel="rec long B\n")
    with pytest.raises(InputError, match=r"segments:1: .*long\.wav has 1 channels, so no channel 2"):
        opened(made, format="kaldi")


def test_a_group_is_a_speaker_or_a_recording_where_the_configuration_says_so(tmp_path):
    write_long(tmp_path / "train" / "long.wav")
    made = directory(tmp_path, **{"wav.scp": "rec long.wav\n", "utt2spk": "utt0 ann\nutt1 bob\nutt2 ann\n"})
    for column, groups in (("speaker", ["ann", "bob", "ann"]), ("recording", ["rec"] * 3)):
        assert [clip.group for clip in opened(made, format="kaldi", columns={"group": column}).clips] == groups
    (made / "train" / "utt2spk").unlink()
    with pytest.raises(InputError, match=r"no column 'speaker', which columns\.group names"):
        opened(made, format="kaldi", columns={"group": "speaker"})


def test_languages_of_utterances(tmp_path):
    write_long(tmp_path / "train" / "long.wav")
    languages = "utt0 en\nutt1 es\nutt2 en\n"
    made = directory(tmp_path, **{"wav.scp": "rec long.wav\n", "utt2lang": languages})
    split = open_split("set", DatasetConfig(source=str(made), format="kaldi", splits={"train": "train"}), "train")
    assert [clip.language for clip in split.clips] == ["en", "es", "en"]
    directory(tmp_path, utt2lang="utt0 en\nutt2 en\n")
    with pytest.raises(InputError, match=r"text:2: utt1 is not in utt2lang"):
        opened(made, format="kaldi")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav.scp": ""}, r"cannot read .*wav\.scp: No such file"),
        ({"text": ""}, r"cannot read .*text: No such file"),
        ({"wav.scp": "other long.wav\n"}, r"segments:1: rec is not in wav\.scp"),
        ({"segments": "utt0 rec 0 1\n"}, r"text:2: utt1 is not in segments"),
        ({"segments": "utt0 rec 0 1\nutt0 rec 0 1\n"}, r"segments:2: utt0 is there a second time, first in .*segments:1"),
        ({"text": "utt0 a\nutt0 b\n"}, r"text:2: utt0 is there a second time"),
        ({"wav.scp": "rec long.wav\nrec b.wav\n"}, r"wav\.scp:2: rec is there a second time"),
        ({"wav.scp": "rec\n"}, r"wav\.scp:1: nothing stands behind rec"),
        ({"wav.scp": "utt0 long\0.wav\n", "segments": "", "text": "utt0 text\n"}, r"long\\x00\.wav is missing"),
        ({"wav.scp": "rec long\0.ark:3\n"}, r"wav\.scp:1: cannot read .*embedded null (byte|character)"),
        ({"wav.scp": "rec -\n"}, r"wav\.scp:1: '-' is no audio"),
        ({"segments": "utt0 rec 0\n"}, r"segments:1: 'rec 0', expected `utterance recording start end"),
        ({"segments": "utt0 rec a b\n"}, r"segments:1: 'rec a b', expected"),
        ({"segments": "utt0 rec -2 1\n"}, r"segments:1: 'rec -2 1', expected"),
        ({"segments": "utt0 rec nan 1\n"}, r"segments:1: 'rec nan 1', expected"),
        ({"segments": "utt0 rec 0 1_0\n"}, r"segments:1: 'rec 0 1_0', expected"),
        (
            {"wav.scp": f"utt0 long.wav:{'9' * 5000}\n", "segments": "", "text": "utt0 text\n"},
            r"long\.wav:9999.* (is missing|File name too long)",
        ),
        ({"segments": "utt0 rec 2 1\n"}, r"text:1: end \(1 s\) is not behind the start"),
        ({"wav.scp": "rec none.ark:12\n"}, r"wav\.scp:1: cannot read .*none\.ark"),
        ({"wav.scp": "rec long.wav:12\n"}, r"wav\.scp:1: no wav file begins at byte 12"),
        ({"reco2file_and_channel": "rec call C\n"}, r"reco2file_and_channel:1: 'call C' is no file and channel"),
    ],
)
def test_what_does_not_fit_is_named_with_file_and_line(tmp_path, files, message):
    write_long(tmp_path / "train" / "long.wav")
    made = directory(tmp_path, **{"wav.scp": "rec long.wav\n"} | files)
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(made, format="kaldi")


@pytest.mark.parametrize("kind", ["wav by wav-copy", "wav by espnet"])
def test_an_archive_that_was_cut_off_is_named(tmp_path, kind):
    (tmp_path / "train").mkdir()
    offsets, archive = write_archive(tmp_path / "train" / "all.ark", kind), tmp_path / "train" / "all.ark"
    archive.write_bytes(archive.read_bytes()[:-100])
    scp = "".join(f"utt{number} all.ark:{offset}\n" for number, offset in enumerate(offsets))
    with pytest.raises(InputError, match=r"wav\.scp:3: .*all\.ark is cut off"):
        opened(directory(tmp_path, **{"wav.scp": scp}, segments=""), format="kaldi")


def test_keys_out_of_order_and_keys_of_no_utterance_are_told(tmp_path, caplog):
    write_long(tmp_path / "train" / "long.wav")
    files = {"wav.scp": "rec long.wav\nother b.wav\n", "text": "utt1 text 1\nutt0 text 0\n"}
    split = opened(directory(tmp_path, **files), format="kaldi")
    assert [clip.id for clip in split.clips] == ["utt1", "utt0"]
    said = "\n".join(caplog.messages)
    assert "text:2: the keys are not sorted" in said and "wav.scp:2: the keys are not sorted" in said
    assert "segments:3: 1 keys of segments are in no other file" in said
    assert "wav.scp:2: 1 keys of wav.scp are in no other file" in said


def test_windows_line_ends_and_an_empty_text(tmp_path):
    write_long(tmp_path / "train" / "long.wav")
    made = directory(tmp_path, **{"wav.scp": "rec long.wav\r\n"}, text="utt0\r\nutt1\ttext  1\r\n")
    assert [clip.text for clip in opened(made, format="kaldi").clips] == ["", "text  1"]


def test_an_archive_of_endless_wav_files_is_refused(tmp_path):
    path = write(tmp_path / "train" / "a.ark.wav", tone(300))
    head = path.read_bytes()
    (tmp_path / "train" / "a.ark").write_bytes(b"rec " + head[:4] + b"\xff\xff\xff\xff" + head[8:])
    made = directory(tmp_path, **{"wav.scp": "rec a.ark:4\n"}, segments="", text="rec text\n")
    with pytest.raises(InputError, match=r"wav\.scp:1: the wav file at byte 4 .* does not say its size"):
        opened(made, format="kaldi")
