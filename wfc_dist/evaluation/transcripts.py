"""What is said in a recording, with times, and the files it is written to: txt, srt, vtt, tsv, json. Loads no torch."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from wfc_dist.errors import InputError, nearest

Format = Literal["txt", "srt", "vtt", "tsv", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)


Times = Literal["segment", "word"]


def require_format(format: str, timestamps: str | None) -> tuple[Format, Times | None]:
    """Returns a format and the times it needs: those that are asked for, or segments; none of txt.

    Raises:
        InputError: An unknown format or kind of times, or times that the format cannot hold.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r} is unknown{nearest(format, FORMATS)}")
    if timestamps not in (None, *get_args(Times)):
        raise InputError(f"timestamps {timestamps!r} is unknown{nearest(str(timestamps), get_args(Times))}")
    if format == "txt" and timestamps:
        raise InputError("a txt file holds no times; leave out --timestamps, or choose --format srt, vtt, tsv or json")
    return format, None if format == "txt" else cast(Times, timestamps or "segment")


@dataclass(frozen=True)
class Word:
    """One word, from `start_s` to `end_s` of the recording, with the punctuation that follows it."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Segment:
    """A sentence or a part of one, from `start_s` to `end_s` of the recording; `words` where their times were asked for."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """What is said in one recording.

    Attributes:
        path: The audio file.
        text: All of it.
        language: Whisper's code, given or detected.
        duration_s: Seconds of the recording.
        segments: The parts with their times; none where no times were asked for.
    """

    path: Path
    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...] = ()

    def written_as(self, format: Format) -> str:
        """Returns the text of a file: `txt` one line, `srt`, `vtt` and `tsv` a cue for each word where there are words.

        The tsv has milliseconds, and json has the keys of OpenAI's Whisper, with times in seconds.
        """
        return _WRITERS[format](self)

    def cues(self) -> Iterator[tuple[float, float, str]]:
        """Yields start, end and text of every word, or of every segment that has no words."""
        for segment in self.segments:
            for part in segment.words or (segment,):
                yield part.start_s, part.end_s, part.text


def _clock(time_s: float, point: str) -> str:
    ms = round(1000 * time_s)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"


def _cue_lines(transcript: Transcript, point: str) -> Iterator[tuple[str, str]]:
    for start_s, end_s, text in transcript.cues():
        yield f"{_clock(start_s, point)} --> {_clock(end_s, point)}", text.replace("-->", "->")


def _srt(transcript: Transcript) -> str:
    cues = enumerate(_cue_lines(transcript, ","), start=1)
    return "\n".join(f"{number}\n{times}\n{text}\n" for number, (times, text) in cues)


def _vtt(transcript: Transcript) -> str:
    escaped = (
        (times, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
        for times, text in _cue_lines(transcript, ".")
    )
    return "WEBVTT\n" + "".join(f"\n{times}\n{text}\n" for times, text in escaped)


def _tsv(transcript: Transcript) -> str:
    rows = (
        f"{round(1000 * start_s)}\t{round(1000 * end_s)}\t{' '.join(text.split())}\n"
        for start_s, end_s, text in transcript.cues()
    )
    return "start\tend\ttext\n" + "".join(rows)


def _json(transcript: Transcript) -> str:
    segments = [
        {
            "id": number, "start": round(part.start_s, 3), "end": round(part.end_s, 3), "text": part.text,
            "words": [{"word": word.text, "start": round(word.start_s, 3), "end": round(word.end_s, 3)} for word in part.words],
        }
        for number, part in enumerate(transcript.segments)
    ]  # fmt: skip
    tree = {
        "file": str(transcript.path), "language": transcript.language, "duration": round(transcript.duration_s, 3),
        "text": transcript.text, "segments": segments,
    }  # fmt: skip
    return json.dumps(tree, ensure_ascii=False) + "\n"


_WRITERS: dict[Format, Callable[[Transcript], str]] = {
    "txt": lambda transcript: f"{transcript.text}\n", "srt": _srt, "vtt": _vtt, "tsv": _tsv, "json": _json,
}  # fmt: skip
