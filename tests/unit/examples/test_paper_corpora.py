"""The scripts of examples/paper on miniatures of the layouts that they state: what is kept, what is dropped, what stops them."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import miniature_corpora as miniatures
import numpy as np
import pytest
import soundfile as sf
from miniature_corpora import FISHER_CALLS, FISHER_PITCHES, SEAME_TEST, SEAME_TRAIN, script

MAKERS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "seame-form-1": ("seame", lambda root: miniatures.seame(root, form=1)),
    "seame-form-2": ("seame", miniatures.seame),
    "fisher": ("fisher", miniatures.fisher),
    "arzen-parquet": ("arzen", miniatures.arzen_parquet),
    "arzen-table": ("arzen", miniatures.arzen_table),
    "ascend": ("ascend", miniatures.ascend),
    "talcs": ("talcs", miniatures.talcs),
    "tunswitch": ("tunswitch", miniatures.tunswitch),
    "fleurs-parquet": ("fleurs", miniatures.fleurs_parquet),
    "fleurs-tar": ("fleurs", miniatures.fleurs_tar),
    "common-voice": ("common_voice", miniatures.common_voice),
}
each_miniature = pytest.mark.parametrize("name", MAKERS)
SCRIPTS = sorted({name for name, _ in MAKERS.values()})
PARTS_OF_HELP = ("Obtain:", "licence", "Layout", "Writes", "Cleaning:", "Dropped:", "Not verified")


def make(name: str, root: Path) -> list[str]:
    """Makes a miniature; returns its command line, with --out."""
    return [*MAKERS[name][1](root / "disc"), "--out", str(root / "out")]


def prepare(name: str, root: Path) -> Path:
    """Makes and prepares a miniature; returns the folder of the manifests."""
    script(MAKERS[name][0]).main(make(name, root))
    return root / "out"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(path: Path) -> list[str]:
    return [row["text"] for row in rows(path)]


def refused(module: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a script that must end with 2; returns its message."""
    with pytest.raises(SystemExit) as end:
        script(module).main(words)
    assert end.value.code == 2
    return capsys.readouterr().err


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# All of them


@each_miniature
def test_a_manifest_names_audio_that_is_there_and_lasts_as_long(name: str, tmp_path: Path) -> None:
    out = prepare(name, tmp_path)
    manifests = sorted(out.rglob("*.jsonl"))
    assert manifests
    for manifest in manifests:
        found = rows(manifest)
        assert found and len({row["id"] for row in found}) == len(found)
        for row in found:
            info = sf.info(row["audio_filepath"])
            assert row.get("offset", 0) + row["duration"] <= info.frames / info.samplerate + 1e-3
            assert row.get("channel", 0) < info.channels and ("channel" in row) == (info.channels > 1)
            assert row["text"] == " ".join(row["text"].split()) and not re.search(r"[<>\[\]]", row["text"])
            assert len(row.get("word_langs", row["text"].split())) == len(row["text"].split())


@each_miniature
def test_a_second_run_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    words = make(name, tmp_path)
    script(MAKERS[name][0]).main(words)
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()}
    script(MAKERS[name][0]).main(words)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*")) if path.is_file()} == before


@each_miniature
def test_no_clip_is_on_two_sides(name: str, tmp_path: Path) -> None:
    out = prepare(name, tmp_path)
    for folder in {path.parent for path in out.rglob("*.jsonl")}:
        keys = [
            {(row["audio_filepath"], row.get("offset"), row.get("channel")) for row in rows(folder / f"{split}.jsonl")}
            for split in ("train", "dev", "test") if (folder / f"{split}.jsonl").is_file()
        ]  # fmt: skip
        assert sum(map(len, keys)) == len(set().union(*keys))


