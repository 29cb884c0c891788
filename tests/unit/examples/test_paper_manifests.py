"""What the scripts of examples/paper share: manifests at once or not at all, counts with places, parts of cleaning rules."""

import json
import os
from pathlib import Path

import pytest
from miniature_corpora import script, write_audio, write_text

manifests, texts = script("manifests"), script("texts")
Clip, Dropped, LayoutError = manifests.Clip, manifests.Dropped, manifests.LayoutError


def test_a_row_has_what_is_known_and_nothing_else() -> None:
    whole = Clip("a", Path("/x/a.wav"), "si yes", "es", 1.23456789, 2.0, 0, "ann", ("es", "en"))
    assert json.loads(whole.line()) == {
        "id": "a", "audio_filepath": "/x/a.wav", "offset": 1.2346, "duration": 2.0, "channel": 0, "text": "si yes", "lang": "es",
        "speaker": "ann", "word_langs": ["es", "en"],
    }  # fmt: skip
    assert json.loads(Clip("b", Path("/x/../b.wav"), "no", "es").line()) == {
        "id": "b", "audio_filepath": "/b.wav", "text": "no", "lang": "es",
    }  # fmt: skip


def test_a_split_without_clips_stops_before_anything_is_written(tmp_path: Path) -> None:
    clip = Clip("a", tmp_path / "a.wav", "yes", "en")
    with pytest.raises(LayoutError, match="no clip for dev"):
        manifests.write_manifests(tmp_path / "out", {"train": [clip], "dev": []}, Dropped())
    assert not (tmp_path / "out").exists()


def test_of_clips_with_one_id_the_first_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips = [Clip("a", tmp_path / "a.wav", text, "en") for text in ("one", "two")]
    manifests.write_manifests(tmp_path, {"train": clips}, Dropped())
    assert [json.loads(line)["text"] for line in (tmp_path / "train.jsonl").read_text().splitlines()] == ["one"]
    assert "1 dropped: the id of an earlier clip; first: a" in capsys.readouterr().out


