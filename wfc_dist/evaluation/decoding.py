"""Test sets -> hypotheses: batched greedy or beam decoding with the language given or detected, clip by clip or packed.

A decoding step reads all weights once, whatever the batch: several sets decoded together cost little more than one.
"""

import contextlib
import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput

from wfc_dist.config.schema import LOOP_COMPRESSION_RATIO, EvaluateConfig
from wfc_dist.data.audio_files import RATE_HZ, samples_in
from wfc_dist.data.packing import Window
from wfc_dist.data.sources import Clip, Split
from wfc_dist.errors import ConfigError
from wfc_dist.evaluation.hallucinations import compression_ratio, num_spoken
from wfc_dist.evaluation.hypotheses import Hypothesis
from wfc_dist.evaluation.windows import PACKING_GAP_S, Audio, cut_at_quiet, windows_of

_T = TypeVar("_T")
_LOOP_NGRAM = 4  # tokens; what loops alone is decoded once more without any n-gram of that length twice


@dataclass(frozen=True)
class _Window:
    """Clips of a split that are decoded at once, by their numbers there; all of one language."""

    split: Split
    numbers: Window

    @property
    def clips(self) -> list[Clip]:
        return [self.split.clips[number] for number in self.numbers]

    @property
    def language(self) -> str:
        return self.clips[0].language

    def pieces(self) -> list[Audio]:
        """Returns its audio in pieces of at most 30 s."""
        gap = np.zeros(samples_in(PACKING_GAP_S), dtype=np.float32)
        parts: list[Audio] = []
        for number in self.numbers:
            parts += [gap, self.split.audio(number)]
        return cut_at_quiet(np.concatenate(parts[1:]))

    def apart(self) -> list["_Window"]:
        """Returns windows of one clip each."""
        return [_Window(self.split, (number,)) for number in self.numbers]

    def hypothesis(self, written: "_Written") -> Hypothesis:
        clips = self.clips
        name = clips[0].id if len(clips) == 1 else f"{clips[0].id}..{clips[-1].id}"
        parts = tuple(clip.text.strip() for clip in clips)
        marks = tuple(clip.word_languages for clip in clips) if any(clip.word_languages for clip in clips) else ()
        seconds = sum(clip.duration_s for clip in clips)
        return Hypothesis(name, parts, written.text, self.language, seconds, written.detected, marks, written.apart)


class _Written(NamedTuple):
    """What the model wrote for a window; see Hypothesis."""

    text: str
    detected: str
    apart: bool = False


def _generation_config(model: WhisperForConditionalGeneration, num_beams: int, no_repeat_ngram_size: int) -> GenerationConfig:
    config: Any = copy.deepcopy(model.generation_config)
    config.num_beams, config.no_repeat_ngram_size, config.do_sample = num_beams, no_repeat_ngram_size or None, False
    config.return_timestamps = False
    config.forced_decoder_ids = None  # of old checkpoints; language and task are given instead
    prompt_length = 4 if getattr(config, "is_multilingual", True) else 2  # start, language, task, no timestamps
    # Transformers adds the prompt to max_length: together exactly the positions the decoder has.
    config.max_length, config.max_new_tokens = model.config.max_target_positions - prompt_length, None
    return config


@contextlib.contextmanager
def _without_own_advice() -> Iterator[None]:
    """Drops the warning Transformers' Whisper raises about its own call of the generic generate; no caller can avoid it."""
    logger = logging.getLogger("transformers.generation.utils")

    def keep(record: logging.LogRecord) -> bool:
        return "Passing `generation_config` together" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)


