"""Channels as speech corpora name them: A and B, 1 and 2."""

import re

from wfc_dist.data.audio_files import AudioRef, audio_facts
from wfc_dist.errors import InputError

_LETTERS = {"A": 0, "B": 1}
_NUMBER = re.compile("[1-9][0-9]{0,3}")


def channel_number(name: str) -> int | None:
    """Returns the channel, counted from 0, of "A", "B", "1", "2", ...; None for anything else."""
    if name.upper() in _LETTERS:
        return _LETTERS[name.upper()]
    return int(name) - 1 if _NUMBER.fullmatch(name) else None


class Recordings:
    """Says how many channels recordings have. Each header is read once."""

    def __init__(self) -> None:
        self._num_channels: dict[AudioRef, int | None] = {}

    def channel(self, audio: AudioRef, channel: int | None) -> int | None:
        """Returns the channel to read of a recording: None for the only one of a mono recording.

        Raises:
            InputError: The recording has no such channel.
        """
        if channel is None:
            return None
        if audio not in self._num_channels:
            try:
                self._num_channels[audio] = audio_facts(audio).channels
            except InputError:  # the audit names audio that cannot be read
                self._num_channels[audio] = None
        there = self._num_channels[audio]
        if there is not None and channel >= there:
            raise InputError(f"{audio.name} has {there} channels, so no channel {channel + 1}; correct the row")
        return None if there == 1 else channel
