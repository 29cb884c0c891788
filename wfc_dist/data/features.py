"""From clips to model inputs: the samples of a 30 s window, its log-mel features, label tokens and SpecAugment masks."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperTokenizer

from wfc_dist.config.training import SpecAugmentConfig
from wfc_dist.data.audio_files import RATE_HZ, samples_in
from wfc_dist.data.packing import WINDOW_SAMPLES, ClipSize, Window
from wfc_dist.data.sources import Clip, Split
from wfc_dist.errors import InputError

HOP_SAMPLES = 160
WITHOUT_SPACES = frozenset({"zh", "yue", "ja", "th", "lo", "my"})
"""Languages in which Whisper does not begin a transcript with a space."""


def _prompt(tokenizer: WhisperTokenizer, language: str) -> list[int]:
    """Returns the tokens before the text: language, task, no timestamps."""
    tokens = [f"<|{language}|>", "<|transcribe|>", "<|notimestamps|>"]
    ids: Any = tokenizer.convert_tokens_to_ids(tokens)
    for token, token_id in zip(tokens, ids, strict=True):
        if token_id in (None, tokenizer.eos_token_id):  # the end token also stands for unknown ones
            raise InputError(f"the base's tokenizer has no {token}; use a multilingual Whisper that knows the language")
    return ids


def _text_tokens(tokenizer: WhisperTokenizer, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the tokens of every text, int32: several times smaller than lists, which a large split would feel."""
    return [np.array(ids, np.int32) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids] if texts else []


class Labels:
    """The label tokens of clips and of windows.

    A window's labels are `<|lang|><|transcribe|><|notimestamps|> text... <|endoftext|>`. Transformers shifts labels and puts
    <|startoftranscript|> in front of them; it is not among the labels, but counts for the limit.
    Texts begin with a space, as in Whisper's own transcripts. Without the space the loss on clips that Whisper transcribes well
    is at least about twice as high (docs/data.md), and training would first unlearn the space.
    """

    def __init__(self, clips: Sequence[Clip], tokenizer: WhisperTokenizer) -> None:
        self._clips = clips
        self._end = int(tokenizer.eos_token_id)
        self._prompts = {language: _prompt(tokenizer, language) for language in sorted({clip.language for clip in clips})}
        self._tokens = _text_tokens(tokenizer, [f" {clip.text}" for clip in clips])
        spaceless = [index for index, clip in enumerate(clips) if clip.language in WITHOUT_SPACES]
        first = _text_tokens(tokenizer, [clips[index].text for index in spaceless])
        self._first = dict(zip(spaceless, first, strict=True))  # clip -> its tokens where it is the first of a window

    def num_text_tokens(self, index: int) -> int:
        """Returns how many tokens the text of a clip takes at most, be the clip the first of its window or a later one."""
        return max(len(self._tokens[index]), len(self._first.get(index, ())))

    def window(self, window: Window) -> list[int]:
        """Returns the label tokens of a window of clips of one language."""
        ids = list(self._prompts[self._clips[window[0]].language])
        for position, index in enumerate(window):
            tokens = self._first.get(index, self._tokens[index]) if position == 0 else self._tokens[index]
            ids.extend(tokens.tolist())
        return [*ids, self._end]


def clip_sizes(clips: Sequence[Clip], labels: Labels) -> list[ClipSize]:
    """Returns what every clip takes of a window. Clips of different languages never share a window."""
    return [ClipSize(samples_in(clip.duration_s), labels.num_text_tokens(i), clip.language) for i, clip in enumerate(clips)]


def window_audio(split: Split, window: Window, gap_samples: int) -> np.ndarray:
    """Returns the samples of a window (at most 480000, float32): its clips in order, with silence between them.

    The planned durations alone decide where a clip begins, whatever length the clips decode to.
    """
    starts, position = [], 0
    for index in window:
        starts.append(position)
        position += samples_in(split.clips[index].duration_s) + gap_samples
    samples = np.zeros(min(position - gap_samples, WINDOW_SAMPLES), np.float32)
    for start, index in zip(starts, window, strict=True):
        room = samples[start : start + samples_in(split.clips[index].duration_s)]
        audio = split.audio(index)[: len(room)]
        room[: len(audio)] = audio
    return samples


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Lets torch compute on one thread, so that numbers do not depend on the machine's cores."""
    num_threads = torch.get_num_threads()
    if num_threads == 1:  # setting it also sets what threads that begin later take
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def log_mel(extractor: WhisperFeatureExtractor, samples: np.ndarray) -> torch.Tensor:
    """Returns the log-mel features (n_mels, 3000), float32, of one window, which silence fills up.

    Computes on one thread, as loader threads do, so that their number does not change a bit.
    """
    with single_threaded():
        return extractor(samples, sampling_rate=RATE_HZ, return_tensors="pt").input_features[0]


def spec_augment(features: torch.Tensor, num_samples: int, config: SpecAugmentConfig, seed: Sequence[int]) -> torch.Tensor:
    """Returns a copy of features with masks of zeros; a pure function of its arguments.

    Widths are uniform in 0..width, and positions are uniform. Time masks lie in the speech, not in the padding.

    Args:
        features: (n_mels, frames).
        num_samples: Samples of the window before padding.
        config: Numbers and widths of masks.
        seed: Numbers that name this window.

    Source: arXiv 1904.08779, without time warping.
    """
    rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
    masked = features.clone()
    num_frames = max(1, min(features.shape[1], num_samples // HOP_SAMPLES))
    for _ in range(config.time_masks):
        width = min(int(rng.integers(config.time_width + 1)), num_frames)
        start = int(rng.integers(num_frames - width + 1))
        masked[:, start : start + width] = 0
    for _ in range(config.frequency_masks):
        width = min(int(rng.integers(config.frequency_width + 1)), features.shape[0])
        start = int(rng.integers(features.shape[0] - width + 1))
        masked[start : start + width] = 0
    return masked
