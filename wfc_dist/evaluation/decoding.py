"""Test sets -> hypotheses, clip by clip or packed, and a clip of a file -> text.

A decoding step reads all weights once, whatever the batch: several sets decoded together cost little more than one.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import WhisperProcessor, WhisperTokenizer

from wfc_dist import activity
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.data.audio_files import samples_in
from wfc_dist.data.packing import Window
from wfc_dist.data.sources import Clip, Split
from wfc_dist.errors import ConfigError
from wfc_dist.evaluation.decoder import Decoder, in_bfloat16
from wfc_dist.evaluation.hallucinations import compression_ratio, num_spoken
from wfc_dist.evaluation.hypotheses import Hypothesis
from wfc_dist.evaluation.windows import PACKING_GAP_S, Audio, cut_at_quiet, windows_of

_T = TypeVar("_T")
_R = TypeVar("_R")


def decode_sets(
    model: Any, processor: WhisperProcessor, splits: Sequence[Split], evaluate: EvaluateConfig, *,
    device: torch.device | str | None = None, told: Callable[[float], None] | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Returns the hypotheses of every split, in its order; clips longer than 30 s are cut where it is quiet.

    Windows of all splits share batches, whatever their languages. With packing, a window whose text is a loop is decoded again,
    one clip at a time: a loop runs on to the end of the window, over clips that are written well when they are alone. A text is a
    loop if it compresses better than `evaluate.compression_ratio_threshold`. A clip that loops alone is decoded once more,
    without repeated n-grams. If that does not end the loop, the text with fewer words stays.

    Args:
        model: A WhisperForConditionalGeneration, or a PeftModel around one, in eval mode.
        processor: Of the same checkpoint.
        splits: The test sets; only the first `evaluate.max_clips` clips of each are decoded.
        evaluate: Beams, batch size, packing, threshold, language, precision (not `auto`). The batch size changes speed and
            rounding only.
        device: Where the features go; by default where the model is.
        told: Called after each batch with the share of the windows that are decoded.

    Raises:
        ConfigError: `evaluate.language` is detect, and the model knows one language only.
    """
    assert evaluate.precision != "auto", "who starts the work decides"
    if evaluate.precision == "bf16":
        model = in_bfloat16(model)
    decoder = Decoder(model, processor, device, evaluate.num_beams, evaluate.no_repeat_ngram_size)
    if evaluate.language == "detect" and not decoder.multilingual:
        raise ConfigError("evaluate.language: detect needs a multilingual model, this one knows one language; set it to given")
    by_split = [
        [
            _ClipWindow(split, indices)
            for indices in windows_of(split.clips[: evaluate.max_clips], processor.tokenizer, packing=evaluate.packing)
        ]
        for split in splits
    ]
    windows = list(itertools.chain(*by_split))
    transcripts = _transcripts(decoder, windows, evaluate, told=told)
    if evaluate.packing:
        _replace_loops_(transcripts, decoder, windows, evaluate)
    hypotheses = (window.hypothesis(transcript) for window, transcript in zip(windows, transcripts, strict=True))
    return [list(itertools.islice(hypotheses, len(of_split))) for of_split in by_split]


def transcribe_clip(
    model: Any, processor: WhisperProcessor, audio: Audio, language: str | None = None
) -> tuple[str, str]:  # fmt: skip
    """Returns the transcript of at most 30 s of audio, decoded greedily, and its language.

    A text that is a loop (see `decode_sets`) is decoded again without repeated n-grams.

    Args:
        model: As for `decode_sets`.
        processor: Of the same checkpoint.
        audio: (samples,), float32, mono, 16 kHz; not empty.
        language: Whisper's language code; None detects it.
    """
    evaluate = EvaluateConfig(batch_size=1, language="given" if language else "detect")
    (transcript,) = _transcripts_of_each(Decoder(model, processor), [_Piece(audio, language or "")], evaluate)
    return transcript.text, language or transcript.detected or "en"


class _Transcript(NamedTuple):
    """What the model writes for one recording; see Hypothesis."""

    text: str
    detected: str
    apart: bool = False


@dataclass(frozen=True)
class _Piece:
    """At most 30 s of audio of which nothing is known but the language."""

    audio: Audio
    language: str
    reference: str = ""

    def pieces(self) -> list[Audio]:
        return [self.audio]


@dataclass(frozen=True)
class _ClipWindow:
    """Clips of a split that are decoded at once, by their indices there; all of one language."""

    split: Split
    indices: Window

    @property
    def clips(self) -> list[Clip]:
        return [self.split.clips[index] for index in self.indices]

    @property
    def language(self) -> str:
        return self.clips[0].language

    @property
    def reference(self) -> str:
        return " ".join(clip.text for clip in self.clips)

    def pieces(self) -> list[Audio]:
        gap = np.zeros(samples_in(PACKING_GAP_S), dtype=np.float32)
        parts: list[Audio] = []
        for index in self.indices:
            parts += [gap, self.split.audio(index)]
        return cut_at_quiet(np.concatenate(parts[1:]))

    def one_clip_each(self) -> list["_ClipWindow"]:
        return [_ClipWindow(self.split, (index,)) for index in self.indices]

    def hypothesis(self, transcript: _Transcript) -> Hypothesis:
        clips = self.clips
        name = clips[0].id if len(clips) == 1 else f"{clips[0].id}..{clips[-1].id}"
        parts = tuple(clip.text.strip() for clip in clips)
        word_languages = tuple(clip.word_languages for clip in clips) if any(clip.word_languages for clip in clips) else ()
        groups = tuple(clip.group for clip in clips) if any(clip.group for clip in clips) else ()
        seconds = sum(clip.duration_s for clip in clips)
        return Hypothesis(
            name, parts, transcript.text, self.language, seconds, transcript.detected, word_languages, transcript.apart, groups
        )


