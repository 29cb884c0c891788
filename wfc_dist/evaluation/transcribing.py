"""`transcribe` of the public API: audio files of any length -> transcripts, in this process."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wfc_dist import activity
from wfc_dist.data.audio_files import RATE_HZ, AudioFile, audio_facts, decode
from wfc_dist.data.audio_paths import find_audio
from wfc_dist.data.languages import WHISPER_LANGUAGES, language_code
from wfc_dist.data.packing import WINDOW_SAMPLES
from wfc_dist.errors import InputError, nearest
from wfc_dist.evaluation.transcripts import Segment, Transcript

if TYPE_CHECKING:
    from wfc_dist.evaluation.any_model import LoadedModel

Told = Callable[[Path, float, float], None]


def transcribe(
    model: "str | Path | LoadedModel",
    files: Sequence[str | Path],
    *,
    language: str | None = None,
    task: Literal["transcribe", "translate"] = "transcribe",
    timestamps: Literal["segment", "word"] | None = None,
    told: Told | None = None,
) -> Iterator[Transcript]:
    """Yields the transcript of audio files of any length, as each is decoded.

    A file of at most 30 s without times is decoded as a test set is. Longer files, files with times and translations are
    decoded by Transformers' long-form decoding, with a seeded fallback where a text is a loop.

    Args:
        model: As `load_model` takes it, or what it returned.
        files: Audio files, folders and patterns such as `talks/*.wav`.
        language: Whisper's code, or a name that means one; None or "auto" detects it for every file.
        task: `translate` writes English.
        timestamps: Whether segments, or also words, have times; None leaves them out.
        told: Called with (file, seconds decoded, seconds of all files) while the work goes on, the first time at 0.

    Raises:
        InputError: A file that is missing, empty or no audio, or an unknown language, task or kind of times (before the model is
            loaded); no such model, or a language, task or times that the model has not (before anything is decoded).

    Example:
        >>> from wfc_dist import transcribe
        >>> [said.path.name for said in transcribe("runs/demo", ["speech.flac"], language="en")]
        ['speech.flac']
    """
    code = _code(language)
    _require_known("task", task, ("transcribe", "translate"))
    _require_known("timestamps", timestamps or "segment", ("segment", "word"))
    lengths_s = {path: _length_s(path) for path, _ in find_audio(files)}
    from wfc_dist.evaluation import decoding, long_form  # loads torch and Transformers
    from wfc_dist.evaluation.any_model import check_languages, load_model

    whisper, processor, folder = load_model(model) if isinstance(model, str | Path) else model
    check_languages(whisper, folder, {code} if code else set())
    long_form.require_task(whisper, task)
    short_s = 0.0 if timestamps or task == "translate" else WINDOW_SAMPLES / RATE_HZ
    if max(lengths_s.values(), default=0.0) > short_s:
        long_form.require_times(whisper, words=timestamps == "word")
    before_s, total_s = 0.0, sum(lengths_s.values())
    for path, length_s in lengths_s.items():
        report = _teller(told, path, before_s, total_s)
        report(0.0)
        audio = decode(AudioFile(str(path)))
        if len(audio) <= short_s * RATE_HZ:
            text, spoken = decoding.transcribe_clip(whisper, processor, audio, code or None)
            segments: list[Segment] = []
        else:
            words = timestamps == "word"
            spoken, segments = long_form.segments_of(whisper, processor, audio, code, task=task, words=words, told=report)
            text = " ".join(segment.text for segment in segments)
        report(length_s)
        before_s += length_s
        yield Transcript(path, text, spoken, len(audio) / RATE_HZ, tuple(segments) if timestamps else ())


def _teller(told: Told | None, path: Path, before_s: float, total_s: float) -> Callable[[float], None]:
    """Returns what reports the seconds of one file as seconds of all files, and says that the work moves."""

    def report(done_s: float) -> None:
        activity.moved(steady=done_s > 0)
        if told is not None:
            told(path, min(before_s + done_s, total_s), total_s)

    return report


def _require_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{what} {value!r} is unknown{nearest(value, known)}")


def _code(language: str | None) -> str:
    """Returns Whisper's code of a language that a user names; "" for one that is to be detected."""
    if language in (None, "auto"):
        return ""
    code = language_code(str(language))
    if code is None:
        names = {*WHISPER_LANGUAGES, *WHISPER_LANGUAGES.values()}
        near = nearest(str(language).lower(), names)
        hint = (
            near if near.startswith("; did you mean") else "; give a code such as en, es or zh, a name such as Spanish, or auto"
        )
        raise InputError(f"language {language!r} is none of Whisper's languages{hint}")
    return code


def _length_s(path: Path) -> float:
    """Returns the seconds of a recording. Raises InputError where the recording is unreadable or empty."""
    facts = audio_facts(AudioFile(str(path)))
    if not facts.frames:
        raise InputError(f"audio {path} is empty; leave it out, or record it again")
    return float(facts.frames / facts.rate_hz)