class _Decoder:
    """A model, its processor and how to decode."""

    def __init__(
        self,
        model: Any,
        processor: WhisperProcessor,
        device: torch.device | str | None,
        num_beams: int,
        no_repeat_ngram_size: int = 0,
    ) -> None:
        # A PeftModel wraps the Whisper whose layers it has replaced: generating with that one is generating adapted.
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._processor, self._device = processor, device or self._model.device
        self._config: Any = _generation_config(self._model, num_beams, no_repeat_ngram_size)

    def features(self, pieces: Sequence[Audio]) -> torch.Tensor:
        """Returns log-mel features, (pieces, n_mels, 3000), float32, on the CPU."""
        extracted = self._processor.feature_extractor(list(pieces), sampling_rate=RATE_HZ, return_tensors="pt")
        return extracted["input_features"]

    @torch.inference_mode()
    def texts(
        self, features: torch.Tensor, languages: Sequence[str] | None, *, repeats: bool = True
    ) -> tuple[list[str], list[str]]:
        """Returns (texts, languages detected) of pieces, whose languages may differ; without `languages` they are detected.

        Without `repeats` no n-gram of _LOOP_NGRAM tokens is written twice.
        """
        features = features.to(device=self._device, dtype=self._model.dtype)
        mask = torch.ones(features.shape[0], features.shape[-1], dtype=torch.long, device=self._device)
        asked: dict[str, Any] = {}
        given: torch.Tensor | None = features
        if features.device.type == "cpu":
            given, asked["encoder_outputs"] = None, self._encoded(features)
        detected = [""] * len(features)
        if self.multilingual:
            if languages is None:
                languages = detected = self._detected(given, asked.get("encoder_outputs"))
            asked |= {"language": list(languages), "task": "transcribe"}
        config = copy.deepcopy(self._config)
        if not repeats:
            config.no_repeat_ngram_size = _LOOP_NGRAM
        with _without_own_advice():
            tokens = self._model.generate(given, generation_config=config, attention_mask=mask, **asked)
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)], detected

    @property
    def tokenizer(self) -> WhisperTokenizer:
        """That of the model."""
        return self._processor.tokenizer

    @property
    def multilingual(self) -> bool:
        """Whether the model's prompt names a language."""
        return bool(getattr(self._config, "is_multilingual", True))

    def _detected(self, features: torch.Tensor | None, encoded: BaseModelOutput | None) -> list[str]:
        ids = self._model.detect_language(features, encoder_outputs=encoded, generation_config=self._config).tolist()
        return [token.strip("<|>") for token in self._processor.tokenizer.convert_ids_to_tokens(ids)]

    def _encoded(self, features: torch.Tensor) -> BaseModelOutput:
        """Returns the encoder's states, made one window at a time: that much fits into a core's caches, a batch does not."""
        encoder = self._model.get_encoder()
        return BaseModelOutput(torch.cat([encoder(window).last_hidden_state for window in features.split(1)]))


