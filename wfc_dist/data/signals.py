"""Looks at samples: silence, clipping, floats that are not in -1..1, channels that cancel each other."""

from collections.abc import Iterator

import numpy as np

from wfc_dist.data.audio_files import AudioRef, blocks

CLIPPED_SHARE = 0.01
"""More than that share of samples at full scale is clipping."""
CANCELS_SHARE = 0.05
"""Channels whose mean has less than that share of their own root mean square cancel each other."""
FULL_SCALE = 0.999
OUT_OF_SCALE = 8.0
"""Floats beyond that are no samples in -1..1 with some overshoot, but integers stored as floats."""
SILENT, CLIPPED, SCALE, CANCELS, NOT_FINITE = "silent", "clipped", "scale", "cancels", "not_finite"
NAMES = (SILENT, CLIPPED, SCALE, CANCELS, NOT_FINITE)


def first_sound(audio: AudioRef) -> frozenset[str]:
    """Returns what is odd about the first block of audio that is not digital silence.

    Raises:
        InputError: The audio cannot be read.
    """
    return signs(block for _, block in blocks(audio))


def signs(parts: Iterator[np.ndarray]) -> frozenset[str]:
    """Returns what is odd about the first part (frames, channels) that is not silent; `silent` if there is none."""
    for part in parts:
        if part.any():  # NaN counts
            return _signs(part)
    return frozenset({SILENT})


def _signs(samples: np.ndarray) -> frozenset[str]:
    if not np.isfinite(samples).all():
        return frozenset({NOT_FINITE})
    peaks = np.abs(samples)
    found = set()
    if peaks.max() > OUT_OF_SCALE:
        found.add(SCALE)
    elif float((peaks >= FULL_SCALE).mean()) > CLIPPED_SHARE:
        found.add(CLIPPED)
    if samples.shape[1] > 1:
        own, mean = float(np.sqrt((samples**2).mean())), float(np.sqrt((samples.mean(axis=1) ** 2).mean()))
        if own > 0 and mean < CANCELS_SHARE * own:
            found.add(CANCELS)
    return frozenset(found)
