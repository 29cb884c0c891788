import gzip
from pathlib import Path

import pytest
from recordings import PITCHES, heard, opened, write, write_call, write_long

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.readers.tables import table_rows
from wfc_dist.data.sources import iter_rows
from wfc_dist.errors import InputError

CLIPS = [(f"text {number}", 1.0, pitch) for number, pitch in enumerate(PITCHES)]


def write_clips(folder: Path) -> None:
    for number, pitch in enumerate(PITCHES):
        write(folder / f"{number}.wav", pitch)


def cells(path: Path, content: str | bytes, quoting: str = "minimal") -> list[dict[str, str]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [row for _, row in table_rows(path, quoting)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "file,text\na.wav,one two\n"),
        ("a.csv", "file,text\na.wav,one two"),
        ("a.csv", "\ufefffile,text\r\na.wav,one two\r\n\r\n"),
        ("a.csv", 'file,text\n"a.wav","one two"\n'),
        ("a.csv", '"file", text\na.wav,one two\n'),
        ("a.tsv", "file\ttext\na.wav\tone two\n"),
        ("a.csv.gz", gzip.compress(b"file,text\na.wav,one two\n", mtime=0)),
        ("a.tsv.gz", gzip.compress("\ufefffile\ttext\na.wav\tone two\n".encode(), mtime=0)),
    ],
)
def test_tables_are_read(tmp_path, name, content):
    assert cells(tmp_path / name, content) == [{"file": "a.wav", "text": "one two"}]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('a,"Hello, how are you?"', "Hello, how are you?"),
        ('a,"She said ""yes"""', 'She said "yes"'),
        ('a,""', ""),
        ('a,""""', '"'),
        ('a,a 5" pipe', 'a 5" pipe'),
        ('a,"two\nlines"', "two\nlines"),
        (f"a,{'word ' * 30_000}end", "word " * 30_000 + "end"),
        (f'a,"{"word, " * 30_000}end"', "word, " * 30_000 + "end"),
    ],
    ids=["comma", "doubled quotes", "empty", "one quote", "inch", "two lines", "long", "long and quoted"],
)
def test_whole_texts_are_read(tmp_path, line, text):
    assert cells(tmp_path / "a.csv", f"file,text\n{line}\nb,next\n") == [
        {"file": "a", "text": text},
        {"file": "b", "text": "next"},
    ]


@pytest.mark.parametrize(
    ("lines", "number", "message"),
    [
        (["file,text", "a,Good", "b,Well, fine"], 3, "3 cells, but the header names 2 columns.*comma"),
        (["file,text", "a,Good", "b"], 3, "1 cells, but the header names 2 columns"),
        (["file,text,text", "a,b,c"], 1, "two columns are called 'text'"),
        (["file, text,text", "a,b,c"], 1, "two columns are called 'text'"),
        (["file,text", 'a,"Hello he said', "b,Fine", "c,Good"], 2, "still open in line 3, which looks like a row"),
        (["file,text", 'a,"Hello he said', 'b,"Fine"'], 2, "still open in line 3"),
        (["file,text", 'a,"Hello he said', 'b,Fine"'], 2, "still open in line 3"),
        (["file,text", 'a,"Hello he said'], 2, "never closed"),
        (["file,text", 'a,"Hello', *["la"] * 200, '"'], 2, "still open after 100 lines"),
        (["file,text", 'a,"Hello" he said'], 2, "text stands behind a closing quotation mark"),
        (["file,text", 'a,"Hello"" he said'], 2, "never closed"),
        (["file,text", "a,b\0c"], 2, "NUL"),
        (["file,text", "a,b\rc,d"], 2, "carriage return"),
        (["file,text", "a,\udce9t\udce9"], 2, "not UTF-8"),
    ],
)
def test_malformed_rows_are_refused_with_file_and_line(tmp_path, lines, number, message):
    content = "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")
    with pytest.raises(InputError, match=rf"a\.csv:{number}: .*{message}"):
        cells(tmp_path / "a.csv", content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "file,text\n".encode("utf-16"), r"a\.csv:1: not UTF-8 \(it is UTF-16\)"),
        ("a.csv.gz", gzip.compress(b"file,text\n" * 5000, mtime=0)[:-20], r"cannot read .*a\.csv\.gz behind line"),
        ("a.csv.gz", b"file,text\n", r"cannot read .*a\.csv\.gz: Not a gzipped file"),
        ("a.txt", "file,text\n", r"a\.txt: a table ends in \.csv"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        cells(tmp_path / name, content)


def test_a_quotation_mark_is_a_letter_where_the_configuration_says_so(tmp_path):
    content = 'path\tsentence\na\t"open\nb\t"Hello" he said\nc\t"all of it"\n'
    texts = [row["sentence"] for row in cells(tmp_path / "a.tsv", content, "none")]
    assert texts == ['"open', '"Hello" he said', '"all of it"']


@pytest.mark.parametrize("column", ["audio", "path", "wav", "file_name", "audio_filepath", "file"])
def test_the_audio_column_is_found_by_its_usual_names(tmp_path, column):
    write_clips(tmp_path / "audio")
    rows = "".join(f"audio/{number}.wav,text {number}\n" for number in range(3))
    (tmp_path / "train.csv").write_text(f"{column},text\n{rows}")
    assert heard(opened(tmp_path, "train.csv", format="csv")) == CLIPS


def test_common_voice(tmp_path):
    write_clips(tmp_path / "es" / "clips")
    header = "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tlocale\tsegment\n"
    rows = [f"c\t{number}.wav\ts{number}\ttext {number}\t2\t0\tes\t\n" for number in range(3)]
    rows[1] = rows[1].replace("text 1", '"text 1')
    (tmp_path / "es" / "train.tsv").write_text(header + "".join(rows))
    keys = {
        "source": str(tmp_path / "es"), "format": "csv", "quoting": "none", "audio_dir": "clips", "text_column": "sentence",
        "columns": {"language": "locale", "id": "path"}, "splits": {"train": "train.tsv"},
    }  # fmt: skip
    rows = list(iter_rows("cv", DatasetConfig(**keys), "train"))
    assert [(row.id, row.text, row.language) for row in rows] == [
        ("0.wav", "text 0", "es"), ("1.wav", '"text 1', "es"), ("2.wav", "text 2", "es"),
    ]  # fmt: skip
    assert rows[0].audio.path == str(tmp_path / "es" / "clips" / "0.wav") and rows[0].unread == ("segment",)
    with pytest.raises(InputError, match=r"train\.tsv:3: a quotation mark that opens a cell.*quoting: none"):
        list(iter_rows("cv", DatasetConfig(**keys | {"quoting": "minimal"}), "train"))


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [("/gpfs/their machine/TunSwitch/wavs/", {"path_parts": 2}), (r"D:\TunSwitch\wavs" + "\\", {"path_parts": 2}),
     ("$data_root/wavs/", {}), ("{data_root}/wavs/", {}), ("${data_root}/wavs/", {}),
     ("/x/", {"path_parts": 1, "audio_dir": "wavs"})],
)  # fmt: skip
def test_speechbrain_tables_with_paths_of_another_machine(tmp_path, prefix, keys):
    write_long(tmp_path / "wavs" / "long.wav")
    rows = "".join(f"id{number},1.0,{number}.0,{prefix}long.wav,spk,text {number}\n" for number in range(3))
    (tmp_path / "train.csv").write_text(f"ID,duration,start,wav,spk_id,wrd\n{rows}")
    split = opened(tmp_path, "train.csv", format="csv", text_column="wrd", columns={"id": "ID"}, **keys)
    assert heard(split) == CLIPS and [clip.id for clip in split.clips] == ["id0", "id1", "id2"]