_Recording = _Piece | _ClipWindow
"""Audio of one language that gets one transcript. `pieces` are of at most 30 s; `reference` is what is said, if it is known."""


def _transcripts(
    decoder: Decoder, recordings: Sequence[_Recording], evaluate: EvaluateConfig, *, repeats: bool = True,
    told: Callable[[float], None] | None = None,
) -> list[_Transcript]:  # fmt: skip
    """Returns the transcript of every recording. Without `repeats` no n-gram is written twice. `told` as in `decode_sets`.

    A batch of recordings longer than 30 s has more pieces than the batch size, and takes several passes.
    """
    texts: dict[int, str] = {}
    detected: dict[int, str] = {}

    def prepare(batch: list[int]) -> tuple[list[int], torch.Tensor]:
        pieces = [(number, piece) for number in batch for piece in recordings[number].pieces()]
        return [number for number, _ in pieces], decoder.features([piece for _, piece in pieces])

    for owners, features in _one_ahead(prepare, _batches(recordings, decoder.tokenizer, evaluate.batch_size)):
        for start in range(0, len(owners), evaluate.batch_size):
            part = slice(start, start + evaluate.batch_size)
            given = [recordings[number].language for number in owners[part]] if evaluate.language == "given" else None
            decoded = decoder.texts(features[part], given, repeats=repeats)
            for number, text, language in zip(owners[part], *decoded, strict=True):
                texts[number] = f"{texts.get(number, '')} {text}".strip()
                detected.setdefault(number, language)
            activity.moved(steady=True)
        if told is not None:
            told(len(texts) / len(recordings))
    return [_Transcript(texts[number], detected[number]) for number in range(len(recordings))]


def _batches(recordings: Sequence[_Recording], tokenizer: WhisperTokenizer, batch_size: int) -> list[list[int]]:
    """Returns the numbers of recordings in batches of like length, longest first: the sequences of a batch end together.

    The reference tells best how many steps the decoding will take.
    """
    num_tokens = [len(tokenizer(recording.reference).input_ids) for recording in recordings]
    numbers = sorted(range(len(recordings)), key=lambda number: (-num_tokens[number], number))
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


def _one_ahead(function: Callable[[_T], _R], arguments: Iterable[_T]) -> Iterator[_R]:
    """Yields function(argument), computing the next in a thread: audio is decoded while the model works."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[Future[_R]] = []
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) == 2:
                yield waiting.pop(0).result()
        yield from (future.result() for future in waiting)


def _replace_loops_(
    transcripts: list[_Transcript], decoder: Decoder, windows: Sequence[_ClipWindow], evaluate: EvaluateConfig
) -> None:
    """Puts the joined transcripts of the single clips in the place of every window's that is a loop, where they are better."""
    looped = _loops(transcripts, evaluate)
    clips = [windows[number].one_clip_each() for number in looped]
    alone = iter(_transcripts_of_each(decoder, list(itertools.chain(*clips)), evaluate))
    for number, of_window in zip(looped, clips, strict=True):
        parts = list(itertools.islice(alone, len(of_window)))
        text = " ".join(part.text for part in parts if part.text)
        if _is_better(text, transcripts[number].text, evaluate):
            transcripts[number] = _Transcript(text, parts[0].detected, apart=True)


def _transcripts_of_each(decoder: Decoder, recordings: Sequence[_Recording], evaluate: EvaluateConfig) -> list[_Transcript]:
    """Returns the transcript of every recording; a loop is decoded once more, without repeats, and the better text stays."""
    transcripts = _transcripts(decoder, recordings, evaluate)
    looped = _loops(transcripts, evaluate)
    again = _transcripts(decoder, [recordings[number] for number in looped], evaluate, repeats=False)
    for number, transcript in zip(looped, again, strict=True):
        if _is_better(transcript.text, transcripts[number].text, evaluate):
            transcripts[number] = transcript
    return transcripts


def _loops(transcripts: Sequence[_Transcript], evaluate: EvaluateConfig) -> list[int]:
    """Returns the numbers of the transcripts that are loops."""
    return [number for number, transcript in enumerate(transcripts) if _is_loop(transcript.text, evaluate)]


def _is_loop(text: str, evaluate: EvaluateConfig) -> bool:
    return compression_ratio(text) > (evaluate.compression_ratio_threshold or math.inf)


def _is_better(text: str, loop: str, evaluate: EvaluateConfig) -> bool:
    """Says whether a text should stand for a loop of the same audio: it is no loop, or at least has no more words."""
    return not _is_loop(text, evaluate) or num_spoken(text) <= num_spoken(loop)
