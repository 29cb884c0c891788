"""Transcripts as files: what each format holds, and what is refused."""

import json
from pathlib import Path

import pytest

from wfc_dist.errors import InputError
from wfc_dist.evaluation.transcripts import Segment, Transcript, Word, require_format

WORDS = (Word(0.0, 0.5, "Is"), Word(0.5, 3661.25, "that?"))
PLAIN = Transcript(
    Path("a.wav"), "Is that? A --> <b> & c", "en", 3700.0,
    (Segment(0.0, 3661.25, "Is that?"), Segment(3661.25, 3662.0, "A --> <b> & c")),
)  # fmt: skip
BY_WORD = Transcript(Path("a.wav"), "Is that?", "en", 3700.0, (Segment(0.0, 3661.25, "Is that?", WORDS),))


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("txt", "Is that? A --> <b> & c\n"),
        ("srt", "1\n00:00:00,000 --> 01:01:01,250\nIs that?\n\n2\n01:01:01,250 --> 01:01:02,000\nA -> <b> & c\n"),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 01:01:01.250\nIs that?\n\n01:01:01.250 --> 01:01:02.000\nA -&gt; &lt;b&gt; &amp; c\n",
        ),
        ("tsv", "start\tend\ttext\n0\t3661250\tIs that?\n3661250\t3662000\tA --> <b> & c\n"),
    ],
)
def test_a_format_holds_times_and_text(format, expected):
    assert PLAIN.written_as(format) == expected


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv"])
def test_words_are_cues_of_their_own(format):
    text = BY_WORD.written_as(format)
    assert "Is\n" in text and "that?\n" in text and "Is that?" not in text


def test_json_has_the_keys_of_openais_whisper():
    read = json.loads(BY_WORD.written_as("json"))
    words = [{"word": "Is", "start": 0.0, "end": 0.5}, {"word": "that?", "start": 0.5, "end": 3661.25}]
    assert read == {
        "file": "a.wav", "language": "en", "duration": 3700.0, "text": "Is that?",
        "segments": [{"id": 0, "start": 0.0, "end": 3661.25, "text": "Is that?", "words": words}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("format", "timestamps", "expected"),
    [("txt", None, None), ("srt", None, "segment"), ("json", "word", "word"), ("tsv", "segment", "segment")],
)
def test_a_format_asks_for_the_times_it_needs(format, timestamps, expected):
    assert require_format(format, timestamps) == (format, expected)


@pytest.mark.parametrize(
    ("format", "timestamps", "message"),
    [
        ("docx", None, "format 'docx' is unknown; there are: json, srt"),
        ("strt", None, "did you mean 'srt'"),
        ("srt", "words", "did you mean 'word'"),
        ("txt", "segment", "holds no times"),
        ("txt", "word", "holds no times"),
    ],
)
def test_other_formats_and_times_are_refused(format, timestamps, message):
    with pytest.raises(InputError, match=message):
        require_format(format, timestamps)
