import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from recordings import PITCHES, heard, opened, tone, write, write_call, write_long
from unit.data.readers.test_archives import write_tar

from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "spools"))


def rows(folder: Path) -> list[dict]:
    return [
        {"audio": {"bytes": write(folder / "sound.wav", pitch).read_bytes(), "path": f"{n}.wav"}, "text": f"text {n}"}
        for n, pitch in enumerate(PITCHES)
    ]


def table(rows: list[dict]) -> datasets.Dataset:
    return datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))


def write_parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table(rows).to_parquet(path)
    return path


def write_layout(folder: Path, names: list[str]) -> Path:
    """Writes a parquet file with one row for each name, in order; the other configuration has other rows."""
    for name, row in zip(names, rows(folder.parent), strict=False):
        write_parquet(folder / name, [row])
    write_parquet(folder / "other" / "train" / "0000.parquet", [rows(folder.parent)[0] | {"text": "of another configuration"}])
    return folder


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("names", "split", "keys"),
    [
        ([f"data/train-{n:05d}-of-00003.parquet" for n in range(3)], "train", {}),
        ([f"train-{n:05d}-of-00003.parquet" for n in range(3)], "train", {}),
        ([f"en_us/train/{n:04d}.parquet" for n in range(3)], "train", {"subset": "en_us"}),
        ([f"en_us/train/{n:04d}.parquet" for n in range(3)], "en_us/train", {}),
        ([f"x/{n}.parquet" for n in "abc"], "x/*.parquet", {}),
    ],
)
def test_parquet_folders(tmp_path, names, split, keys, streaming):
    made = write_layout(tmp_path / "made", names)
    assert heard(opened(made, split, format="parquet", streaming=streaming, **keys)) == CLIPS


@pytest.mark.parametrize("source", ["", "train.parquet"])
def test_one_parquet_file(tmp_path, source):
    write_parquet(tmp_path / "made" / "train.parquet", rows(tmp_path))
    assert heard(opened(tmp_path / "made" / source, "train", format="parquet")) == CLIPS


@pytest.mark.parametrize(
    ("names", "split", "keys", "message"),
    [
        (["a.parquet"], "train", {}, r"no parquet file of 'train' in .*it has: a\.parquet, other"),
        (["a.parquet"], "a", {"subset": "en_us"}, r"en_us is no folder; check source and subset"),
        (["train-00000-of-00002.parquet"], "train", {}, r"train-00001-of-00002\.parquet is missing"),
        (["train-00001-of-00002.parquet"], "train-*.parquet", {}, r"train-00000-of-00002\.parquet is missing"),
        (["partial-train/0000.parquet"], "train", {}, r"partial-train has only a part of the rows"),
        (["a.parquet"], "a", {"text_column": "words"}, r"no column 'words'; set text_column to one of: audio, text"),
        (["a.parquet"], "a", {"audio_column": "text", "text_column": "audio"}, r"column 'audio' is audio or the like, not text"),
        (["a.parquet"], "a", {"text_column": "audio"}, r"column 'audio' is audio or the like, not text"),
    ],
)
def test_parquet_files_that_are_missing_are_named(tmp_path, names, split, keys, message):
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(write_layout(tmp_path / "made", names), split, format="parquet", **keys)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1 cut off PAR1"])
def test_damaged_parquet_files_are_named(tmp_path, content, streaming):
    path = write_parquet(tmp_path / "made" / "train.parquet", rows(tmp_path))
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^set/train: cannot (read|fetch) .*made"):
        opened(tmp_path / "made", "train", format="parquet", streaming=streaming)


def write_audio_folder(folder: Path) -> None:
    for number, pitch in enumerate(PITCHES):
        write(folder / "train" / f"{number}.wav", pitch)
    lines = "".join(f"{number}.wav,text {number}\n" for number in range(3))
    (folder / "train" / "metadata.csv").write_text(f"file_name,text\n{lines}")


def write_repository(folder: Path, kind: str) -> Path:
    """Writes a repository of the hub as a folder."""
    if kind == "parquet":
        return write_parquet(folder / "train-00000-of-00001.parquet", rows(folder.parent)).parent
    if kind == "audio folder":
        write_audio_folder(folder)
        return folder
    if kind == "webdataset":
        files = {}
        for row in rows(folder.parent):
            files |= {
                row["audio"]["path"]: row["audio"]["bytes"],
                row["audio"]["path"].replace("wav", "txt"): row["text"].encode(),
            }
        return write_tar(folder / "train-0.tar", files).parent
    folder.mkdir()
    for number, pitch in enumerate(PITCHES):
        write(folder.parent / f"{number}.wav", pitch)
    lines = [{"audio": str(folder.parent / f"{number}.wav"), "text": f"text {number}"} for number in range(3)]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("kind", ["parquet", "paths", "audio folder", "webdataset"])