@pytest.mark.parametrize("module", SCRIPTS)
def test_the_help_says_what_to_obtain_and_what_was_not_verified(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        script(module).main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(part in shown for part in PARTS_OF_HELP)


@pytest.mark.parametrize("module", SCRIPTS)
def test_a_folder_that_is_not_there_is_named(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = str(tmp_path / "gone")
    words = {
        "seame": ["--corpus", gone, "--lists", gone],
        "fisher": ["--speech", gone, "--transcripts", gone, "--lists", gone],
        "arzen": ["--parquet", gone],
        "fleurs": ["--corpus", gone, "--languages", "es_419"],
        "common_voice": ["--corpus", gone, "--locales", "es"],
    }.get(module, ["--corpus", gone])
    message = refused(module, [*words, "--out", str(tmp_path / "out")], capsys)
    assert gone in message and "expected" in message and not (tmp_path / "out").exists()


@each_miniature
def test_an_empty_copy_stops_the_script_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = make(name, tmp_path)
    for path in sorted((tmp_path / "disc").rglob("*")):
        if path.is_file():
            path.unlink()
    assert len(refused(MAKERS[name][0], words, capsys)) > 30
    assert not list(tmp_path.rglob("*.jsonl"))


# SEAME


@pytest.mark.parametrize("name", ["seame-form-1", "seame-form-2"])
def test_seame(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare(name, tmp_path)
    train = texts(out / "train.jsonl") + texts(out / "dev.jsonl")
    assert sorted(train) == sorted(["我想去 shopping", "ok 那我们 go lah cafe's", "我你他 don't know"])
    assert len(texts(out / "dev.jsonl")) == 1
    assert texts(out / "test_man.jsonl") == ["你要 coffee 吗", "好的"] and texts(out / "test_sge.jsonl") == ["yes please"]
    assert texts(out / "test.jsonl") == ["你要 coffee 吗", "yes please", "好的"]
    first = rows(out / "test.jsonl")[0]
    assert (first["offset"], first["duration"], first["speaker"], first["lang"]) == (0.1, 2.0, "nc01f", "zh")
    assert first["audio_filepath"].endswith(f"audio/{SEAME_TEST}.flac")
    assert {row["speaker"] for row in rows(out / "train.jsonl")} == {"ni01m"}
    table = capsys.readouterr().out
    for reason in ("has not the 4 columns", "unclear speech", "empty after cleaning", "0.01 s or less", "a mark that the rule"):
        assert f"dropped: {reason}" in table or reason in table
    assert "1 dropped: a listed stretch that no line has; first: 01nc01fbx_0101 at 17.00 to 19.00 s" in table
    assert re.search(rf"{SEAME_TRAIN}\.txt:3\n", table)


def test_seame_takes_phase_two_where_a_recording_has_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("seame-form-2", tmp_path)
    one = next((tmp_path / "disc").rglob(f"phaseI/{SEAME_TRAIN}.txt"))
    two = one.parents[1] / "phaseII" / one.name
    miniatures.write_text(two, [f"{SEAME_TRAIN}\t0\t2100\tCS\tnewer 一", f"{SEAME_TRAIN}\t3000\t4000\tZH\t二"])
    script("seame").main(words)
    found = texts(tmp_path / "out" / "train.jsonl") + texts(tmp_path / "out" / "dev.jsonl")
    assert sorted(found) == ["newer 一", "二"] and "phase I of a recording that phase II has" in capsys.readouterr().out


def test_a_speaker_of_a_test_set_of_seame_is_not_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("seame-form-2", tmp_path)
    audio = next((tmp_path / "disc").rglob(f"{SEAME_TEST}.flac"))
    other = SEAME_TEST.replace("01NC", "46NC").replace("0101", "0201")
    miniatures.write_audio(audio.with_stem(other), 20)
    transcript = next((tmp_path / "disc").rglob(f"{SEAME_TEST}.txt"))
    miniatures.write_text(transcript.with_stem(other), [f"{other}\t0\t2000\tEN\tthe same person"])
    recordings = [SEAME_TRAIN, other, SEAME_TEST]
    miniatures.write_text(
        tmp_path / "disc" / "SEAME-dev-set" / "train" / "wav_file.txt", [f"/x/{name}/wav.scp" for name in recordings]
    )
    script("seame").main(words)
    assert {row["speaker"] for split in ("train", "dev") for row in rows(tmp_path / "out" / f"{split}.jsonl")} == {"ni01m"}
    assert "2 dropped: a speaker of a test set" in capsys.readouterr().out


@pytest.mark.parametrize(("units", "fits"), [(2, True), (3, False)])
def test_a_listed_stretch_of_seame_fits_within_less_than_three_units(units: int, fits: bool, tmp_path: Path) -> None:
    words = make("seame-form-2", tmp_path)
    replace_in(tmp_path / "disc" / "SEAME-dev-set" / "dev_man" / "text", "-00600-", f"-{600 + units:05d}-")
    script("seame").main(words)
    assert ("好的" in texts(tmp_path / "out" / "test_man.jsonl")) == fits
    assert "好的" not in texts(tmp_path / "out" / "train.jsonl")


def test_a_time_of_seame_that_is_no_number_stops_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("seame-form-2", tmp_path)
    path = next((tmp_path / "disc").rglob(f"phaseI/{SEAME_TRAIN}.txt"))
    replace_in(path, "\t2500\t", "\t2,5s\t")
    message = refused("seame", words, capsys)
    assert f"{path}:2: '2,5s'" in message and "milliseconds" in message and not (tmp_path / "out").exists()


# Fisher


def test_fisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("fisher", tmp_path)
    found = rows(out / "train.jsonl")
    assert [row["text"] for row in found] == [
        "audrey qu\u00e9 tal", "eh you know \u00e1rbol p\u00e9rez", "pues okay no s\u00e9", "voy al shopping center",
    ]  # fmt: skip
    assert [row.get("word_langs") for row in found] == [
        ["en", "es", "es"], ["es", "en", "en", "es", "es"], ["es", "en", "es", "es"], None,
    ]  # fmt: skip
    assert [(row["channel"], row["speaker"]) for row in found] == [(1, "2000"), (0, "1000"), (0, "1000"), (1, "2000")]
    assert [(row["offset"], row["duration"]) for row in found] == [(0, 2), (2.5, 2), (5, 2), (17, 2)]
    for split, call in zip(("train", "dev", "dev2", "test"), FISHER_CALLS, strict=True):
        assert {Path(row["audio_filepath"]).stem for row in rows(out / f"{split}.jsonl")} == {call}
    table = capsys.readouterr().out
    for reason in (
        "an empty row",
        "a guess",
        "no English in it",
        "a tag that the rule",
        "the stretch is empty",
        "empty after cleaning",
    ):
        assert table.count(reason) == 4


def test_a_channel_of_fisher_is_that_of_its_speaker(tmp_path: Path) -> None:
    for row in rows(prepare("fisher", tmp_path) / "train.jsonl"):
        samples, rate = sf.read(row["audio_filepath"], start=round(row["offset"] * 8000), frames=round(row["duration"] * 8000))
        spectrum = np.abs(np.fft.rfft(samples[:, row["channel"]]))
        assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(FISHER_PITCHES[row["channel"]], abs=1)


def test_fisher_takes_rows_without_english_if_asked(tmp_path: Path) -> None:
    script("fisher").main([*make("fisher", tmp_path), "--all"])
    found = rows(tmp_path / "out" / "train.jsonl")
    spanish = next(row for row in found if row["text"] == "solo espa\u00f1ol aqu\u00ed")
    assert len(found) == 5 and spanish["word_langs"] == ["es", "es", "es"]


@pytest.mark.parametrize(
    ("raw", "text", "languages"),
    [
        ('s\u00ed <foreign lang="English"> my god </foreign>', "s\u00ed my god", "es en en"),
        ('<forein lang="English">yes</forein> no', "yes no", "en es"),
        ('<foreigh lang"English"> yes </foreign> no', "yes no", "en es"),
        ("<foreign langengull\u00eds> yes </foreign> no", "yes no", "en es"),
        ("<foreign> yes </foreign> no", "yes no", "en es"),
        ('<foreign lang="English"> <laugh> ja </laugh> yes <breath/></foreign> no', "yes no", "en es"),
        ('<laugh> <breath/> ja <foreign lang="English"> so </foreign></laugh> no <foreign lang="English"> ok', "no ok", ""),
        ('<laugh><background>x</background> ja</laugh> no <foreign lang="English"> ok</foreign>', "no ok", "es en"),
        ('yes foreign> no <foreign lang="English"> ok </foreign>', "yes no ok", ""),
        ('<foreign lang="English"> yes <foreign lang="English"> no', "yes no", ""),
        ('<foreign lang="Italian"> ciao </foreign> <foreign lang="English"> yes </foreign>', "ciao yes", ""),
        ("a </b \u00a1Ay! 'cause <foreign lang=\"English\"> it's </foreign>", "a ay cause it's", "es es es en"),
    ],
)
def test_tags_of_fisher(raw: str, text: str, languages: str) -> None:
    assert script("fisher").words_of(raw) == (text, tuple(languages.split()), True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("\t2.5\t4.5\t", "\tsoon\t4.5\t", "expected 0 or 1, seconds"),
        ("\t0\t2.5\t", "\t2\t2.5\t", "channel 2"),
        (";;MM sectionTypes\t[None, None]\n", "", "3 header lines"),
    ],
)
def test_a_transcript_of_fisher_in_another_form_stops_with_its_line(
    old: str, new: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = make("fisher", tmp_path)
    path = next((tmp_path / "disc").rglob(f"{FISHER_CALLS[0]}.tdf"))
    replace_in(path, old, new)
    message = refused("fisher", words, capsys)
    assert re.search(rf"{path}:[35]: ", message) and expected in message


def test_a_call_of_one_channel_stops_fisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("fisher", tmp_path)
    path = next((tmp_path / "disc").rglob(f"{FISHER_CALLS[1]}.sph"))
    sf.write(path, miniatures.tone(30, 300, "one", 8000), 8000, format="NIST", subtype="ULAW")
    message = refused("fisher", words, capsys)
    assert str(path) in message and "expected 2" in message


def test_a_compressed_call_stops_fisher_with_the_converter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("fisher", tmp_path)
    path = next((tmp_path / "disc").rglob(f"{FISHER_CALLS[1]}.sph"))
    content = path.read_bytes()
    path.write_bytes(content[:1024].replace(b"-s4 ulaw\n", b"-s26 ulaw,embedded-shorten-v2.00\n")[:1024] + b"ajkg\x02" * 100)
    message = refused("fisher", words, capsys)
    assert str(path) in message and "sph2pipe" in message


def test_a_call_in_two_lists_stops_fisher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("fisher", tmp_path)
    path = tmp_path / "disc" / "split_fisher" / "test"
    miniatures.write_text(path, [f"{FISHER_CALLS[3]}.sph", f"{FISHER_CALLS[0]}.sph"])
    message = refused("fisher", words, capsys)
    assert f"{path}:2:" in message and "also in train" in message


# ArzEn


def test_arzen_from_parquet(tmp_path: Path) -> None:
    out = prepare("arzen-parquet", tmp_path)
    found = {row["id"]: row for split in ("train", "dev", "test") for row in rows(out / f"{split}.jsonl")}
    assert [found[f"{number:05d}"]["text"] for number in range(4)] == [
        "\u0627\u0644meeting \u0643\u0627\u0646 good", "\u0623\u0646\u0627 busy", "yes \u0637\u0628\u0639\u0627", "okay",
    ]  # fmt: skip
    assert [found[f"{number:05d}"]["duration"] for number in range(4)] == [1, 1.5, 2, 2.5]
    assert len(rows(out / "train.jsonl")) == 2 and {row["lang"] for row in found.values()} == {"ar"}


def test_arzen_from_a_table_keeps_a_speaker_on_one_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("arzen-table", tmp_path)
    speakers = [{row["speaker"] for row in rows(out / f"{split}.jsonl")} for split in ("train", "dev", "test")]
    assert sorted(name for side in speakers for name in side) == ["speaker0", "speaker1", "speaker2"]
    table = capsys.readouterr().out
    assert "1 dropped: no readable audio" in table and "1 dropped: the row has not the 3 cells of the header" in table


def test_arzen_by_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("arzen-table", tmp_path)
    test, dev = miniatures.write_text(tmp_path / "t", ["clip2"]), miniatures.write_text(tmp_path / "d", ["clip0.wav"])
    script("arzen").main([*words, "--test-list", str(test), "--dev-list", str(dev), "--plus", "space"])
    assert texts(tmp_path / "out" / "test.jsonl") == ["yes \u0637\u0628\u0639\u0627"]
    assert texts(tmp_path / "out" / "dev.jsonl") == ["\u0627\u0644 meeting \u0643\u0627\u0646 good"]
    miniatures.write_text(tmp_path / "t", ["clip2", "clip77"])
    assert "clip77" in refused("arzen", [*words, "--test-list", str(test), "--dev-list", str(dev)], capsys)


def test_arzen_with_stretches_of_long_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    miniatures.write_audio(tmp_path / "audio" / "talk.wav", 10)
    lines = ["file,text,start,end", "talk,one,0.5,2", "talk.wav,two,3,4.5", 'talk,"three, four",5,10.05', "talk,late,8,12"]
    table = miniatures.write_text(tmp_path / "table.csv", lines)
    words = ["--audio", str(tmp_path / "audio"), "--table", str(table), "--out", str(tmp_path / "out")]
    script("arzen").main(words)
    found = {row["text"]: row for split in ("train", "dev", "test") for row in rows(tmp_path / "out" / f"{split}.jsonl")}
    assert {text: (row["offset"], row["duration"]) for text, row in found.items()} == {
        "one": (0.5, 1.5), "two": (3, 1.5), "three, four": (5, 5),
    }  # fmt: skip
    replace_in(table, ",3,4.5", ",00:03,4.5")
    assert f"{table}:3:" in refused("arzen", words, capsys)


# ASCEND


def test_ascend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("ascend", tmp_path)
    kept = ["well, you know", "我觉得 ok 吧", "然后 so"]
    assert texts(out / "train.jsonl") == kept == texts(out / "dev.jsonl") and texts(out / "test.jsonl") == ["呃我想一下", *kept]
    assert {row["lang"] for row in rows(out / "train.jsonl")} == {"zh"}
    assert len({row["audio_filepath"] for row in rows(out / "test.jsonl")}) == 4
    table = capsys.readouterr().out
    assert table.count("no readable wav") == 3 and table.count("[UNK]") == 2


def test_a_wav_of_ascend_with_another_length_is_another_wav(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("ascend", tmp_path)
    miniatures.write_audio(next((tmp_path / "disc").rglob("ses300_spk17_L381*.wav")), 2.5)
    script("ascend").main(words)
    assert "well, you know" not in texts(tmp_path / "out" / "train.jsonl")
    assert "1 dropped: the wav has not the duration of the table" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [('"well, you know"', '"well, you know', "train_metadata.csv:3:"), ("transcription", "text", "no column transcription")],
)
def test_a_table_of_ascend_in_another_form_stops(
    old: str, new: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = make("ascend", tmp_path)
    replace_in(tmp_path / "disc" / "ASCEND" / "train_metadata.csv", old, new)
    assert expected in refused("ascend", words, capsys)


def test_an_unquoted_comma_of_ascend_drops_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("ascend", tmp_path)
    replace_in(tmp_path / "disc" / "ASCEND" / "train_metadata.csv", '"well, you know"', "well, you know")
    script("ascend").main(words)
    assert texts(tmp_path / "out" / "train.jsonl") == ["我觉得 ok 吧", "然后 so"]
    assert re.search(
        r"1 dropped: the row has not the 7 cells of the header; first: .*train_metadata\.csv:3\n", capsys.readouterr().out
    )


# TALCS


def test_talcs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("talcs", tmp_path)
    for split in ("train", "dev", "test"):
        assert texts(out / f"{split}.jsonl") == ["我们来看 Apple it's an apple", "这是 what", "Let's go"]
        assert [row["duration"] for row in rows(out / f"{split}.jsonl")] == [1, 1.25, 1.5]
    table = capsys.readouterr().out
    assert table.count("1 dropped: a line without a wav") == 3 == table.count("1 dropped: a wav without a line")
    assert "label.txt:4" in table and "train_set-3.wav" in table


def test_bytes_that_are_not_utf8_stop_talcs_with_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("talcs", tmp_path)
    path = tmp_path / "disc" / "TALCS_corpus" / "dev_set" / "label.txt"
    path.write_bytes(path.read_bytes() + "dev_set-3 你好\n".encode("gb18030"))
    assert f"{path}:5: not UTF-8" in refused("talcs", words, capsys)


def test_two_wavs_of_one_name_stop_talcs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("talcs", tmp_path)
    miniatures.write_audio(tmp_path / "disc" / "TALCS_corpus" / "dev_set" / "wav" / "part9" / "dev_set-0.wav", 1)
    assert "part9/dev_set-0.wav" in refused("talcs", words, capsys)


# TunSwitch


def test_tunswitch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("tunswitch", tmp_path)
    found = rows(out / "train.jsonl")
    assert [row["text"] for row in found] == [
        "\u0628\u0631\u0634\u0627 merci beaucoup",
        "c'est \u062a\u0648\u0627 okay",
        "\u0646\u062d\u0628 le parking",
    ]
    assert [row.get("word_langs") for row in found] == [["ar", "fr", "fr"], ["fr", "ar", "en"], None]
    assert all("TunSwitchCS/wavs" in row["audio_filepath"] for row in found)
    assert all("TunSwitchTO/wavs" in row["audio_filepath"] for row in rows(out / "train_to.jsonl"))
    assert all("test_wavs/cs/" in row["audio_filepath"] for row in rows(out / "test.jsonl"))
    table = capsys.readouterr().out
    assert table.count("1 dropped: no readable wav") == 6 and table.count("1 kept: without word_langs") == 3


@pytest.mark.parametrize("start", ["", "0.00"])
def test_a_start_of_tunswitch_that_is_0_is_taken(start: str, tmp_path: Path) -> None:
    words = make("tunswitch", tmp_path)
    replace_in(tmp_path / "disc" / "TunSwitch" / "train_cs.csv", ",1.5,0,", f",1.5,{start},")
    script("tunswitch").main(words)
    assert len(rows(tmp_path / "out" / "train.jsonl")) == 3


def test_a_path_of_tunswitch_that_fits_two_wavs_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("tunswitch", tmp_path)
    table = tmp_path / "disc" / "TunSwitch" / "train_cs.csv"
    replace_in(table, "/gpfswork/someone/TunSwitchCS/wavs/train0.wav", "/data/train0.wav")
    script("tunswitch").main(words)
    assert "cs_train_0" not in {row["id"] for row in rows(tmp_path / "out" / "train.jsonl")}
    assert "2 dropped: no readable wav" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("table", "change", "expected"),
    [
        ("train_cs.csv", (",1.5,0,", ",1.5,48000,"), "start is 48000"),
        ("train_cs.csv", (",1.5,0,", ",1.5,soon,"), "start is soon"),
        ("annotation.csv", ("tn fr fr fr", "tn de fr fr"), "unknown language 'de'"),
    ],
)
def test_what_is_not_known_of_tunswitch_stops(
    table: str, change: tuple[str, str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = make("tunswitch", tmp_path)
    replace_in(tmp_path / "disc" / "TunSwitch" / table, *change)
    message = refused("tunswitch", words, capsys)
    assert f"{table}:2:" in message and expected in message


# FLEURS


@pytest.mark.parametrize("name", ["fleurs-parquet", "fleurs-tar"])
def test_fleurs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare(name, tmp_path)
    chinese = out / "cmn_hans_cn"
    assert texts(chinese / "train.jsonl") == ["今天天气很好。", "他去了Paris。"]
    assert {row["lang"] for row in rows(chinese / "test.jsonl")} == {"zh"}
    assert texts(out / "es_419" / "train.jsonl") == ['Hola a "todos".']
    assert [row["id"] for row in rows(chinese / "test.jsonl")] == ["7/c7", "7/c7b", "8/c8"]
    assert "1 dropped: its sentence is on a later side, by another reader; first: 7/a7" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["fleurs-parquet", "fleurs-tar"])
def test_fleurs_without_case_and_punctuation(name: str, tmp_path: Path) -> None:
    script("fleurs").main([*make(name, tmp_path), "--plain-text", "--splits", "test"])
    assert texts(tmp_path / "out" / "cmn_hans_cn" / "test.jsonl") == ["这句在测试里", "这句在测试里", "再见"]
    assert not list(tmp_path.rglob("train.jsonl"))


def test_both_layouts_of_fleurs_give_the_same_rows_and_audio(tmp_path: Path) -> None:
    one, other = prepare("fleurs-parquet", tmp_path / "a"), prepare("fleurs-tar", tmp_path / "b")
    for path in one.rglob("*.jsonl"):
        left, right = rows(path), rows(other / path.relative_to(one))
        assert [Path(row.pop("audio_filepath")).read_bytes() for row in left] == [
            Path(row.pop("audio_filepath")).read_bytes() for row in right
        ]
        assert left == right


@pytest.mark.parametrize("damage", ["cut off", "overwritten", "not a tar"])
def test_a_damaged_tar_stops_fleurs(damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("fleurs-tar", tmp_path)
    path = tmp_path / "disc" / "fleurs" / "data" / "es_419" / "audio" / "test.tar.gz"
    whole = path.read_bytes()
    damaged = {"cut off": whole[:2000], "overwritten": whole[:3000] + b"\xff" * 500 + whole[3500:], "not a tar": b"version https"}
    path.write_bytes(damaged[damage])
    assert f"cannot read {path}" in refused("fleurs", words, capsys)


@pytest.mark.parametrize("samples", ["9000", "many"])
def test_audio_of_fleurs_with_another_length_is_dropped(samples: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("fleurs-tar", tmp_path)
    path = tmp_path / "disc" / "fleurs" / "data" / "es_419" / "test.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("24000", samples, 1), encoding="utf-8")
    script("fleurs").main(words)
    assert texts(tmp_path / "out" / "es_419" / "test.jsonl") == ["Bien."]
    assert "1 dropped: the audio has not the stated number of samples" in capsys.readouterr().out


def test_a_damaged_parquet_file_stops_fleurs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("fleurs-parquet", tmp_path)
    path = next((tmp_path / "disc").rglob("es_419/test/0000.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\x00" * 4000 + whole[4100:])
    assert f"{path} is no parquet file, or is damaged" in refused("fleurs", words, capsys)


@pytest.mark.parametrize(
    ("name", "code"), [
        ("cmn_hans_cn", "zh"), ("yue_hant_hk", "yue"), ("nb_no", "no"), ("fil_ph", "tl"), ("jv_id", "jw"), ("es_419", "es"),
        ("zh-CN", "zh"), ("zh-TW", "zh"), ("zh-HK", "yue"), ("sv-SE", "sv"), ("nn-NO", "nn"), ("pa-IN", "pa"), ("tr", "tr"),
    ],
)  # fmt: skip
def test_names_of_fleurs_and_common_voice_become_codes_of_whisper(name: str, code: str) -> None:
    assert script("manifests").whisper_language(name, "here") == code


@pytest.mark.parametrize("name", ["ga-IE", "ga_ie", "kea_cv", "mixed"])
def test_a_language_that_whisper_lacks_is_refused(name: str) -> None:
    with pytest.raises(script("manifests").LayoutError, match=name):
        script("manifests").whisper_language(name, "here")


def test_the_codes_are_those_of_transformers() -> None:
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    assert frozenset(LANGUAGES) == script("manifests").WHISPER_LANGUAGES


# Common Voice


def test_common_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("common-voice", tmp_path)
    assert texts(out / "es" / "test.jsonl") == ["Hola, \u00bfqu\u00e9 tal?", 'Dijo "s\u00ed', '"Bueno."']
    assert texts(out / "zh-CN" / "test.jsonl") == ["你好。", "再见。", "谢谢你。"]
    assert [row["lang"] for name in ("es", "tr", "zh-CN") for row in rows(out / name / "test.jsonl")] == ["es"] * 3 + [
        "tr"
    ] * 3 + ["zh"] * 3
    assert capsys.readouterr().out.count("1 dropped: the clip is absent, empty or not decodable") == 3


def test_common_voice_without_quotes_around_sentences(tmp_path: Path) -> None:
    script("common_voice").main([*make("common-voice", tmp_path), "--strip-quotes"])
    assert texts(tmp_path / "out" / "es" / "test.jsonl") == ["Hola, \u00bfqu\u00e9 tal?", 'Dijo "s\u00ed', "Bueno."]


def test_a_row_of_common_voice_with_a_tab_in_it_is_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = make("common-voice", tmp_path)
    replace_in(tmp_path / "disc" / "cv-corpus-22.0" / "tr" / "test.tsv", "Merhaba ", "Merhaba\t")
    script("common_voice").main(words)
    assert "Merhaba" not in " ".join(texts(tmp_path / "out" / "tr" / "test.jsonl"))
    assert "has not the 13 cells of the header" in capsys.readouterr().out


def test_a_locale_that_whisper_lacks_stops_common_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "ga-IE" in refused("common_voice", [*make("common-voice", tmp_path), "--locales", "ga-IE"], capsys)


def test_a_table_is_written_as_csv_reads_it(tmp_path: Path) -> None:
    path = miniatures.write_csv(tmp_path / "t.csv", [("a", "b"), ('x "y", z', "w")])
    with open(path, encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1] == ['x "y", z', "w"]
