"""Every layout of docs/data.md is recognized by its files, and strange folders are answered with what is in them."""

import json
import os
from pathlib import Path

import datasets
import pytest
import yaml
from miniature_corpora import ascend, tunswitch
from recordings import heard, tone, write, write_call, write_long
from unit.data.readers.test_documented import CLIPS, MAKERS, documented, path_with_programs, write_clips, write_rows, write_table

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.detection.look import Corpus, look
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError

LOCAL = [title for title in MAKERS if "hub data set" not in title]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Works in a folder that is empty."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "spools"))


def only(source: str | Path) -> Corpus:
    (corpus,) = look(str(source))
    return corpus


def manifest(path: Path, num: int = 2, **more: object) -> None:
    """Writes a manifest of a second of audio a row, and the audio."""
    for number in range(num):
        write(path.parent / "audio" / f"{path.stem}-{number}.wav", 300 + 50 * number)
    rows = [{"audio_filepath": f"audio/{path.stem}-{n}.wav", "text": f"{path.stem} {n}"} | more for n in range(num)]
    write_rows(path, rows)


def splits_of(source: str) -> list[tuple[str, dict]]:
    return [(corpus.words[0], corpus.splits) for corpus in look(source)]


# Layouts


@pytest.mark.process
@pytest.mark.parametrize("title", LOCAL)
def test_a_documented_layout_is_recognized(title, monkeypatch):
    block = yaml.safe_load(documented()[title])
    Path(block["source"]).mkdir(parents=True)
    MAKERS[title](Path(block["source"]))
    monkeypatch.setenv("PATH", path_with_programs(Path.cwd()))

    corpora = look(block["source"])
    wanted = [corpus for corpus in corpora if corpus.words[0] == "es_419"] if len(corpora) > 1 else corpora
    (corpus,) = wanted
    language = {"language": "es"} if corpus.is_silent else {}
    split = open_split("mine", DatasetConfig(**corpus.block, **language), "train")

    assert heard(split) == CLIPS
    assert corpus.facts["train"].num_clips == 3
    if "Kaldi with pipes" not in title:
        assert corpus.facts["train"].hours == pytest.approx(3 / 3600)


def test_splits_are_known_by_many_names():
    for name in ("training", "validation", "eval"):
        manifest(Path(f"mine/{name}_manifest.json"))
    assert splits_of("mine") == [
        ("mine", {"train": "training_manifest.json", "dev": "validation_manifest.json", "test": "eval_manifest.json"})
    ]


def test_folders_of_splits_are_one_corpus():
    for name in ("train", "dev", "test"):
        manifest(Path(f"mine/{name}/manifest.jsonl"))
    assert splits_of("mine") == [
        ("mine", {"train": "train/manifest.jsonl", "dev": "dev/manifest.jsonl", "test": "test/manifest.jsonl"})
    ]


