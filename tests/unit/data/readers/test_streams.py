import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pytest
from recordings import heard, opened, write

from wfc_dist.data.readers import streams
from wfc_dist.errors import InputError

NUM_ROWS = 7
CLIPS = [(f"text {number}", 1.0, 300 + 100 * number) for number in range(NUM_ROWS)]


@pytest.fixture(autouse=True)
def spools(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "spools"))
    monkeypatch.setattr(streams, "CHUNK_ROWS", 2)
    return tmp_path / "spools" / "wfc_dist" / "streams"


@pytest.fixture
def source(tmp_path) -> Path:
    """Writes three parquet files: 3, 3 and 1 rows."""
    rows = [
        {"audio": {"bytes": write(tmp_path / "a.wav", pitch).read_bytes(), "path": f"{n}.wav"}, "text": text, "speaker": n}
        for n, (text, _, pitch) in enumerate(CLIPS)
    ]
    for number, part in enumerate((rows[:3], rows[3:6], rows[6:])):
        (tmp_path / "made").mkdir(exist_ok=True)
        table = datasets.Dataset.from_list(part).cast_column("audio", datasets.Audio(decode=False))
        table.to_parquet(tmp_path / "made" / f"train-{number:05d}-of-00003.parquet")
    return tmp_path / "made"


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """The texts of the rows that the library yields."""
    found: list[str] = []
    plain = datasets.IterableDataset.__iter__

    def counted(stream):
        for row in plain(stream):
            found.append(row["text"])
            yield row

    monkeypatch.setattr(datasets.IterableDataset, "__iter__", counted)
    return found


def stream(source: Path, **keys):
    return opened(source, format=keys.pop("format", "hub"), streaming=True, **keys)


def state(spools: Path) -> dict:
    (path,) = spools.glob("*/state.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("format", ["hub", "parquet"])
def test_all_rows_are_fetched_once(source, fetched, spools, format):
    split = stream(source, format=format)
    assert heard(split) == CLIPS and [clip.id for clip in split.clips] == [f"{n}.wav" for n in range(NUM_ROWS)]
    again = stream(source, format=format)
    assert heard(again) == CLIPS and again.fingerprint == split.fingerprint
    assert len(fetched) == NUM_ROWS and state(spools)["is_complete"]


def test_only_the_rows_that_are_used_are_fetched(source, fetched, spools):
    assert heard(stream(source, max_clips=3)) == CLIPS[:3]
    assert len(fetched) == 3 and state(spools)["num_rows"] == 3
    assert heard(stream(source, max_clips=2)) == CLIPS[:2] and len(fetched) == 3
    assert heard(stream(source, max_clips=6)) == CLIPS[:6] and len(fetched) == 6
    assert heard(stream(source)) == CLIPS and len(fetched) == NUM_ROWS
    assert fetched == [text for text, _, _ in CLIPS]


@pytest.mark.parametrize("rows_before", range(1, NUM_ROWS))
def test_an_interrupted_fetch_goes_on(source, monkeypatch, spools, rows_before):
    plain = datasets.IterableDataset.__iter__

    def interrupted(dataset):
        for number, row in enumerate(plain(dataset)):
            if number == rows_before:
                raise ConnectionError("the network is gone")
            yield row

    with monkeypatch.context() as patched:
        patched.setattr(datasets.IterableDataset, "__iter__", interrupted)
        kept = rows_before // 2 * 2
        message = rf"cannot fetch .* behind row {kept}: the network is gone; the same command goes on from there"
        with pytest.raises(InputError, match=message):
            stream(source)
    if kept:
        assert state(spools)["num_rows"] == kept
    assert heard(stream(source)) == CLIPS


@pytest.mark.parametrize("rows_before", [1, 4])
def test_the_position_of_another_version_is_not_trusted(source, spools, rows_before):
    stream(source, max_clips=rows_before)
    (path,) = spools.glob("*/state.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.1", "position": {"shard_idx": 9}}))
    assert heard(stream(source, max_clips=rows_before + 2)) == CLIPS[: rows_before + 2]
    assert state(spools)["position"] is None
    assert heard(stream(source)) == CLIPS


def test_several_readers_share_a_spool(source):
    with ThreadPoolExecutor(4) as pool:
        splits = list(pool.map(lambda _: stream(source), range(4)))
    assert all(heard(split) == CLIPS for split in splits)
    assert len({split.fingerprint for split in splits}) == 1


def test_what_a_killed_process_left_behind_is_cut_off(source, spools):
    stream(source, max_clips=4)
    for name in ("audio.bin", "rows.jsonl"):
        with open(next(spools.glob(f"*/{name}")), "ab") as file:
            file.write(b"half a row")
    assert heard(stream(source)) == CLIPS


@pytest.mark.parametrize(
    ("name", "content"),
    [("audio.bin", b""), ("rows.jsonl", b"{"), ("state.json", b"{"), ("state.json", b"[]"), ("state.json", b"{}")],
)
def test_a_damaged_spool_is_named(source, spools, name, content):
    stream(source, max_clips=4)
    next(spools.glob(f"*/{name}")).write_bytes(content)
    with pytest.raises(InputError, match=r"the spool .* is damaged .*remove the folder"):
        stream(source)


def test_changed_files_are_another_source(source, spools):
    assert heard(stream(source, max_clips=1)) == CLIPS[:1]
    shutil.copy(source / "train-00001-of-00003.parquet", source / "train-00000-of-00003.parquet")
    assert heard(stream(source, max_clips=1)) == CLIPS[3:4]
    assert len(list(spools.iterdir())) == 2


def test_a_part_of_the_rows_cannot_be_a_share(source):
    with pytest.raises(ValueError, match="with streaming the number of rows is not known"):
        stream(source, share=0.5)


def test_a_spool_that_cannot_be_written_is_named(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"cannot use the spool .*XDG_CACHE_HOME"):
        stream(source)


def test_rows_without_audio_are_named(tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "train.jsonl").write_text('{"audio": "none.wav", "text": "a"}\n')
    with pytest.raises(InputError, match=r"cannot fetch .* behind row 0: .*none\.wav"):
        stream(tmp_path / "made")
    (tmp_path / "made" / "train.jsonl").write_text('{"audio": null, "text": "a"}\n{"audio": "x", "text": "a"}\n')
    with pytest.raises(InputError, match=r"row 0: neither audio bytes nor a path"):
        stream(tmp_path / "made")


@pytest.mark.parametrize(
    "cell", [([1] * 100, 16000), ([[0.1] * 50] * 2, 16000), ([0.1] * 100, -5), ([0.1] * 100, 2_000_000), ([0.1] * 100, 22050.5)]
)
@pytest.mark.parametrize("streaming", [True, False])
def test_samples_that_are_no_floats_of_one_channel_are_refused(tmp_path, cell, streaming):
    rows = [{"audio": {"array": cell[0], "sampling_rate": cell[1]}, "text": "hello"}]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(
        InputError, match=r"^set/train: .*(no list of float samples of one channel|no samples with a rate in whole Hz)"
    ):
        opened(tmp_path, "train", format="parquet", streaming=streaming)
