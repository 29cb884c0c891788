import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import soundfile as sf
import tiny

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.data.audit import AuditReport, audit, normal_text
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError

SPLITS = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("corpus"), seed=3)


@pytest.fixture
def copy(corpus, tmp_path):
    return Path(shutil.copytree(corpus, tmp_path / "copy"))


def make_config(folder: Path, base: Path | str = "none", **train) -> Config:
    return loading.parse(
        {
            "run": {"name": "run"},
            "base": {"model": str(base)},
            "datasets": {"tiny": {"source": str(folder), "splits": SPLITS}},
            "rounds": [["tiny"]],
            "train": {"max_steps": 10, "warmup_steps": 0, **train},
        }
    )


def change(folder: Path, split: str, *changes: dict) -> None:
    """Changes the first rows of a manifest, one dictionary a row."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    for row, new in zip(rows, changes, strict=False):
        row.update(new)
    (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def only(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    return lines[0]


def test_clean_data_passes_with_its_figures(corpus):
    report = audit(make_config(corpus), deep=True)
    report.raise_for_errors()
    assert not report.warnings
    row = report.rows[0]
    assert (row.name, row.split, row.num_clips, row.languages) == ("tiny", "train", 6, {"en": 6})
    assert (row.min_s, row.mean_s, row.max_s) == (1.0, 2.0, 3.0) and row.hours == pytest.approx(12 / 3600)
    assert [row.split for row in report.rows] == ["train", "dev", "test"]


def test_protected_sets_are_checked(corpus, tmp_path):
    protected = {"evaluate": {"protected": {"old": {"source": str(tmp_path / "none"), "splits": SPLITS}}}}
    report = audit(loading.parse({**make_config(corpus).model_dump(), **protected}))
    assert "old/test: cannot read " in only(report.errors)


def test_missing_and_unreadable_audio(copy):
    (copy / "audio" / "train-0.flac").unlink()
    (copy / "audio" / "train-1.flac").write_bytes(b"no audio")
    line = only(audit(make_config(copy)).errors)
    assert line.startswith("2 of 6 clips of tiny/train: audio is missing or unreadable, first: audio file ")
    assert "train-0.flac is missing" in line
    with pytest.raises(InputError, match="nothing was started:\n  2 of 6 clips of tiny/train"):
        audit(make_config(copy)).raise_for_errors()


def test_damage_behind_the_header_is_found_by_the_deep_check_only(copy):
    path = copy / "audio" / "train-0.flac"
    sf.write(path, 0.1 * np.random.default_rng(0).standard_normal(16_000 * 40), 16_000)
    change(copy, "train", {"duration": 40.0})
    content = bytearray(path.read_bytes())
    content[len(content) * 7 // 10 : len(content) * 8 // 10] = bytes(len(content) * 8 // 10 - len(content) * 7 // 10)
    path.write_bytes(content)
    assert not audit(make_config(copy)).errors
    assert "audio is missing or unreadable" in only(audit(make_config(copy), deep=True).errors)


@pytest.mark.parametrize(
    ("split", "changes", "message"),
    [
        (
            "train",
            {"duration": 1.2},
            "audio ends before the stated duration, first: .*train.jsonl:1 .1.20 s stated, 1.00 s there",
        ),
        ("train", {"offset": 5.0}, "audio ends before the stated duration"),
        ("train", {"text": "  "}, "the text is empty, first: .*train.jsonl:1"),
        ("train", {"lang": "klingon"}, "no language, or none that Whisper knows, first: .*train.jsonl:1.*'klingon'"),
        ("train", {"lang": None}, "no language, or none that Whisper knows"),
        ("test", {"audio_filepath": "audio/train-0.flac"}, "the same audio as a training clip"),
    ],
)
def test_errors_name_the_first_row(copy, split, changes, message):
    change(copy, split, changes)
    report = audit(make_config(copy))
    with pytest.raises(InputError, match=rf"1 of \d clips of tiny/{split}: {message}"):
        report.raise_for_errors()


@pytest.mark.parametrize("language", ["klingon", None, "a; b"])
def test_what_to_do_about_a_language_is_said_once(copy, language):
    change(copy, "train", {"lang": language})
    with pytest.raises(InputError) as refused:
        audit(make_config(copy)).raise_for_errors()
    line = refused.value.message.splitlines()[-1]
    assert line.endswith("; set language: for the data set, or lang in every row, to a code such as en or es")
    assert line.count("such as en or es") == line.count("set language:") == 1 and repr(language) * bool(language) in line


def test_warnings_do_not_stop_anything(copy):
    text = json.loads((copy / "train.jsonl").read_text().splitlines()[3])["text"]
    change(copy, "train", {"text": "x" * 443}, {"text": "x" * 442}, {"audio_filepath": "audio/train-5.flac"})
    change(copy, "test", {"text": text.upper() + "!"})
    tiny.make_tokenizer().save_pretrained(copy / "base")
    report = audit(make_config(copy, base=copy / "base", max_duration_s=2.5, min_duration_s=1.5))
    report.raise_for_errors()
    expected = [
        "2 of 6 clips of tiny/train: shorter than train.min_duration_s",
        "1 of 6 clips of tiny/train: more than 448 label tokens",
        "2 of 6 clips of tiny/train: longer than train.max_duration_s",
        "1 of 6 clips of tiny/train: the same audio as an earlier clip",
        "1 of 3 clips of tiny/test: the same text as a training clip",
    ]
    for start in expected:
        assert any(line.startswith(start) for line in report.warnings), (start, report.warnings)


@pytest.mark.parametrize("model", ["a-team/a-whisper", "not/one/name", "of/nobody"])
def test_label_tokens_are_counted_as_far_as_the_tokenizer_is_on_this_machine(copy, tmp_path, monkeypatch, model):
    cached = tmp_path / "models--a-team--a-whisper"
    tiny.make_tokenizer().save_pretrained(cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    change(copy, "train", {"text": "x" * 443})
    found = [line for line in audit(make_config(copy, base=model)).warnings if "448 label tokens" in line]
    assert len(found) == (model == "a-team/a-whisper")


def test_a_damaged_tokenizer_is_said(copy, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer.json is no tokenizer: .*; fetch the base again"):
        audit(make_config(copy, base=tmp_path))


def test_long_test_clips_are_decoded_in_pieces(copy):
    sf.write(copy / "audio" / "long.flac", [0.1, -0.1] * 8_000 * 31, 16_000)
    change(copy, "test", {"audio_filepath": "audio/long.flac", "duration": 31.0})
    assert "longer than 30 s, decoded in pieces" in only(audit(make_config(copy)).warnings)


def test_splits_with_nothing_to_train_on_are_errors(copy):
    report = audit(make_config(copy, min_duration_s=10))
    assert "tiny/train: no clip is left to train on" in report.errors[0]
    (copy / "dev.jsonl").write_text("")
    assert any("tiny/dev: no clips in" in line for line in audit(make_config(copy)).errors)


def test_only_the_first_few_errors_of_a_set_are_listed(copy):
    rows = [{"duration": 99.0, "lang": None}, {"text": ""}, {"audio_filepath": "none"}]
    change(copy, "train", *rows)
    change(copy, "dev", *rows)
    with pytest.raises(InputError, match=r"tiny: \d more kinds of error") as caught:
        audit(make_config(copy)).raise_for_errors()
    assert len(str(caught.value).splitlines()) == 1 + 4 + 1


def test_an_empty_report_raises_nothing():
    AuditReport(()).raise_for_errors()


def test_normal_text_forgets_case_and_punctuation_but_not_accents():
    assert normal_text(" Él -- no,  gracias! ") == normal_text("él no gracias") != normal_text("el no gracias")


@pytest.mark.process
def test_audit_loads_neither_torch_nor_ray(corpus):
    program = (
        "import sys; from wfc_dist.config import loading; from wfc_dist.data.audit import audit; "
        f"c = loading.parse({make_config(corpus).model_dump(mode='json')!r}); audit(c); "
        "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def noise(seconds: float, channels: int = 1, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((round(16_000 * seconds), channels))


def test_the_fingerprint_of_the_audit_is_that_of_the_split(corpus):
    config = make_config(corpus)
    for row in audit(config).rows:
        assert row.fingerprint == open_split("tiny", config.datasets["tiny"], row.split).fingerprint


def test_a_row_that_cannot_be_read_leaves_no_fingerprint(copy):
    (copy / "audio" / "train-0.flac").unlink()
    assert [row.fingerprint is None for row in audit(make_config(copy)).rows] == [True, False, False]


@pytest.mark.parametrize(
    ("samples", "changes", "level", "message"),
    [
        (noise(3, 2), {}, "warning", "audio has several channels and the row names none.*train.jsonl:1 .2 channels."),
        (noise(3, 2), {"channel": 1}, None, ""),
        (noise(3, 2), {"channel": 2}, "error", "audio has no such channel.*channel 2 of 2, counted from 0"),
        (noise(3), {"channel": 1}, "error", "audio has no such channel.*channel 1 of 1"),
        (noise(3) * [[1, -1]], {}, "warning", "the channels cancel each other"),
        (noise(3) * [[1, -1]], {"channel": 0}, None, ""),
        (np.zeros((48_000, 1)), {}, "warning", "the audio is digital silence"),
        (noise(3) * 100, {}, "warning", "the audio is clipped"),
        (noise(3), {"duration": 3000}, "error", "3000.00 s stated, 3.00 s there; milliseconds. set time_unit: ms"),
        (noise(3), {"offset": 5.0, "duration": 1.0}, "error", "audio ends before the stated duration"),
        (noise(3), {"begin_time": 1.0, "target_lang": "es"}, "warning", "not read: begin_time, target_lang"),
        (noise(3), {"text": "hello <|endoftext|>"}, "error", "special token of Whisper"),
        (noise(3), {"text": "(ppb) hello"}, "warning", "markup in round brackets"),
        (noise(3), {"text": "hel\u200blo"}, "warning", "invisible characters.*U.200B.*cleaning removes it"),
        (noise(3), {"text": None}, "error", "the text is null"),
        (noise(3), {"text": 42}, "error", "the text is a number"),
    ],
)
def test_what_is_odd_about_a_clip_is_told(copy, samples, changes, level, message):
    sf.write(copy / "audio" / "odd.wav", samples, 16_000)
    change(copy, "train", {"audio_filepath": "audio/odd.wav", "duration": 3.0, **changes})
    report = audit(make_config(copy))
    lines = {"error": report.errors, "warning": report.warnings}
    assert len(lines["error"]) == (level == "error") and (level == "error" or len(lines["warning"]) == (level == "warning")), (
        lines
    )
    assert level is None or re.search(message, lines[level][0])


def test_floats_that_are_integers_are_an_error(copy):
    sf.write(copy / "audio" / "odd.wav", noise(3) * 32768, 16_000, subtype="FLOAT")
    change(copy, "train", {"audio_filepath": "audio/odd.wav", "duration": 3.0})
    assert "float samples are far beyond -1..1" in only(audit(make_config(copy)).errors)


@pytest.mark.parametrize("name", ["long.mp3", "short.mp3", "long.flac"])
def test_stretches_of_a_long_mp3_are_told_to_be_slow(copy, name):
    seconds = 3 if name == "short.mp3" else 310
    sf.write(copy / "audio" / name, noise(seconds)[::2], 8000)
    change(copy, "train", {"audio_filepath": f"audio/{name}", "offset": 1.0, "duration": 1.0})
    assert bool(audit(make_config(copy)).warnings) == (name == "long.mp3")


def test_a_language_that_the_base_has_no_token_for_is_an_error(copy, tmp_path):
    tiny.make_whisper(tmp_path)
    change(copy, "train", {"lang": "yue"})
    assert not audit(make_config(copy, base=tmp_path)).errors
    content = (tmp_path / "tokenizer.json").read_text()
    assert content.count("<|yue|>") > 0
    (tmp_path / "tokenizer.json").write_text(content.replace("<|yue|>", "<|other|>"))
    line = only(audit(make_config(copy, base=tmp_path)).errors)
    assert re.search(r"tokenizer has no token of the language, first: .*train.jsonl:1 \(<\|yue\|>\)", line)


def test_texts_are_shown_before_and_after_cleaning(copy):
    change(copy, "train", {"text": "\ufeffhello"}, {"text": "plain"}, {"text": "  wo\u00adrd "})
    rows = audit(make_config(copy), show=20).rows
    assert rows[0].shown == (("<U+FEFF>hello", "hello"), ("wo<U+00AD>rd", "word"))
    assert audit(make_config(copy), show=1).rows[0].shown == rows[0].shown[:1]
