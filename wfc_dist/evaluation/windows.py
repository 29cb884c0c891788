"""Windows of at most 30 s for decoding: short clips share one, long audio is cut where it is quiet."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import WhisperTokenizer

from wfc_dist.data.audio_files import samples_in
from wfc_dist.data.packing import MAX_TEXT_TOKENS, WINDOW_SAMPLES, ClipSize, Window, pack
from wfc_dist.data.sources import Clip

Audio = npt.NDArray[np.float32]
PACKING_GAP_S = 0.3  # silence between packed clips: a pause, as between sentences
_SEARCH_S, _FRAME_S = 10.0, 0.1  # long audio is cut at the quietest place of a window's last 10 s


def windows_of(clips: Sequence[Clip], tokenizer: WhisperTokenizer, *, packing: bool) -> list[Window]:
    """Returns windows of clip indices, every clip once, in the order of their first clips.

    With `packing` clips of one language share windows of 30 s with gaps of 0.3 s; without it every clip has its own.
    """
    if not packing:
        return [(index,) for index in range(len(clips))]
    num_tokens = [len(tokenizer(f" {clip.text}", add_special_tokens=False).input_ids) for clip in clips]
    sizes = [ClipSize(samples_in(clip.duration_s), tokens, clip.language) for clip, tokens in zip(clips, num_tokens, strict=True)]
    gap_samples = samples_in(PACKING_GAP_S)
    return sorted(pack(range(len(clips)), sizes, gap_samples=gap_samples, max_tokens=MAX_TEXT_TOKENS))


def cut_at_quiet(audio: Audio) -> list[Audio]:
    """Cuts audio, (samples,), float32, 16 kHz, where it is quietest. Returns pieces of at most 30 s, which join to the audio."""
    frame = samples_in(_FRAME_S)
    start = WINDOW_SAMPLES - samples_in(_SEARCH_S)
    pieces = []
    while len(audio) > WINDOW_SAMPLES:
        energies = np.square(audio[start:WINDOW_SAMPLES].astype(np.float64)).reshape(-1, frame).mean(axis=1)
        pairs = energies[:-1] + energies[1:]  # two frames: a pause, not a zero crossing
        cut = start + (int(np.argmin(pairs)) + 1) * frame
        pieces.append(audio[:cut])
        audio = audio[cut:]
    return [*pieces, audio]
