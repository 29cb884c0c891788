"""Clips -> windows of at most 30 s: short clips share one, long audio is cut where it is quiet."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import WhisperTokenizer

from wfc_dist.data.audio_files import samples_in
from wfc_dist.data.features import MAX_TEXT_TOKENS
from wfc_dist.data.packing import WINDOW_SAMPLES, ClipSize, Window, pack
from wfc_dist.data.sources import Clip

Audio = npt.NDArray[np.float32]
PACKING_GAP_S = 0.3  # silence between packed clips: a pause, as between sentences
_SEARCHED, _FRAME_S = 3, 0.1  # long audio is cut at the quietest place of a window's last third


def windows_of(clips: Sequence[Clip], tokenizer: WhisperTokenizer, *, packing: bool) -> list[Window]:
    """Returns windows of clip indices, every clip once, in the order of their first clips.

    Args:
        clips: Of a test set.
        tokenizer: Counts what a window's text takes of the decoder.
        packing: Clips of one language share windows of 30 s with gaps of 0.3 s; otherwise one clip each.
    """
    if not packing:
        return [(index,) for index in range(len(clips))]
    num_tokens = [len(tokenizer(f" {clip.text}", add_special_tokens=False).input_ids) for clip in clips]
    sizes = [ClipSize(samples_in(clip.duration_s), tokens, clip.language) for clip, tokens in zip(clips, num_tokens, strict=True)]
    gap_samples = samples_in(PACKING_GAP_S)
    return sorted(pack(range(len(clips)), sizes, gap_samples=gap_samples, max_tokens=MAX_TEXT_TOKENS))


def cut_at_quiet(audio: Audio, max_samples: int = WINDOW_SAMPLES) -> list[Audio]:
    """Returns pieces of at most `max_samples` (30 s) whose concatenation is `audio`, cut where it is quietest.

    Args:
        audio: (samples,), float32, 16 kHz.
        max_samples: At least 0.6 s.
    """
    frame = samples_in(_FRAME_S)
    search = max_samples // _SEARCHED // frame * frame
    pieces = []
    while len(audio) > max_samples:
        start = max_samples - search
        energies = np.square(audio[start:max_samples].astype(np.float64)).reshape(-1, frame).mean(axis=1)
        pairs = energies[:-1] + energies[1:]  # two frames: a pause, not a zero crossing
        cut = start + (int(np.argmin(pairs)) + 1) * frame
        pieces.append(audio[:cut])
        audio = audio[cut:]
    return [*pieces, audio]