def test_repositories_are_streamed(tmp_path, kind):
    keys = {"audio_column": "wav", "text_column": "txt"} if kind == "webdataset" else {}
    made = write_repository(tmp_path / "made", kind)
    for num_clips in (1, 2, None):  # each goes on where the one before ended
        assert heard(opened(made, format="hub", streaming=True, max_clips=num_clips, **keys)) == CLIPS[:num_clips]


@pytest.mark.parametrize("kind", ["parquet", "paths"])
def test_repositories_are_read(tmp_path, kind):
    assert heard(opened(write_repository(tmp_path / "made", kind), format="hub")) == CLIPS


def test_files_that_need_a_decoder_are_read_as_a_stream(tmp_path):
    with pytest.raises(InputError, match=r"torchcodec.*streaming: true"):
        opened(write_repository(tmp_path / "made", "audio folder"), format="hub")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        {"subset": "en_us"}, {"data_dir": "en_us"}, {"data_files": "en_us/{split}/*.parquet"},
        {"data_files": ["en_us/train/0000.parquet", "en_us/train/0001.parquet", "en_us/train/0002.parquet"]},
    ],
)  # fmt: skip
def test_folders_by_configuration(tmp_path, keys, streaming):
    made = write_layout(tmp_path / "made", [f"en_us/train/{n:04d}.parquet" for n in range(3)])
    assert heard(opened(made, format="hub", streaming=streaming, **keys)) == CLIPS


def test_a_card_that_names_configurations_decides(tmp_path):
    made = write_layout(tmp_path / "made", [f"files/train/{n:04d}.parquet" for n in range(3)])
    card = "configs:\n- config_name: en_us\n  data_files:\n  - split: train\n    path: files/train/*.parquet\n"
    (made / "README.md").write_text(f"---\n{card}---\n")
    assert heard(opened(made, format="hub", subset="en_us")) == CLIPS
    with pytest.raises(InputError, match=r"BuilderConfig 'de' not found.*correct subset.*data_dir"):
        opened(made, format="hub", subset="de")


def test_a_loading_script_is_not_run_and_the_ways_out_are_named(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "made.py").write_text("raise SystemExit('run')\n")
    for streaming in (False, True):
        with pytest.raises(InputError, match=r"script.*parquet") as raised:
            opened(tmp_path / "made", format="hub", streaming=streaming)
        assert "login" not in str(raised.value)


@pytest.mark.parametrize("card", ["---\nconfigs:\n-x\n  y: [\n---\n", "---\nconfigs: 3\n---\n", "---\n\0\n---\n"])
def test_a_damaged_card_is_told(tmp_path, card):
    made = write_repository(tmp_path / "made", "parquet")
    (made / "README.md").write_text(card)
    with pytest.raises(InputError, match=r"^set/train: cannot load split 'train' of .*made"):
        opened(made, format="hub")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_split_that_is_not_there_is_named(tmp_path, streaming):
    made = write_repository(tmp_path / "made", "parquet")
    with pytest.raises(InputError, match=r"validation.*train.*check source, subset"):
        opened(made, "validation", format="hub", streaming=streaming)


def save(folder: Path, rows: list[dict]) -> Path:
    datasets.DatasetDict(train=datasets.Dataset.from_list(rows)).save_to_disk(folder)
    return folder


def samples(pitch: float, **changes) -> dict:
    return {"array": tone(pitch).tolist(), "sampling_rate": 16_000, "path": None} | changes


def test_audio_as_samples_is_read(tmp_path):
    made = save(tmp_path / "made", [{"audio": samples(pitch), "text": f"text {n}"} for n, pitch in enumerate(PITCHES)])
    assert heard(opened(made, format="saved")) == CLIPS
    split = opened(made, format="saved")
    np.testing.assert_array_equal(split.audio(0), tone(PITCHES[0]))
    assert split.fingerprint == opened(made, format="saved").fingerprint


