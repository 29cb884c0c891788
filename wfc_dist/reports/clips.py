"""Clips of test sets as small audio inside a page: Opus, mono, about 16 kbit/s."""

import base64
import io
from dataclasses import dataclass

import numpy as np

from wfc_dist.config.schema import Config
from wfc_dist.data.audio_files import RATE_HZ, samples_in
from wfc_dist.data.sources import Split, open_split
from wfc_dist.errors import WfcError
from wfc_dist.evaluation.hypotheses import Hypothesis

MOST_BYTES = 6_000_000
"""Of all audio of a page, encoded for HTML."""
LONGEST_S = 60.0
"""What lies beyond in one utterance is left out."""
_COMPRESSION = 0.96  # of libsndfile: 16 kbit/s of 6 to 256
_GAP_S = 0.3  # between the clips of a window, as when they were decoded


@dataclass(frozen=True)
class Sound:
    """The audio of an utterance: a data URI, or "" and why there is none; `note` also says where audio was cut."""

    uri: str = ""
    note: str = ""


class ClipPlayer:
    """Reads, encodes and counts the audio of a page.

    Args:
        config: Of the run; its test sets are opened where they were when the run began.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._splits: dict[str, Split | str] = {}
        self._num_bytes = self._num_clips = self._num_left_out = self._num_unreadable = 0

    def clip(self, name: str, window: Hypothesis) -> Sound:
        """Returns the audio of an utterance of a test set; one that cannot be read says why."""
        try:
            samples = self._samples(name, window)
        except (WfcError, OSError, ValueError, RuntimeError) as error:
            self._num_unreadable += 1
            return Sound(note=f"The audio cannot be read: {error}")
        whole_s = len(samples) / RATE_HZ
        uri = _data_uri(samples[: samples_in(LONGEST_S)])
        if self._num_bytes + len(uri) > MOST_BYTES:
            self._num_left_out += 1
            return Sound(note=f"The audio is left out: the page has {MOST_BYTES / 1e6:.0f} MB of audio already.")
        self._num_bytes, self._num_clips = self._num_bytes + len(uri), self._num_clips + 1
        return Sound(uri, f"the first {LONGEST_S:.0f} of {whole_s:.0f} s" if whole_s > LONGEST_S else "")

    def summary(self) -> str:
        """Returns how much audio the page has, and what is missing."""
        said = f"The page holds the audio of {self._num_clips} utterances, {self._num_bytes / 1e6:.1f} MB."
        if self._num_left_out:
            said += f" The audio of {self._num_left_out} more is left out: a page has at most {MOST_BYTES / 1e6:.0f} MB."
        if self._num_unreadable:
            said += f" The audio of {self._num_unreadable} cannot be read; each says why."
        return said

    def _samples(self, name: str, window: Hypothesis) -> np.ndarray:
        split = self._split(name)
        gap, joined = np.zeros(samples_in(_GAP_S), dtype=np.float32), list[np.ndarray]()
        for index in _places(split, window):
            joined += [gap, split.audio(index)] if joined else [split.audio(index)]
        return np.concatenate(joined)

    def _split(self, name: str) -> Split:
        if name not in self._splits:
            try:
                self._splits[name] = open_split(name, self._config.test_sets()[name], "test")
            except WfcError as error:
                self._splits[name] = str(error)
        found = self._splits[name]
        if isinstance(found, str):
            raise ValueError(found)
        return found


def _places(split: Split, window: Hypothesis) -> list[int]:
    """Returns the clips of a window: the first by its id, each next one by its text, behind the one before.

    Raises:
        ValueError: The data has other clips by now.
    """
    is_one = len(window.parts) == 1
    starts = [
        index for index, clip in enumerate(split.clips)
        if clip.text == window.parts[0] and (clip.id == window.id if is_one else window.id.startswith(f"{clip.id}.."))
    ]  # fmt: skip
    for start in starts:
        places = [start]
        for part in window.parts[1:]:
            rest = range(places[-1] + 1, len(split.clips))
            places += [index for index in rest if split.clips[index].text == part][:1]
        if len(places) == len(window.parts):
            return places
    raise ValueError(f"{split.name}/{split.split} has no clip {window.id} with the text that was scored; the data has changed")


def _data_uri(samples: np.ndarray) -> str:
    import soundfile as sf

    file = io.BytesIO()
    sf.write(file, samples, RATE_HZ, format="OGG", subtype="OPUS", compression_level=_COMPRESSION)
    return "data:audio/ogg;base64," + base64.b64encode(file.getvalue()).decode()
