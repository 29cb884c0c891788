import json
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile as sf
import tiny

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioFile, decode, samples_in
from wfc_dist.data.sources import Split, language_code, open_split
from wfc_dist.errors import InputError

SPLITS = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("corpus"), seed=3)


@pytest.fixture
def copy(corpus, tmp_path):
    return Path(shutil.copytree(corpus, tmp_path / "copy"))


def rows_of(folder: Path, split: str = "train") -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def write_rows(folder: Path, rows: list[dict], split: str = "train") -> None:
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def jsonl(folder: Path, **changes) -> DatasetConfig:
    return DatasetConfig(source=str(folder), splits=SPLITS, **changes)


def assert_same(split: Split, other: Split) -> None:
    assert [(clip.text, clip.language) for clip in split.clips] == [(clip.text, clip.language) for clip in other.clips]
    assert [clip.duration_s for clip in split.clips] == pytest.approx([clip.duration_s for clip in other.clips])
    for index in range(len(split)):
        np.testing.assert_array_equal(split.audio(index), other.audio(index))


def test_jsonl_gives_clips_in_order_with_lazy_audio(corpus):
    split = open_split("tiny", jsonl(corpus), "train")
    assert [clip.id for clip in split.clips] == [f"audio/train-{index}.flac" for index in range(6)]
    assert split.clips[2].language == "en" and split.clips[2].duration_s == 3.0
    audio = split.audio(2)
    assert audio.dtype == np.float32 and audio.shape == (48_000,)


def test_source_may_be_the_manifest_itself(corpus):
    dataset = DatasetConfig(source=str(corpus / "test.jsonl"), splits={"test": "anything"})
    assert_same(open_split("tiny", dataset, "test"), open_split("tiny", jsonl(corpus), "test"))
    with pytest.raises(InputError, match="one file, but splits names 3"):
        open_split("tiny", jsonl(corpus / "test.jsonl"), "test")


def test_missing_duration_is_read_from_the_header(copy):
    before = open_split("tiny", jsonl(copy), "train")
    write_rows(copy, [{key: value for key, value in row.items() if key != "duration"} for row in rows_of(copy)])
    assert_same(open_split("tiny", jsonl(copy), "train"), before)


def test_offset_and_duration_cut_a_stretch_out(copy):
    row = rows_of(copy)[2]
    write_rows(copy, [row, {**row, "offset": 0.5, "duration": 1.25}])
    split = open_split("tiny", jsonl(copy), "train")
    np.testing.assert_array_equal(split.audio(1), split.audio(0)[8_000:28_000])
    assert split.clips[1].id == "audio/train-2.flac@0.5"


def test_languages_of_words_are_read_and_change_no_fingerprint(copy):
    rows = [{**row, "text": "uno two three"} for row in rows_of(copy)]
    write_rows(copy, rows)
    before = open_split("tiny", jsonl(copy), "train")
    write_rows(copy, [{**rows[0], "word_langs": ["es", "en", "en"]}, {**rows[1], "word_langs": "es en en"}, *rows[2:]])

    split = open_split("tiny", jsonl(copy), "train")

    assert [clip.word_languages for clip in split.clips[:3]] == [("es", "en", "en"), ("es", "en", "en"), ()]
    assert split.fingerprint == before.fingerprint


def test_groups_are_read_from_any_column_and_change_the_fingerprint(copy):
    rows = rows_of(copy)
    write_rows(copy, [{**row, "group": "ann", "client": number % 2} for number, row in enumerate(rows)])
    plain, grouped, renamed = (
        open_split("tiny", jsonl(copy, columns=columns), "train") for columns in ({"group": None}, {}, {"group": "client"})
    )

    assert [[clip.group for clip in split.clips[:3]] for split in (plain, grouped, renamed)] == [
        ["", "", ""], ["ann", "ann", "ann"], ["0", "1", "0"],
    ]  # fmt: skip
    assert len({split.fingerprint for split in (plain, grouped, renamed)}) == 3, "a set that gets groups is decoded again"
    write_rows(copy, rows)
    assert open_split("tiny", jsonl(copy), "train").fingerprint == plain.fingerprint


