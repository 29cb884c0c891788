from pathlib import Path

import pytest
from recordings import PITCHES, heard, opened, write, write_call, write_long

from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


def write_stm(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.stm").write_text("\n".join([*lines, ""]))
    return folder


def lines(channel: str = "1", labels: str = "<o,f0,female> ") -> list[str]:
    return [f"long {channel} speaker {number}.0 {number + 1}.0 {labels}text {number}" for number in range(3)]


@pytest.mark.parametrize("labels", ["<o,f0,female> ", "", "<O,F0,M> ", "<F0_M> ", "<o> ", "<o,,unknown> "])
@pytest.mark.parametrize("channel", ["1", "A", "a"])
def test_segments_of_a_mono_recording(tmp_path, channel, labels):
    write_long(tmp_path / "sph" / "long.flac")
    assert heard(opened(write_stm(tmp_path, [";; a comment", "", *lines(channel, labels)]), "train.stm", format="stm")) == CLIPS


@pytest.mark.parametrize(("channel", "side"), [("A", 0), ("1", 0), ("B", 1000), ("2", 1000)])
def test_channels_of_a_call(tmp_path, channel, side):
    write_call(tmp_path / "audio" / "long.wav")
    split = opened(write_stm(tmp_path / "stm", lines(channel)), "train.stm", format="stm", audio_dir="../audio")
    assert heard(split) == [(text, length, pitch + side) for text, length, pitch in CLIPS]


@pytest.mark.parametrize(("column", "groups"), [("speaker", ["0", "1", "0"]), ("recording", ["long"] * 3)])
def test_a_group_is_a_speaker_or_a_recording_where_the_configuration_says_so(tmp_path, column, groups):
    write_long(tmp_path / "sph" / "long.flac")
    made = write_stm(tmp_path, [line.replace("speaker", str(number % 2)) for number, line in enumerate(lines())])
    split = opened(made, "train.stm", format="stm", columns={"group": column})
    assert [clip.group for clip in split.clips] == groups
    assert not any(clip.group for clip in opened(made, "train.stm", format="stm").clips)


def test_all_files_of_a_folder(tmp_path):
    for number, pitch in enumerate(PITCHES):
        write(tmp_path / "sph" / f"talk.{number}.wav", pitch)
        line = f"talk.{number} 1 speaker 0 1 <o,f0,male> text {number}\n"
        (tmp_path / "stm").mkdir(exist_ok=True)
        (tmp_path / "stm" / f"talk.{number}.stm").write_text(line)
    assert heard(opened(tmp_path, "stm", format="stm", audio_dir="sph")) == CLIPS


def test_segments_without_words_are_left_out_and_counted(tmp_path, caplog):
    write_long(tmp_path / "long.wav")
    gaps = ["long 1 inter_segment_gap 0 1 <o,,unknown>", "long 1 x 1 2 <o,f0,male> ignore_time_segment_in_scoring",
            "long 1 x 1 2 IGNORE_TIME_SEGMENT_IN_SCORING"]  # fmt: skip
    with caplog.at_level("INFO"):
        assert heard(opened(write_stm(tmp_path, gaps + lines()), "train.stm", format="stm")) == CLIPS
    assert any("3 segments without words are left out, first: " in said and "train.stm:1" in said for said in caplog.messages)


def test_a_file_may_be_named_with_its_suffix(tmp_path):
    write_long(tmp_path / "long.wav")
    write(tmp_path / "long.flac", 900)
    named = [line.replace("long", "long.wav") for line in lines()]
    assert heard(opened(write_stm(tmp_path, named), "train.stm", format="stm")) == CLIPS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("long 1 speaker 0", r"train\.stm:1: .*expected `file channel speaker begin end"),
        ("long 1 speaker 0 one text", r"train\.stm:1: 'one' stands where seconds are expected"),
        ("long 1 speaker 2 1 text", r"train\.stm:1: end \(1 s\) is not behind"),
        ("long 1 speaker -1 1 text", r"train\.stm:1: start is -1"),
        ("long C speaker 0 1 text", r"train\.stm:1: channel 'C', expected A, B, 1, 2"),
        ("long 0 speaker 0 1 text", r"train\.stm:1: channel '0', expected"),
        ("long 2 speaker 0 1 text", r"train\.stm:1: .*long\.wav has 1 channels, so no channel 2"),
        ("none 1 speaker 0 1 text", r"train\.stm:1: no audio file none\.\* in"),
        ("twice 1 speaker 0 1 text", r"train\.stm:1: .*twice\.flac and .*twice\.wav may both be twice"),
        ("long 1 speaker 0 1 { um / uh / @ } text", r"train\.stm:1: the text has alternatives"),
    ],
)
def test_what_is_no_segment_is_named_with_file_and_line(tmp_path, line, message):
    write_long(tmp_path / "long.wav")
    write(tmp_path / "a" / "twice.wav", 300)
    write(tmp_path / "b" / "twice.wav", 300).rename(tmp_path / "a" / "twice.flac")
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(write_stm(tmp_path, [line]), "train.stm", format="stm")


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*train\.stm: No such file"):
        opened(tmp_path, "train.stm", format="stm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty has no \.stm file"):
        opened(tmp_path, "empty", format="stm")