def test_ascend(tmp_path):
    write_clips(tmp_path / "waves")
    head = "file_name,transcription,duration,language,original_speaker_id,session_id,topic\n"
    rows = "".join(
        f"waves/{number}.wav,text {number},1.0,{name},17,1,persona\n" for number, name in enumerate(["zh", "en", "mixed"])
    )
    (tmp_path / "train_metadata.csv").write_text(head + rows)
    assert heard(opened(tmp_path, "train_metadata.csv", format="csv", text_column="transcription")) == CLIPS


def test_times_in_milliseconds_and_channels(tmp_path):
    write_call(tmp_path / "call.wav")
    rows = "".join(f"call.wav,text {number},{number}000,{number + 1}000,1\n" for number in range(3))
    (tmp_path / "train.csv").write_text(f"file,text,begin,end,side\n{rows}")
    columns = {"start": "begin", "channel": "side"}
    split = opened(tmp_path, "train.csv", format="csv", time_unit="ms", columns=columns)
    assert heard(split) == [(text, length, pitch + 1000) for text, length, pitch in CLIPS]


@pytest.mark.parametrize(
    ("content", "keys", "message"),
    [
        ("a.wav,Good\n", {}, "no clips in"),
        ("a.wav,Good\nb.wav,Fine\n", {}, r"train\.csv:2: no audio path under 'audio' \(there is: a\.wav, Good\)"),
        ("file,text\n,Fine\n", {}, r"train\.csv:2: no audio path under 'file'"),
        ("file,words\na.wav,Fine\n", {}, r"train\.csv:2: no text under 'text'"),
        ("file,text\na.wav,Fine\n", {"audio_column": "sound"}, r"train\.csv:2: no audio path under 'sound'"),
        ("file,text\na.wav,Fine\n", {"columns": {"language": "locale"}}, r"train\.csv:2: no column 'locale'"),
        ("file,text\na.wav,Fine\n", {"audio_dir": "none"}, r"none is no folder; correct audio_dir"),
        ("file,text,start\na.wav,Fine,soon\n", {}, r"train\.csv:2: start is 'soon'"),
        ("file,text,channel\na.wav,Fine,left\n", {}, r"train\.csv:2: channel is 'left'"),
        ("", {}, "no clips in"),
    ],
)
def test_what_a_table_lacks_is_named(tmp_path, content, keys, message):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(InputError, match=rf"^set/train: .*{message}"):
        opened(tmp_path, "train.csv", format="csv", **keys)


def test_one_table_cannot_be_several_splits(tmp_path):
    (tmp_path / "all.csv").write_text("file,text\n")
    dataset = DatasetConfig(source=str(tmp_path / "all.csv"), format="csv", splits={"train": "all.csv", "test": "all.csv"})
    with pytest.raises(InputError, match="one file, but splits names 2"):
        list(iter_rows("set", dataset, "test"))