def test_repeated_rows_get_ids_of_their_own(copy):
    write_rows(copy, rows_of(copy)[:1] * 3)
    names = [clip.id for clip in open_split("tiny", jsonl(copy), "train").clips]
    assert names == ["audio/train-0.flac", "audio/train-0.flac#2", "audio/train-0.flac#3"]


def test_other_columns_and_max_clips(copy):
    write_rows(copy, [{"path": row["audio_filepath"], "sentence": row["text"], "lang": "en"} for row in rows_of(copy)])
    dataset = jsonl(copy, text_column="sentence", audio_column="path", max_clips=4)
    assert len(open_split("tiny", dataset, "train")) == 4


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_audio_is_mono_16_khz_and_never_longer_than_planned(tmp_path, rate_hz, suffix):
    num = 3 * rate_hz // 2 + 1
    stereo = np.stack([np.full(num, 0.5), np.full(num, -0.1)], axis=1).astype(np.float32)
    sf.write(tmp_path / f"a.{suffix}", stereo, rate_hz)
    audio = decode(AudioFile(str(tmp_path / f"a.{suffix}")))
    assert audio.dtype == np.float32 and len(audio) <= samples_in(num / rate_hz) <= len(audio) + 1
    assert np.median(audio) == pytest.approx(0.2, abs=0.02)  # Vorbis is lossy


def as_table(corpus: Path, split: str) -> datasets.Dataset:
    rows = rows_of(corpus, split)
    table = datasets.Dataset.from_dict(
        {
            "audio": [str(corpus / row["audio_filepath"]) for row in rows],
            "text": [row["text"] for row in rows],
            "lang": ["en"] * len(rows),
        }
    )
    return table.cast_column("audio", datasets.Audio(decode=False))


def test_saved_data_set_gives_what_the_manifest_gives(corpus, tmp_path):
    tables = {split: as_table(corpus, split) for split in SPLITS}
    datasets.DatasetDict(tables).save_to_disk(tmp_path / "dict")
    tables["test"].save_to_disk(tmp_path / "single")
    for split in SPLITS:
        dataset = DatasetConfig(source=str(tmp_path / "dict"), format="saved", splits={name: name for name in SPLITS})
        assert_same(open_split("tiny", dataset, split), open_split("tiny", jsonl(corpus), split))
    single = DatasetConfig(source=str(tmp_path / "single"), format="saved", splits={"test": "test"})
    assert_same(open_split("tiny", single, "test"), open_split("tiny", jsonl(corpus), "test"))
    with pytest.raises(InputError, match="holds one split"):
        open_split("tiny", single.model_copy(update={"splits": {"train": "a", "test": "b"}}), "test")


def test_saved_bytes_are_read_without_the_original_files(copy, tmp_path):
    expected = [open_split("tiny", jsonl(copy), "train").audio(index) for index in range(6)]
    table = as_table(copy, "train").map(
        lambda row: {"audio": {"bytes": Path(row["audio"]["path"]).read_bytes(), "path": "a/x.flac"}}
    )
    table.save_to_disk(tmp_path / "bytes")
    shutil.rmtree(copy)
    dataset = DatasetConfig(source=str(tmp_path / "bytes"), format="saved", splits={"train": "train"})
    split = pickle.loads(pickle.dumps(open_split("tiny", dataset, "train")))
    assert [clip.id for clip in split.clips][:2] == ["x.flac", "x.flac#2"]
    for index, audio in enumerate(expected):
        np.testing.assert_array_equal(split.audio(index), audio)