def test_common_voice_is_not_trained_on_what_it_leaves_out():
    for name in ("train", "dev", "test", "validated", "invalidated", "other"):
        write(Path("cv/cs/clips") / f"{name}-0.mp3", tone(300))
        write_table(Path(f"cv/cs/{name}.tsv"), "client_id,path,sentence,locale", f'c,{name}-0.mp3,"an open quote,cs', "\t")
    corpus = only("cv")
    assert corpus.splits == {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
    assert [Path(place).name for place in corpus.passed_over] == ["invalidated.tsv", "other.tsv", "validated.tsv"]
    assert corpus.block["quoting"] == "none" and corpus.block["columns"] == {"language": "locale"}


def test_one_folder_a_language_is_one_data_set_each():
    for name in ("es", "it"):
        manifest(Path(f"voices/{name}/train.jsonl"))
        manifest(Path(f"voices/{name}/test.jsonl"))
    found = look("voices")
    assert [(one.words[0], one.language) for one in found] == [("es", "es"), ("it", "it")]


def test_one_table_a_language_is_one_data_set_each():
    for name in ("train_es", "test_es", "train_it", "test_it"):
        manifest(Path(f"voices/{name}.jsonl"))
    assert splits_of("voices") == [
        ("es", {"train": "train_es.jsonl", "test": "test_es.jsonl"}),
        ("it", {"train": "train_it.jsonl", "test": "test_it.jsonl"}),
    ]


def test_kaldis_other_training_sets_are_passed_over():
    for name in ("train", "train_sp", "dev", "test_clean"):
        folder = Path("mini") / name
        write(folder / "u.wav", 300)
        (folder / "wav.scp").write_text("u u.wav\n")
        (folder / "text").write_text("u words\n")
    corpus = only("mini")
    assert corpus.splits == {"train": "train", "dev": "dev", "test": "test_clean"}
    assert corpus.passed_over == ["mini/train_sp"]


@pytest.mark.parametrize("given", ["mine/train", "mine/train/", "mine/train/metadata.csv"])
def test_a_split_that_is_named_brings_those_beside_it(given):
    for name in ("train", "test"):
        write_clips(Path("mine") / name, "flac")
        write_table(Path("mine") / name / "metadata.csv", "file_name,text,lang", "N.flac,text N,es")
    assert only(given).splits == {"train": "train", "test": "test"}
    assert only(given).block["source"] == "mine"


def test_a_file_that_is_named_brings_its_other_splits_and_no_other_file():
    for name in ("train", "dev", "more"):
        manifest(Path(f"mine/{name}.jsonl"))
    assert only("mine/train.jsonl").splits == {"train": "train.jsonl", "dev": "dev.jsonl"}
    assert only("mine/more.jsonl").splits == {"train": "more.jsonl"}


def test_numbered_manifests_are_one_split():
    for number in range(3):
        manifest(Path(f"mine/part_{number}.jsonl"))
    corpus = only("mine")
    assert corpus.splits == {"train": "part_{0..2}.jsonl"} and corpus.facts["train"].num_clips == 6


def test_the_same_audio_written_down_twice_is_one_data_set():
    manifest(Path("mine/lists/train.jsonl"))
    for number in range(2):
        write(Path(f"mine/lists/audio/train-{number}.wav"), 300)
    write_table(Path("mine/tables/train.csv"), "audio,text", "../lists/audio/train-0.wav,text N")
    (corpus,) = look("mine")
    assert corpus.block["source"] == "mine/lists" and corpus.passed_over == ["mine/tables/train.csv"]


def test_corpora_of_several_formats_are_data_sets_each():
    manifest(Path("mine/podcasts/train.jsonl"))
    write(Path("mine/radio/train/u.wav"), 400)
    Path("mine/radio/train/wav.scp").write_text("u u.wav\n")
    Path("mine/radio/train/text").write_text("u words\n")
    assert [(one.words[0], one.block.get("format", "jsonl")) for one in look("mine")] == [
        ("podcasts", "jsonl"),
        ("radio", "kaldi"),
    ]


def test_tunswitch_is_two_data_sets_of_a_language_that_is_not_known():
    tunswitch(Path.cwd())
    found = look("TunSwitch")
    assert [(one.words[0], one.language, one.splits["test"]) for one in found] == [
        ("cs", None, "test_cs.csv"),
        ("to", None, "test_to.csv"),
    ]


def test_ascend_has_quoted_tables():
    ascend(Path.cwd())
    assert only("ASCEND").todo == ["language: its rows say mixed, write Whisper's code such as es"]


def test_a_program_that_is_not_known_is_left_to_the_user():
    write_clips(Path("mine"))
    Path("mine/wav.scp").write_text("".join(f"u{n} /opt/strange -x mine/{n}.wav |\n" for n in range(3)))
    Path("mine/text").write_text("".join(f"u{n} words\n" for n in range(3)))
    corpus = only("mine")
    assert "allow_pipes" not in corpus.block and corpus.facts["train"].num_clips == 3
    assert any("starts strange" in todo for todo in corpus.todo)


# Columns


def test_unusual_columns_are_found_by_their_values():
    write_clips(Path("mine"))
    write_table(Path("mine/list.csv"), "Nummer,Aufnahme,Wortlaut", "N,N.wav,das ist Satz N")
    corpus = only("mine")
    assert (corpus.block["audio_column"], corpus.block["text_column"]) == ("Aufnahme", "Wortlaut")


def test_a_column_that_tells_splits_apart_is_told():
    write_clips(Path("mine"))
    rows = [{"audio": f"{n}.wav", "text": f"text {n}", "subset": name} for n, name in enumerate(("train", "train", "test"))]
    write_rows(Path("mine/all.jsonl"), rows)
    assert [note.split(",")[0] for note in only("mine").notes] == ["the column subset tells splits apart"]
    write_rows(Path("mine/train.jsonl"), rows[:2])
    write_rows(Path("mine/test.jsonl"), rows[2:])
    assert only("mine").notes == []


def test_columns_that_may_all_be_the_text_are_an_error():
    write_clips(Path("mine"))
    write_table(Path("mine/list.csv"), "audio,Deutsch,English", "N.wav,das ist Satz N,this is sentence N")
    with pytest.raises(InputError, match=r"several columns may be the transcript \(Deutsch, English\).*call .* text"):
        look("mine")


def test_audio_lies_in_another_folder_than_its_table():
    write_clips(Path("corpus/recordings/2024"))
    write_table(Path("corpus/lists/train.csv"), "audio,text", "/their/disk/2024/N.wav,text N")
    corpus = only("corpus/lists")
    assert heard(open_split("x", DatasetConfig(**corpus.block, language="de"), "train")) == CLIPS


def test_milliseconds_are_known_by_the_true_lengths():
    write_long(Path("mine/long.wav"))
    write_rows(
        Path("mine/train.jsonl"),
        [{"audio_filepath": "long.wav", "start_ms": 1000 * n, "end_ms": 1000 * n + 1000, "text": f"text {n}"} for n in range(3)],
    )
    corpus = only("mine")
    assert corpus.block["time_unit"] == "ms" and corpus.block["columns"] == {"start": "start_ms", "end": "end_ms"}
    assert heard(open_split("x", DatasetConfig(**corpus.block, language="de"), "train")) == CLIPS


def test_times_of_another_recording_are_not_read():
    write_clips(Path("mine"))
    rows = [
        {"audio_filepath": f"{n}.wav", "start": 60 + n, "end": 61 + n, "duration": 1.0, "text": f"text {n}"} for n in range(3)
    ]
    write_rows(Path("mine/train.jsonl"), rows)
    corpus = only("mine")
    assert corpus.block["columns"] == {"start": None, "end": None}
    assert heard(open_split("x", DatasetConfig(**corpus.block, language="de"), "train")) == CLIPS


def test_channels_that_do_not_count_from_0_are_not_read():
    write_call(Path("mine/call.wav"))
    rows = [{"audio_filepath": "call.wav", "channel": n + 1, "text": f"text {n}"} for n in range(2)]
    write_rows(Path("mine/train.jsonl"), rows)
    assert only("mine").block["columns"] == {"channel": None}


# Languages


@pytest.mark.parametrize(
    ("folder", "code"), [("Czech", "cs"), ("cs", "cs"), ("es_419", "es"), ("mls_german", "de"), ("my", None), ("cs-en-es", None)]
)
def test_a_folders_name_may_say_the_language(folder, code):
    manifest(Path(f"speech/{folder}/train.jsonl"))
    corpus = only(f"speech/{folder}")
    assert corpus.language == code and corpus.is_silent == (code is None)
    assert bool(corpus.todo) == (code is None)


def test_rows_win_over_the_folders_name():
    manifest(Path("de/train.jsonl"), lang="nl")
    corpus = only("de")
    assert corpus.language is None and not corpus.todo and dict(corpus.facts["train"].languages) == {"nl": 2}


# What is no corpus


def test_an_empty_folder():
    Path("mine").mkdir()
    with pytest.raises(InputError, match=r"^mine is empty"):
        look("mine")


def test_audio_without_texts():
    write_clips(Path("mine"))
    with pytest.raises(InputError, match=r"mine has 3 audio files, but no transcripts.*metadata\.csv.*file_name,text"):
        look("mine")


def test_a_layout_that_no_reader_has_is_named():
    write_clips(Path("LibriSpeech/84/121123"), "flac")
    Path("LibriSpeech/84/121123/84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n")
    with pytest.raises(InputError, match=r"84-121123\.trans\.txt, LibriSpeech, which is not read"):
        look("LibriSpeech")


def test_a_file_that_is_no_manifest():
    Path("notes.md").write_text("# Notes\n")
    with pytest.raises(InputError, match=r"notes\.md is no manifest.*begins with '# Notes'.*audio,text"):
        look("notes.md")


def test_a_manifest_whose_audio_is_not_there():
    write_rows(Path("mine/train.jsonl"), [{"audio_filepath": "gone/a.wav", "text": "words"}])
    with pytest.raises(InputError, match=r"the audio is not there: 'gone/a\.wav'"):
        look("mine")


def test_one_json_value_over_several_lines():
    Path("mine").mkdir()
    Path("mine/train.json").write_text(json.dumps([{"audio": "a.wav", "text": "words"}], indent=1))
    with pytest.raises(InputError, match=r"train\.json is one JSON value over several lines; write one object a line"):
        look("mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0.wav,guten tag\n1.wav,na so was\n", r"the first line names no columns .'0\.wav'"),
        ("audio;text\n0.wav;guten tag\n", r"the columns are separated by ';'; a \.csv has commas"),
        ("audio,text\n", "list.csv has no rows below its first line"),
        ("audio,duration\n0.wav,1.0\n", "no column looks like transcripts; there is: audio, duration"),
    ],
)
def test_tables_that_are_none_are_told(content, message):
    write_clips(Path("mine"))
    Path("mine/list.csv").write_text(content)
    for source in ("mine", "mine/list.csv"):
        with pytest.raises(InputError, match=message):
            look(source)


def test_recordings_packed_files_and_pipes_are_no_sources():
    write_clips(Path("mine"))
    Path("a.zip").write_bytes(b"PK")
    os.mkfifo("pipe")
    os.symlink("nowhere", "link")
    for source, message in (("mine/0.wav", "is a recording"), ("a.zip", "unpack it"), ("pipe", "neither a file nor a folder"),
                            ("link", "is a link to nowhere")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            look(source)


def test_wav_scp_without_texts():
    Path("mine").mkdir()
    Path("mine/wav.scp").write_text("u a.wav\n")
    with pytest.raises(InputError, match=r"wav\.scp names audio, but no file text"):
        look("mine")


def test_a_path_that_is_not_there():
    Path("data").mkdir()
    Path("data/speech").mkdir()
    with pytest.raises(InputError, match=r"data/spech/x/y: there is no such file or folder"):
        look("data/spech/x/y")
    with pytest.raises(InputError, match=r"\./data/spech: .*data has: speech"):
        look("./data/spech")


def test_a_link_in_a_circle_ends():
    manifest(Path("mine/train.jsonl"))
    os.symlink("..", "mine/again")
    assert only("mine").splits == {"train": "train.jsonl"}