def _one_ahead(function: Callable[[_T], Any], items: Iterable[_T]) -> Iterator[tuple[_T, Any]]:
    """Yields (item, function(item)), computing the next in a thread: audio is decoded while the model works."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: list[tuple[_T, Any]] = []
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) == 2:
                first, future = waiting.pop(0)
                yield first, future.result()
        for item, future in waiting:
            yield item, future.result()


def _batches(windows: Sequence[_Window], tokenizer: WhisperTokenizer, batch_size: int) -> list[list[int]]:
    """Returns window numbers in batches of like length, longest first, so that the sequences of a batch end together."""
    # The reference tells best how many steps a window will take; it decides nothing else.
    num_tokens = [len(tokenizer(" ".join(clip.text for clip in window.clips)).input_ids) for window in windows]
    numbers = sorted(range(len(windows)), key=lambda number: (-num_tokens[number], number))
    return [numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size)]


def decode_sets(
    model: Any, processor: WhisperProcessor, splits: Sequence[Split], evaluate: EvaluateConfig, *,
    device: torch.device | str | None = None, on_progress: Callable[[int, int], None] | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """Returns what the model writes for every split, in its order; clips longer than 30 s are cut where it is quiet.

    Windows of all splits share batches, whatever their languages. With packing, a window whose text is a loop, that is, one that
    compresses better than `evaluate.compression_ratio_threshold`, is decoded again one clip at a time: a loop runs on to the end
    of the window, over clips that alone are written well. A clip that loops alone is decoded once more, without repeated n-grams.
    If that does not end it, the text with fewer words stays.

    Args:
        model: A WhisperForConditionalGeneration, or a PeftModel around one, in eval mode.
        processor: Of the same checkpoint.
        splits: The test sets; only the first `evaluate.max_clips` clips of each.
        evaluate: Beams, batch size, packing, threshold, language. The batch size changes speed and rounding, no more.
        device: Where the features go; by default where the model is.
        on_progress: Called with (windows decoded, windows in all) after every batch.

    Raises:
        ConfigError: A language is to be detected by a model that knows one only.
    """
    decoder = _Decoder(model, processor, device, evaluate.num_beams, evaluate.no_repeat_ngram_size)
    if evaluate.language == "detect" and not decoder.multilingual:
        raise ConfigError("evaluate.language: detect needs a multilingual model, this one knows one language; set it to given")
    of_splits = [
        [
            _Window(split, numbers)
            for numbers in windows_of(split.clips[: evaluate.max_clips], processor.tokenizer, packing=evaluate.packing)
        ]
        for split in splits
    ]
    windows = list(itertools.chain(*of_splits))
    written = _without_loops(decoder, windows, _written(decoder, windows, evaluate, on_progress), evaluate)
    hypotheses = (window.hypothesis(texts) for window, texts in zip(windows, written, strict=True))
    return [list(itertools.islice(hypotheses, len(of_split))) for of_split in of_splits]


def _written(
    decoder: _Decoder, windows: Sequence[_Window], evaluate: EvaluateConfig,
    on_progress: Callable[[int, int], None] | None = None, *, repeats: bool = True,
) -> list[_Written]:  # fmt: skip
    """Returns what is written for every window; a batch of long windows has more pieces than the batch size and takes several
    passes."""
    texts: dict[int, str] = {}
    detected: dict[int, str] = {}

    def prepare(batch: list[int]) -> tuple[list[int], torch.Tensor]:
        pieces = [(number, piece) for number in batch for piece in windows[number].pieces()]
        return [number for number, _ in pieces], decoder.features([piece for _, piece in pieces])

    for _, (owners, features) in _one_ahead(prepare, _batches(windows, decoder.tokenizer, evaluate.batch_size)):
        for start in range(0, len(owners), evaluate.batch_size):
            part = slice(start, start + evaluate.batch_size)
            given = [windows[number].language for number in owners[part]] if evaluate.language == "given" else None
            found = decoder.texts(features[part], given, repeats=repeats)
            for number, text, language in zip(owners[part], *found, strict=True):
                texts[number] = f"{texts.get(number, '')} {text}".strip()
                detected.setdefault(number, language)
        if on_progress is not None:
            on_progress(len(texts), len(windows))
    return [_Written(texts[number], detected[number]) for number in range(len(windows))]


def _without_loops(
    decoder: _Decoder, windows: Sequence[_Window], written: Sequence[_Written], evaluate: EvaluateConfig
) -> list[_Written]:
    """Returns `written` where packed windows whose text is a loop are decoded again, one clip at a time, and a clip that loops
    alone once more, without repeated n-grams. Of a loop and what was to take its place, the text with fewer words stays.
    """
    limit, found = evaluate.compression_ratio_threshold or math.inf, list(written)
    looped = [number for number, one in enumerate(written) if evaluate.packing and compression_ratio(one.text) > limit]
    apart = list(itertools.chain(*(windows[number].apart() for number in looped)))
    clips = _written(decoder, apart, evaluate)
    again = [place for place, clip in enumerate(clips) if compression_ratio(clip.text) > limit]
    unrepeated = _written(decoder, [apart[place] for place in again], evaluate, repeats=False)
    for place, clip in zip(again, unrepeated, strict=True):
        if _is_better(clip.text, clips[place].text, limit):
            clips[place] = clip
    parts = iter(clips)
    for number in looped:
        own = list(itertools.islice(parts, len(windows[number].numbers)))
        text = " ".join(clip.text for clip in own if clip.text)
        if _is_better(text, written[number].text, limit):
            found[number] = _Written(text, own[0].detected, apart=True)
    return found


def _is_better(text: str, looped: str, limit: float) -> bool:
    """Says whether a text should stand for a loop of the same audio: it is none, or at least has no more words."""
    return compression_ratio(text) <= limit or num_spoken(text) <= num_spoken(looped)


def decode_set(model: Any, processor: WhisperProcessor, split: Split, evaluate: EvaluateConfig) -> list[Hypothesis]:
    """Returns what the model writes for one split (see `decode_sets`)."""
    return decode_sets(model, processor, [split], evaluate)[0]


def transcribe(
    model: Any, processor: WhisperProcessor, audio: Audio, language: str | None = None, *,
    device: torch.device | str | None = None, num_beams: int = 1, batch_size: int = 4,
    compression_ratio_threshold: float = LOOP_COMPRESSION_RATIO,
) -> str:  # fmt: skip
    """Returns the transcript of audio of any length.

    A piece whose text is a loop (see `decode_sets`) is decoded again without repeated n-grams.

    Args:
        model: As for `decode_sets`.
        processor: Of the same checkpoint.
        audio: (samples,), float32, mono, 16 kHz; cut into pieces of at most 30 s where it is quiet.
        language: Whisper language code; None detects it for every piece.
        device: Where the features go; by default where the model is.
        num_beams: 1 is greedy.
        batch_size: Pieces decoded at a time.
        compression_ratio_threshold: A text that compresses better is a loop.
    """
    decoder = _Decoder(model, processor, device, num_beams)

    def written(pieces: Sequence[Audio], repeats: bool = True) -> list[str]:
        texts = []
        for start in range(0, len(pieces), batch_size):
            part = pieces[start : start + batch_size]
            texts += decoder.texts(decoder.features(part), [language] * len(part) if language else None, repeats=repeats)[0]
        return texts

    if not len(audio):
        return ""
    pieces = cut_at_quiet(audio)
    texts = written(pieces)
    looped = [number for number, text in enumerate(texts) if compression_ratio(text) > compression_ratio_threshold]
    for number, text in zip(looped, written([pieces[number] for number in looped], repeats=False), strict=True):
        if _is_better(text, texts[number], compression_ratio_threshold):
            texts[number] = text
    return " ".join(filter(None, texts))