def test_hub_format_reads_a_repository_in_a_folder(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repo").mkdir()
    as_table(corpus, "test").to_parquet(tmp_path / "repo" / "test.parquet")
    dataset = DatasetConfig(source=str(tmp_path / "repo"), format="hub", splits={"test": "test", "dev": "validation"})
    assert_same(open_split("tiny", dataset, "test"), open_split("tiny", jsonl(corpus), "test"))
    with pytest.raises(InputError, match=r"cannot load split 'validation'.*check source, subset"):
        open_split("tiny", dataset, "dev")


@pytest.mark.parametrize("layout", ["csv", "jsonl", "sidecars"])
def test_audio_folder_gives_what_the_manifest_gives(corpus, tmp_path, layout):
    folder = tmp_path / "data" / "testing"
    shutil.copytree(corpus / "audio", folder / "audio")
    rows = rows_of(corpus, "test")
    if layout == "sidecars":
        for path in folder.glob("audio/*"):
            if not path.name.startswith("test"):
                path.unlink()
        for row in rows:
            (folder / row["audio_filepath"]).with_suffix(".txt").write_text(row["text"] + "\n")
    elif layout == "csv":
        lines = [f'{row["audio_filepath"]},"{row["text"]}",en' for row in rows]
        (folder / "metadata.csv").write_text("\n".join(["file_name,text,lang", *lines]) + "\n")
    else:
        lines = [json.dumps({"file_name": row["audio_filepath"], "text": row["text"]}) for row in rows]
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    dataset = DatasetConfig(source=str(tmp_path / "data"), format="folder", language="en", splits={"test": "testing"})
    assert_same(open_split("tiny", dataset, "test"), open_split("tiny", jsonl(corpus), "test"))


@pytest.mark.parametrize("value", ["en", "EN", "en-US", "en_GB", "english", "English", "<|en|>"])
def test_language_names_become_codes(value):
    assert language_code(value) == "en"


def test_language_of_the_data_set_wins(corpus):
    assert {clip.language for clip in open_split("tiny", jsonl(corpus, language="spanish"), "train").clips} == {"es"}


def test_fingerprint_changes_with_text_and_with_audio(copy):
    before = open_split("tiny", jsonl(copy), "train").fingerprint
    assert open_split("tiny", jsonl(copy), "train").fingerprint == before
    rows = rows_of(copy)
    write_rows(copy, [{**rows[0], "text": "other"}, *rows[1:]])
    changed_text = open_split("tiny", jsonl(copy), "train").fingerprint
    write_rows(copy, rows)
    with open(copy / rows[0]["audio_filepath"], "ab") as file:
        file.write(b"\0")
    assert len({before, changed_text, open_split("tiny", jsonl(copy), "train").fingerprint}) == 3


def test_split_survives_pickling(corpus):
    split = open_split("tiny", jsonl(corpus), "dev")
    assert_same(pickle.loads(pickle.dumps(split)), split)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", r"train\.jsonl:2: not JSON"),
        ("[1]", r"train\.jsonl:2: not a JSON object"),
        ('{"text": "a", "lang": "en"}', r"train\.jsonl:2: no audio path under 'audio_filepath'"),
        ('{"audio_filepath": "audio/train-0.flac", "lang": "en"}', r"train\.jsonl:2: no text under 'text'"),
        ('{"audio_filepath": "audio/train-0.flac", "text": "a"}', r"train\.jsonl:2: no language"),
        ('{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "klingon"}', r"train\.jsonl:2: 'klingon' is no language"),
        (
            '{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "en", "duration": "1"}',
            r"train\.jsonl:2: duration is '1'",
        ),
        (
            '{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "en", "duration": NaN}',
            r"train\.jsonl:2: duration is nan",
        ),
        ('{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "en", "offset": -1}', r"train\.jsonl:2: offset is -1"),
        *(
            (
                f'{{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "en", "{key}": {value}}}',
                rf"train\.jsonl:2: {key} is .{{1,70}}expected (seconds|a number from 0 to 1023)",
            )
            for key in ("offset", "duration", "start", "end", "channel")
            for value in ("1e300", "1e999", "9" * 400, "-1", "true", '"1"')
        ),
        ('{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "en", "channel": 40000}', "channel is 40000"),
        (
            '{"audio_filepath": "audio/train-0.flac", "text": "a b", "lang": "en", "word_langs": ["en"]}',
            r"train\.jsonl:2: word_langs is \['en'\], expected a list of 2 language codes",
        ),
        ('{"audio_filepath": "audio/none.flac", "text": "a", "lang": "en"}', r"none\.flac is missing"),
    ],
)
def test_bad_rows_are_named(copy, line, message):
    first = (copy / "train.jsonl").read_text().splitlines()[0]
    (copy / "train.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(InputError, match=rf"^tiny/train: .*{message}"):
        open_split("tiny", jsonl(copy), "train")


def test_sources_that_are_not_there_are_named(copy, tmp_path):
    with pytest.raises(InputError, match=r"no dev split; set datasets\.tiny\.splits\.dev"):
        open_split("tiny", DatasetConfig(source=str(copy), splits={"train": "train.jsonl"}), "dev")
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl: No such file"):
        open_split("tiny", DatasetConfig(source=str(copy), splits={"train": "none.jsonl"}), "train")
    for layout in ("folder", "saved"):
        with pytest.raises(InputError, match="none is no folder"):
            open_split("tiny", DatasetConfig(source=str(tmp_path / "none"), format=layout, splits={"train": "x"}), "train")
    with pytest.raises(InputError, match=r"audio/nowhere is no folder"):
        open_split("tiny", DatasetConfig(source=str(copy / "audio"), format="folder", splits={"train": "nowhere"}), "train")
    with pytest.raises(InputError, match="no data set saved by save_to_disk"):
        open_split("tiny", DatasetConfig(source=str(copy), format="saved", splits={"train": "train"}), "train")
    with pytest.raises(InputError, match=r"has no readable transcript dev-0\.txt"):
        open_split("tiny", DatasetConfig(source=str(copy), format="folder", language="en", splits={"train": "audio"}), "train")
    (copy / "audio" / "metadata.csv").write_text("name,text\na,b\n")
    with pytest.raises(InputError, match=r"metadata\.csv:2: no file_name"):
        open_split("tiny", DatasetConfig(source=str(copy), format="folder", language="en", splits={"train": "audio"}), "train")
    write_rows(copy, [])
    with pytest.raises(InputError, match="no clips in"):
        open_split("tiny", jsonl(copy), "train")


def test_saved_data_sets_with_other_columns_are_named(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"], "audio": [3], "sound": [None]})}).save_to_disk(
        tmp_path / "d"
    )
    dataset = DatasetConfig(source=str(tmp_path / "d"), format="saved", splits={"train": "train"})
    for changes, message in [
        ({"text_column": "sentence"}, "no column 'sentence'; set text_column to one of: text, audio"),
        ({"audio_column": "wave"}, "no column 'wave'; set audio_column"),
        ({}, "column 'audio' is not audio"),
        ({"splits": {"train": "training"}}, "no split 'training'; it has: train"),
    ]:
        with pytest.raises(InputError, match=message):
            open_split("tiny", dataset.model_copy(update=changes), "train")


def test_unreadable_audio_is_named_when_it_is_decoded(copy):
    split = open_split("tiny", jsonl(copy), "train")
    (copy / "audio" / "train-0.flac").write_bytes(b"no audio")
    (copy / "audio" / "train-1.flac").unlink()
    sf.write(copy / "audio" / "train-2.flac", np.zeros(0, np.float32), 16_000, format="WAV", subtype="PCM_16")
    for index, message in enumerate(["cannot read audio .*train-0.flac", "train-1.flac is missing", "train-2.flac is empty"]):
        with pytest.raises(InputError, match=rf"^tiny/train: .*{message}"):
            split.audio(index)
    with pytest.raises(InputError, match=r"train-1\.flac is missing"):
        _ = split.fingerprint


@pytest.mark.parametrize("row_id", ["\\ud800", "a\\udcffb", "ni\u00f1o", "\\ud83d\\ude00"])
def test_an_id_can_be_written_down(copy, row_id):
    row = f'{{"audio_filepath": "audio/train-0.flac", "text": "a", "lang": "en", "id": "{row_id}"}}'
    (copy / "train.jsonl").write_text(row + "\n" + row + "\n", encoding="utf-8")
    ids = [clip.id for clip in open_split("tiny", jsonl(copy), "train").clips]
    assert len({name.encode() for name in ids}) == 2 and ids[1] == f"{ids[0]}#2"
    assert json.loads(f'"{row_id}"').isprintable() == ("udcff" not in ids[0] and "ud800" not in ids[0])