def test_a_file_is_written_whole_or_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    manifests.write_atomically(path, b"before")

    def fails(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        manifests.write_atomically(path, b"after!")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    manifests.write_atomically(path, b"after!")
    assert path.read_bytes() == b"after!" and path.stat().st_mode & 0o777 == 0o644


def test_the_table_counts_by_split_and_reason_and_names_the_first_place() -> None:
    dropped = Dropped()
    for line in (3, 5):
        dropped.add("train", "no wav", f"t.txt:{line}")
    dropped.add("-", "in no list", "x.txt:1")
    dropped.note("train", "without speaker", "t.txt:9")
    clip = Clip("a", Path("a.wav"), "yes", "en", duration_s=7200.0)
    assert manifests.table({"train": [clip]}, dropped).splitlines() == [
        "split           clips    hours  dropped",
        "train               1     2.00        2",
        "    2 dropped: no wav; first: t.txt:3",
        "    1 kept: without speaker; first: t.txt:9",
        "-                   0     0.00        1",
        "    1 dropped: in no list; first: x.txt:1",
    ]


@pytest.mark.parametrize(("count", "share", "size"), [(1, 0.05, 0), (2, 0.05, 1), (3, 0.05, 1), (100, 0.05, 5), (4, 1.0, 3)])
def test_a_share_is_drawn_whole_and_the_same_every_time(count: int, share: float, size: int) -> None:
    clips = [Clip(str(number), Path("a.wav"), "yes", "en") for number in range(count)]
    rest, drawn = manifests.draw_share(clips, share)
    assert len(drawn) == size and sorted(rest + drawn, key=lambda clip: int(clip.id)) == clips
    assert manifests.draw_share(clips, share) == (rest, drawn)


@pytest.mark.parametrize(
    ("start_s", "end_s", "end"),
    [(0, 2, 2), (9, 10.05, 10), (9, 10.2, None), (2, 2, None), (3, 2, None), (10, 10.05, None), (-1, 2, None)],
)  # fmt: skip
def test_a_stretch_ends_with_its_recording(start_s: float, end_s: float, end: float | None) -> None:
    assert manifests.end_within(start_s, end_s, 10.0) == end


def test_a_length_is_that_of_readable_audio(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    assert manifests.length_s(write_audio(tmp_path / "a.flac", 1.5)) == 1.5
    assert manifests.length_s(tmp_path / "empty.wav") is None and manifests.length_s(tmp_path / "gone.wav") is None


@pytest.mark.parametrize(
    ("stated", "fits"), [(None, True), ("", True), ("1.5", True), (1.42, True), ("1.7", False), ("1500", False), ("soon", False)]
)  # fmt: skip
def test_another_length_is_another_file(stated: str | float | None, fits: bool) -> None:
    assert manifests.is_stated_length(1.5, stated) == fits


def test_a_table_without_quoting_takes_a_quote_for_a_letter(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.tsv", ["\ufeffa\tb", '"open\tone', "", "short", 'x\t"y"'])
    dropped = Dropped()
    found = [row for _, row in manifests.read_table(path, ("a",), dropped, "test", quoted=False)]
    assert found == [{"a": '"open', "b": "one"}, {"a": "x", "b": '"y"'}]
    assert dropped.first == {("test", "the row has not the 2 cells of the header"): f"{path}:4"}


@pytest.mark.parametrize(
    ("header", "expected"), [("a,c", "no column b"), ("a,b,b", "two columns of one name"), ("", "no column a, b")]
)
def test_a_header_without_what_is_needed_stops(header: str, expected: str, tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", [header, "1,2"])
    with pytest.raises(LayoutError, match=rf"t\.csv:1: {expected}"):
        list(manifests.read_table(path, ("a", "b"), Dropped(), "test"))


def test_a_quoted_cell_that_goes_on_in_the_next_line_stops(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", ["a,b", '1,"open', 'closed"'])
    with pytest.raises(LayoutError, match=r"t\.csv:2: .*quote"):
        list(manifests.read_table(path, ("a",), Dropped(), "test"))


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("ＡＢｃ１２，！", "ABc12,!"), ("e\u0301", "\u00e9"), ("a\u200bb\ufeff\x07c", "abc"), ("a\u3000b\tc\u00a0d", "a b c d"),
        ("it\u2019s", "it's"), ("。", "。"),
    ],
)  # fmt: skip
def test_plain(raw: str, clean: str) -> None:
    assert texts.plain(raw) == clean


@pytest.mark.parametrize(
    ("raw", "deleted", "spaced"),
    [
        ("a-b.", "ab", "a b "), ("don't 'quoted' rock 'n", "don't quoted rock n", "don't quoted rock n"),
        ("\u00bfqu\u00e9?", "qu\u00e9", " qu\u00e9 "),
    ],
)  # fmt: skip
def test_marks(raw: str, deleted: str, spaced: str) -> None:
    assert (texts.marks_to(raw, ""), texts.marks_to(raw, " ")) == (deleted, spaced)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("我  想 go shopping 去 吧", "我想 go shopping 去吧"), ("a  b", "a b"), (" 一 二 三 ", "一二三"), ("か な", "か な"),
        ("三 3 三", "三 3 三"),
    ],
)  # fmt: skip
def test_spaces_go_between_chinese_characters_only(raw: str, clean: str) -> None:
    assert texts.one_spaced(raw) == clean


def test_arabic_marks() -> None:
    assert texts.without_arabic_marks("\u0643\u064e\u0640\u0627\u0646\u0651 fine") == "\u0643\u0627\u0646 fine"


def test_a_parquet_file_that_is_none_is_named(tmp_path: Path) -> None:
    cells = script("cells")
    path = write_text(tmp_path / "a.parquet", ["version https://git-lfs.github.com/spec/v1"])
    with pytest.raises(LayoutError, match=r"a\.parquet is no parquet file, or is damaged"):
        list(cells.read_rows(path, ("audio",)))


@pytest.mark.parametrize(
    ("cell", "expected"), [([0.1, 0.2], "no cell with bytes"), ({"bytes": b"what", "path": "a.wav"}, "expected wav")]
)
def test_a_cell_that_is_no_audio_stops(cell: object, expected: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=expected):
        script("cells").save_audio(cell, tmp_path, "a", "a.parquet row 1")


def test_the_name_of_a_cell_stays_in_the_folder(tmp_path: Path) -> None:
    path = script("cells").save_audio({"bytes": b"RIFF....", "path": None}, tmp_path / "audio", "../../evil", "here")
    assert path == tmp_path / "audio" / "evil.wav"
