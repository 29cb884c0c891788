"""Audio of any length -> segments with times, by the long-form decoding of Transformers' Whisper.

Windows of 30 s follow each other; the next one begins where the last complete segment ends. A window whose text is a loop, or
unlikely, is decoded again with more chance, as by OpenAI's Whisper; the chance is seeded. Source: arXiv 2212.04356, section 4.5.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from transformers import WhisperProcessor, WhisperTokenizer

from wfc_dist.data.audio_files import RATE_HZ
from wfc_dist.data.features import HOP_SAMPLES, WITHOUT_SPACES
from wfc_dist.data.packing import WINDOW_SAMPLES
from wfc_dist.errors import InputError
from wfc_dist.evaluation.transcripts import Segment, Word
from wfc_dist.evaluation.windows import Audio

Task = Literal["transcribe", "translate"]
_FALLBACK: dict[str, Any] = {
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "compression_ratio_threshold": 1.35, "logprob_threshold": -1.0,
    "no_speech_threshold": 0.6, "condition_on_prev_tokens": False,
}  # fmt: skip
"""OpenAI's values; the ratio is one of token ids, for which Transformers documents 1.35."""
_SEED = 1


def require_task(model: Any, task: Task) -> None:
    """Raises InputError where a model is to translate, and cannot."""
    if task == "translate" and not getattr(_whisper(model).generation_config, "is_multilingual", True):
        raise InputError("the model knows English only and cannot translate; use a multilingual model")


def require_times(model: Any, *, words: bool) -> None:
    """Raises InputError where a model has no tokens for times, or no alignment heads, which the times of words are read from."""
    whisper = _whisper(model)
    config = whisper.generation_config
    if whisper.config.vocab_size <= getattr(config, "no_timestamps_token_id", whisper.config.vocab_size) + 1:
        raise InputError("the model has no tokens for times; transcribe files of at most 30 s as txt, or use another model")
    if words and not getattr(config, "alignment_heads", None):
        raise InputError(
            "the model's generation_config.json has no alignment_heads, so that words have no times; "
            "use --timestamps segment, or copy alignment_heads from the model that yours comes from"
        )


@torch.inference_mode()
def segments_of(
    model: Any, processor: WhisperProcessor, audio: Audio, language: str, *, task: Task = "transcribe", words: bool = False,
    told: Callable[[float], None] | None = None,
) -> tuple[str, list[Segment]]:  # fmt: skip
    """Returns the language, given or detected in the first 30 s, and the segments of what is said.

    Args:
        model: A WhisperForConditionalGeneration, or a PeftModel around one, in eval mode.
        processor: Of the same checkpoint.
        audio: (samples,), float32, mono, 16 kHz; not empty.
        language: Whisper's code; "" detects it.
        task: `translate` writes English.
        words: Whether segments have words with times; needs `require_times`.
        told: Called with the seconds that are decoded, before every window.
    """
    whisper = _whisper(model)
    if words and whisper.config._attn_implementation != "eager":
        whisper.set_attn_implementation("eager")  # the only one that returns the attentions
    features, mask = _features(processor, audio, whisper)
    config: Any = copy.deepcopy(whisper.generation_config)
    config.forced_decoder_ids, config.num_beams, config.max_length = None, 1, whisper.config.max_target_positions
    options: dict[str, Any] = dict(_FALLBACK)
    if getattr(config, "is_multilingual", True):
        language = language or _detected(whisper, processor.tokenizer, features, config)
        options |= {"language": language, "task": task}
    if told is not None:
        frames_s = HOP_SAMPLES / RATE_HZ
        options["monitor_progress"] = lambda places: told(float(places[0, 0]) * frames_s)
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        found = whisper.generate(
            features, generation_config=config, attention_mask=mask, return_timestamps=True, return_segments=True,
            return_token_timestamps=words, **options,
        )  # fmt: skip
    length_s = len(audio) / RATE_HZ
    segments = (_segment(raw, processor.tokenizer, language, words, length_s) for raw in found["segments"][0])
    return language or "en", [segment for segment in segments if segment.text]


def _whisper(model: Any) -> Any:
    # A PeftModel replaces layers of the Whisper it wraps, so that this one generates with the adapter.
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _features(processor: WhisperProcessor, audio: Audio, whisper: Any) -> tuple[torch.Tensor, torch.Tensor]:
    more = {"truncation": False, "padding": "longest"} if len(audio) > WINDOW_SAMPLES else {}
    extracted = processor.feature_extractor(audio, sampling_rate=RATE_HZ, return_tensors="pt", return_attention_mask=True, **more)
    features = extracted["input_features"].to(device=whisper.device, dtype=whisper.dtype)
    return features, extracted["attention_mask"].to(whisper.device)


def _detected(whisper: Any, tokenizer: WhisperTokenizer, features: torch.Tensor, config: Any) -> str:
    window = features[:, :, : WINDOW_SAMPLES // HOP_SAMPLES]
    window = torch.nn.functional.pad(window, (0, WINDOW_SAMPLES // HOP_SAMPLES - window.shape[-1]))
    ids = whisper.detect_language(window, generation_config=config).tolist()
    return str(tokenizer.convert_ids_to_tokens(ids)[0]).strip("<|>")


def _segment(raw: dict[str, Any], tokenizer: WhisperTokenizer, language: str, words: bool, length_s: float) -> Segment:
    """Returns a segment of Transformers' as ours; times do not go beyond the audio, which is padded."""
    ids = raw["tokens"].tolist()
    start_s, end_s = (min(float(raw[key]), length_s) for key in ("start", "end"))
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    times = [min(float(time), length_s) for time in raw["token_timestamps"]] if words else []
    return Segment(start_s, max(start_s, end_s), text, _words(ids, times, end_s, tokenizer, language) if words else ())


def _words(
    ids: Sequence[int], times: Sequence[float], end_s: float, tokenizer: WhisperTokenizer, language: str
) -> tuple[Word, ...]:  # fmt: skip
    """Returns the words of tokens, each from the time of its first token to that of the next word.

    A word begins at a space; in languages without spaces at every character. Punctuation belongs to the word before.
    """
    words: list[tuple[float, str]] = []
    waiting: list[int] = []
    begun_s = 0.0
    special, last = set(tokenizer.all_special_ids), int(tokenizer.convert_tokens_to_ids("<|notimestamps|>"))  # type: ignore[arg-type]
    for token, time_s in zip(ids, times, strict=True):
        if token in special or token > last:
            continue
        begun_s = begun_s if waiting else time_s
        waiting.append(token)
        text = tokenizer.decode(waiting)
        if text.endswith("\ufffd"):  # a character of several tokens
            continue
        begins = text.startswith(" ") or (language in WITHOUT_SPACES and any(map(str.isalnum, text)))
        if words and not begins:
            words[-1] = (words[-1][0], words[-1][1] + text)
        else:
            words.append((begun_s, text))
        waiting = []
    ends = [*(start for start, _ in words[1:]), end_s]
    return tuple(
        Word(start, max(start, end), text.strip()) for (start, text), end in zip(words, ends, strict=True) if text.strip()
    )
