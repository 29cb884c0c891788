"""The worst utterances of a report: which they are, what is said of them, and their audio."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile as sf
from scored_runs import make_config, make_run, put

from wfc_dist.config import loading
from wfc_dist.evaluation.hypotheses import SCHEMA_VERSION, Hypothesis, write_hypotheses
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.rates import RateReader
from wfc_dist.reports import clips
from wfc_dist.reports.run import write_report
from wfc_dist.reports.utterances import utterances_section

TEXTS = [f"clip number {number} says this" for number in range(6)]


@pytest.fixture
def run(tmp_path):
    """A run whose set cs lies on disk: six clips of a second, the last two in one window."""
    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for number, text in enumerate(TEXTS):
        tone = 0.3 * np.sin(2 * np.pi * 220 * (number + 1) * np.arange(16_000) / 16_000)
        sf.write(data / f"{number}.wav", tone, 16_000)
        rows.append({"id": f"c{number}", "audio": f"{number}.wav", "text": text})
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = make_config(tmp_path, rounds=(("cs",),)).model_dump(mode="json")
    tree["datasets"]["cs"] |= {"source": str(data)}
    config = loading.parse(tree)
    folder = make_run(tmp_path / "r", config)
    said = [Hypothesis(f"c{number}", (TEXTS[number],), TEXTS[number].replace("says", "x" * number or "says"), "en", 1.0)
            for number in range(4)]  # fmt: skip
    said.append(Hypothesis("c4..c5", (TEXTS[4], TEXTS[5]), "clip", "en", 2.0))
    for index in (0, 1):
        put(folder, config, 1, f"base-{index:04d}", {"cs": 1})
        path = folder / "round-0001" / "evaluation" / f"base-{index:04d}" / "cs.jsonl"
        write_hypotheses(path, {"schema": SCHEMA_VERSION, "model_sha256": str(index)}, said)
    return folder


def chapter(run, audio=0):
    matrix = read_matrix(run)
    return utterances_section(matrix, RateReader(matrix.config), audio)


def utterances(run, audio=0):
    return [each for part in chapter(run, audio).parts for each in part.utterances]


def test_the_worst_come_first_and_faultless_ones_not_at_all(run):
    found = utterances(run, audio=9)

    assert [each.title for each in found] == ["c4..c5", "c1", "c2", "c3"]
    assert found[0].about == "2 clips, 2.0 s; 9 errors in 10 words: 9 missed"
    assert found[1].about == "1.0 s; 1 error in 5 words: 1 substituted"
    assert found[1].about_earlier == "base 0 makes 1 error here"
    assert len(utterances(run)) == 3


def test_audio_is_opus_of_the_right_clips_in_their_order(run):
    window, single, *rest = utterances(run, audio=2)

    assert not any(each.audio for each in rest)
    for each, duration_s in ((window, 2.3), (single, 1.0)):
        head, _, body = each.audio.partition(",")
        encoded = base64.b64decode(body)
        samples, rate = sf.read(io.BytesIO(encoded))
        assert head == "data:audio/ogg;base64" and sf.info(io.BytesIO(encoded)).subtype == "OPUS"
        assert (len(samples) / rate, rate) == (pytest.approx(duration_s, abs=0.05), 16_000)
        assert len(encoded) < 4500 * duration_s, "about 16 kbit/s, and headers"
        first, last = (5, 6) if each is window else (2, 2)
        assert loudest_hz(samples[:12_000]) == pytest.approx(220 * first, abs=20)
        assert loudest_hz(samples[-12_000:]) == pytest.approx(220 * last, abs=20)
    assert loudest_hz(sf.read(io.BytesIO(base64.b64decode(window.audio.partition(",")[2])))[0][:12_000]) == pytest.approx(
        1100, abs=20
    )


def reword(path):
    path.write_text(path.read_text().replace("number 1", "no 1"))


def loudest_hz(samples):
    return np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda data: (data / "1.wav").write_bytes(b"no audio"), "1.wav"),
        (lambda data: (data / "1.wav").unlink(), "1.wav"),
        (lambda data: (data / "test.jsonl").unlink(), "test.jsonl"),
        (
            lambda data: (data / "test.jsonl").write_text((data / "test.jsonl").read_text().replace("number 1", "no 1")),
            "has changed",
        ),
    ],
    ids=["no audio", "no file", "no manifest", "another text"],
)
def test_audio_that_cannot_be_read_is_said_and_the_page_is_written(run, tmp_path, break_it, said):
    break_it(tmp_path / "data")

    (found,) = [each for each in utterances(run, audio=2) if each.title == "c1"]
    assert found.audio == "" and found.audio_note.startswith("The audio cannot be read: ") and said in found.audio_note
    assert "cannot be read; each says why." in write_report(run, audio=2).read_text()


def test_a_page_has_so_much_audio_and_says_what_is_left_out(run, monkeypatch):
    one = len(utterances(run, audio=1)[0].audio)
    monkeypatch.setattr(clips, "MOST_BYTES", one + 10)

    first, second, *_ = utterances(run, audio=2)

    assert first.audio and not second.audio and "left out" in second.audio_note
    assert "The audio of 1 more is left out" in chapter(run, audio=2).parts[0].note


def test_a_long_recording_is_cut_and_says_so(run, monkeypatch):
    monkeypatch.setattr(clips, "LONGEST_S", 1.0)

    found = utterances(run, audio=1)[0]
    samples, rate = sf.read(io.BytesIO(base64.b64decode(found.audio.partition(",")[2])))
    assert len(samples) / rate == pytest.approx(1.0, abs=0.05) and found.audio_note == "the first 1 of 2 s"


def test_the_page_has_no_audio_unless_asked(run):
    assert "<audio" not in write_report(run).read_text()
    text = write_report(run, audio=1).read_text()
    assert text.count("<audio") == 1 and not re.search(r'src="(?!data:audio/ogg)', text)


@pytest.mark.process
def test_audio_plays_in_a_browser_and_the_page_stays_accessible(run, visit):
    found = visit(write_report(run, audio=2), 390, "dark")

    found.check()
    loaded = """new Promise(done => {
        const audio = document.querySelector('audio');
        if (audio.readyState) done(audio.duration); else audio.onloadedmetadata = () => done(audio.duration);
    })"""
    assert found.page.evaluate(loaded) == pytest.approx(2.3, abs=0.1)


def test_another_direction_and_an_old_code_of_a_language(run):
    path = run / "round-0001" / "evaluation" / "base-0001" / "cs.jsonl"
    said = [Hypothesis("c1", ("a",), "b", "ar", 1.0), Hypothesis("c2", ("a",), "b", "jw", 1.0)]
    write_hypotheses(path, {"schema": SCHEMA_VERSION, "model_sha256": "x"}, said)

    text = write_report(run).read_text()
    assert 'lang="ar" dir="rtl"' in text and 'lang="jv" dir="ltr"' in text


def test_a_model_without_errors_or_without_texts(run):
    path = run / "round-0001" / "evaluation" / "base-0001" / "cs.jsonl"
    write_hypotheses(path, {"schema": SCHEMA_VERSION, "model_sha256": "x"}, [Hypothesis("c1", ("a",), "a", "en", 1.0)])
    assert "makes no error" in chapter(run).parts[0].note
    path.unlink()
    assert "not on disk" in chapter(run).parts[0].note
