"""Decides which clips share a window: a packed sample of at most 30 s, the unit of training and of packed decoding.

Pure functions of sizes: no audio, no tokenizer, no torch.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

from wfc_dist.data.audio_files import RATE_HZ

WINDOW_S = 30
"""Whisper's encoder reads windows of 30 s."""
WINDOW_SAMPLES = WINDOW_S * RATE_HZ
MAX_LABEL_TOKENS = 448
"""Positions of Whisper's decoder, from <|startoftranscript|> to <|endoftext|>."""
MAX_TEXT_TOKENS = MAX_LABEL_TOKENS - 5
"""Label tokens without start, language, task, no timestamps and end."""
OPEN_WINDOWS = 8
"""Windows per group that take more clips. It bounds how far a clip moves ahead in the given order."""

Window = tuple[int, ...]
"""Indices of the clips of a packed sample, in their order."""


@dataclass(frozen=True)
class ClipSize:
    """What a clip takes of a window: samples and label tokens. Only clips of one `group` (the language) share a window."""

    num_samples: int
    num_tokens: int
    group: Hashable


@dataclass
class _Open:
    clips: list[int] = field(default_factory=list)
    num_samples: int = 0
    num_tokens: int = 0


def pack(
    order: Iterable[int], sizes: Sequence[ClipSize], *, gap_samples: int, max_tokens: int, max_samples: int = WINDOW_SAMPLES
) -> list[Window]:
    """Returns windows that hold every clip once. A clip goes into the first open window of its group that has room.

    If none of the `OPEN_WINDOWS` has room, the oldest is closed. A pure function of its arguments.

    Args:
        order: Clip indices, in the order they are placed.
        sizes: Sizes by clip index; every clip must fit a window alone.
        gap_samples: Silence between two clips of a window.
        max_tokens: Most label tokens of the texts of a window.
        max_samples: Most samples of a window.
    """
    closed: list[Window] = []
    windows: defaultdict[Hashable, list[_Open]] = defaultdict(list)
    for index in order:
        size, group = sizes[index], windows[sizes[index].group]
        for window in group:
            samples = window.num_samples + gap_samples + size.num_samples
            if samples <= max_samples and window.num_tokens + size.num_tokens <= max_tokens:
                break
        else:
            if len(group) == OPEN_WINDOWS:
                closed.append(tuple(group.pop(0).clips))
            window, samples = _Open(), size.num_samples
            group.append(window)
        window.clips.append(index)
        window.num_samples, window.num_tokens = samples, window.num_tokens + size.num_tokens
    for group in windows.values():
        closed.extend(tuple(window.clips) for window in group)
    return closed
