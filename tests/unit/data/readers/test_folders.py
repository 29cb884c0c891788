import gzip
import json
from pathlib import Path

import pytest
from recordings import PITCHES, heard, opened, tone, write, write_call, write_long

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


def write_folder(folder: Path) -> Path:
    for number, pitch in enumerate(PITCHES):
        write(folder / "train" / "audio" / f"{number}.wav", pitch)
    return folder


def metadata(suffix: str) -> bytes:
    rows = [{"file_name": f"audio/{number}.wav", "text": f"text {number}"} for number in range(3)]
    if suffix.startswith("jsonl"):
        content = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        separator = "," if suffix.startswith("csv") else "\t"
        content = "".join(separator.join(line) + "\r\n" for line in [list(rows[0]), *(list(row.values()) for row in rows)])
    return gzip.compress(content.encode(), mtime=0) if suffix.endswith(".gz") else content.encode()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz"])
def test_metadata(tmp_path, suffix):
    (write_folder(tmp_path) / "train" / f"metadata.{suffix}").write_bytes(metadata(suffix))
    assert heard(opened(tmp_path, format="folder")) == CLIPS


def test_a_text_beside_every_recording(tmp_path):
    for number, path in enumerate(sorted(write_folder(tmp_path).rglob("*.wav"))):
        path.with_suffix(".txt").write_text(f"\ufefftext {number}\r\n")
    assert heard(opened(tmp_path, format="folder")) == CLIPS


def test_a_quotation_mark_may_be_a_letter(tmp_path):
    lines = 'file_name,text\naudio/0.wav,"Hello\naudio/1.wav,"yes" he said\n'
    (write_folder(tmp_path) / "train" / "metadata.csv").write_text(lines)
    split = opened(tmp_path, format="folder", quoting="none")
    assert [clip.text for clip in split.clips] == ['"Hello', '"yes" he said']


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_stretches_and_channels(tmp_path, suffix):
    write_long(tmp_path / "train" / "long.wav")
    write_call(tmp_path / "train" / "call.wav")
    rows = [{"file_name": "long.wav", "start": n, "end": n + 1, "channel": "", "text": f"text {n}"} for n in range(3)]
    rows += [row | {"file_name": "call.wav", "channel": 1} for row in rows]
    if suffix == "csv":
        lines = [list(rows[0]), *(map(str, row.values()) for row in rows)]
        (tmp_path / "train" / "metadata.csv").write_text("".join(",".join(line) + "\n" for line in lines))
    else:
        (tmp_path / "train" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert heard(opened(tmp_path, format="folder")) == CLIPS + [(text, length, pitch + 1000) for text, length, pitch in CLIPS]


def test_audio_elsewhere(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "metadata.csv").write_text("wav,text\n/their/0.wav,text 0\n")
    keys = {"audio_dir": "train/audio", "path_parts": 1, "audio_column": "wav"}
    assert heard(opened(tmp_path, "texts", format="folder", **keys)) == CLIPS[:1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_one_metadata_file_for_all_splits(tmp_path, suffix):
    write_folder(tmp_path)
    write(tmp_path / "test" / "audio" / "0.wav", 900)
    content = metadata(suffix).replace(b"audio/0", b"./train/audio/0").replace(b"audio/1", b"train/audio/1")
    (tmp_path / f"metadata.{suffix}").write_bytes(content.replace(b"audio/2", b"test/audio/0"))
    assert heard(opened(tmp_path, format="folder")) == CLIPS[:2]
    assert heard(opened(tmp_path, "test", format="folder")) == [("text 2", 1.0, 900)]


def test_texts_and_recordings_without_their_other_half(tmp_path, caplog):
    for number, path in enumerate(sorted(write_folder(tmp_path).rglob("*.wav"))):
        path.with_suffix(".txt").write_text(f"text {number}")
    (tmp_path / "train" / "audio" / "9.txt").write_text("alone")
    assert heard(opened(tmp_path, format="folder")) == CLIPS
    assert any("9.txt: 1 texts have no recording beside them" in said for said in caplog.messages)
    write(tmp_path / "train" / "audio" / "0.flac", tone(300))
    with pytest.raises(InputError, match=r"0\.flac and .*0\.wav have one text, 0\.txt"):
        opened(tmp_path, format="folder")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"metadata.csv": "file_name,text\n", "metadata.jsonl": ""}, r"has metadata\.csv and metadata\.jsonl; take one"),
        ({"metadata.csv": "file,text\na,b\n"}, r"metadata\.csv:2: no file_name \(there is: file, text\)"),
        ({"metadata.csv": "file_name,text\n,b\n"}, r"metadata\.csv:2: no file_name"),
        ({"metadata.jsonl": '{"file_name": 3, "text": "b"}\n'}, r"metadata\.jsonl:1: no file_name"),
        ({"metadata.jsonl": '{"file_name": "a", "file_name": "b"}\n'}, r"metadata\.jsonl:1: .*the key 'file_name' comes twice"),
        ({"metadata.csv": ""}, "no clips in"),
        ({}, r"0\.wav has no readable transcript 0\.txt"),
    ],
)
def test_what_a_folder_lacks_is_named(tmp_path, files, message):
    write_folder(tmp_path)
    for name, content in files.items():
        (tmp_path / "train" / name).write_text(content)
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(tmp_path, format="folder")


def test_rows_that_no_split_has_are_told(tmp_path, caplog):
    rows = ["file_name,text", "train/audio/0.wav,text 0", "test/audio/1.wav,text 1", "Train/audio/2.wav,text 2", "2.wav,text 2"]
    (write_folder(tmp_path) / "metadata.csv").write_text("\n".join(rows))
    (tmp_path / "test").mkdir()
    dataset = DatasetConfig(source=str(tmp_path), format="folder", language="en", splits={"train": "train", "test": "test"})
    assert [clip.text for clip in open_split("set", dataset, "train").clips] == ["text 0"]
    assert any("metadata.csv:4: 2 rows have no audio in the folder of a split" in line for line in caplog.messages)