def test_audio_as_samples_is_streamed(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    lines = [{"audio": samples(pitch), "text": f"text {n}"} for n, pitch in enumerate(PITCHES)]
    datasets.Dataset.from_list(lines).to_parquet(made / "train.parquet")
    assert heard(opened(made, format="parquet", streaming=True)) == CLIPS


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (samples(300, array=[[0.1, 0.2], [0.1, 0.2]]), "no list of float samples"),
        (samples(300, array=[1, 2, 3]), "no list of float samples"),
        (samples(300, sampling_rate=0), "no samples with a rate in whole Hz"),
        (samples(300, sampling_rate=1 << 40), "no samples with a rate in whole Hz"),
        (samples(300, sampling_rate=22050.5), "no samples with a rate in whole Hz"),
        (samples(300, array=[0.0][:0]), "no list of float samples|no samples with a rate in whole Hz"),
        ({"bytes": None, "path": None}, "is not audio|neither audio bytes nor a path"),
        (7, "is not audio"),
    ],
)
def test_cells_that_are_no_audio_are_named(tmp_path, cell, message):
    with pytest.raises(InputError, match=rf"^set/train: .*({message})"):
        opened(save(tmp_path / "made", [{"audio": cell, "text": "text"}]), format="saved")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"features": {"text": 3}}', '{"features": "x"}'])
def test_a_damaged_folder_is_told(tmp_path, content):
    made = save(tmp_path / "made", [{"audio": samples(300), "text": "text"}])
    (made / "train" / "dataset_info.json").write_text(content)
    with pytest.raises(
        InputError, match=r"^set/train: cannot open .*made: .*no data set saved by save_to_disk, or a damaged one"
    ):
        opened(made, format="saved")


def test_arrow_data_with_wrong_offsets_are_told(tmp_path):
    made = save(tmp_path / "made", rows(tmp_path))
    (path,) = made.rglob("*.arrow")
    offsets = np.array([0, 6, 12, 18], "<i4").tobytes()  # of "text 0", "text 1", "text 2"
    content = path.read_bytes()
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, np.array([0, 1 << 30, 12, 18], "<i4").tobytes()))
    with pytest.raises(InputError, match=r"^set/train: cannot read .*made \(train\): .*the folder is damaged"):
        opened(made, format="saved")


@pytest.mark.parametrize("kind", ["bytes", "path"])
def test_columns_of_bytes_and_of_paths(tmp_path, kind):
    cells = [write(tmp_path / f"{n}.wav", pitch) for n, pitch in enumerate(PITCHES)]
    lines = [{"audio": cell.read_bytes() if kind == "bytes" else str(cell), "text": f"text {n}"} for n, cell in enumerate(cells)]
    assert heard(opened(save(tmp_path / "made", lines), format="saved")) == CLIPS


def test_other_columns_of_audio_are_not_decoded(tmp_path):
    lines = [row | {"noise": row["audio"]} for row in rows(tmp_path)]
    made = table(lines).cast_column("noise", datasets.Audio())
    datasets.DatasetDict(train=made).save_to_disk(tmp_path / "made")
    assert heard(opened(tmp_path / "made", format="saved")) == CLIPS


def test_stretches_and_channels_of_cells(tmp_path):
    call, long = write_call(tmp_path / "call.wav").read_bytes(), write_long(tmp_path / "long.wav").read_bytes()
    lines = [{"audio": long, "offset": n, "duration": 1, "text": f"text {n}"} for n in range(3)]
    assert heard(opened(save(tmp_path / "a", lines), format="saved")) == CLIPS
    lines = [{"audio": long, "begin": 1000 * n, "until": 1000 * n + 1000, "text": f"text {n}"} for n in range(3)]
    columns = {"start": "begin", "end": "until"}
    assert heard(opened(save(tmp_path / "b", lines), format="saved", columns=columns, time_unit="ms")) == CLIPS
    lines = [{"audio": call, "channel": 1, "offset": n, "duration": 1, "text": f"text {n}"} for n in range(3)]
    assert heard(opened(save(tmp_path / "c", lines), format="saved")) == [(text, s, pitch + 1000) for text, s, pitch in CLIPS]
    lines = [{"audio": long, "start": 0.0, "end": 1.0, "text": "text"}]
    with pytest.raises(InputError, match=r"row 0: start and end may be times"):
        opened(save(tmp_path / "d", lines), format="saved")
