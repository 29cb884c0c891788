"""What the package asks of soundfile, for 16-bit mono WAV files: stands in for it on a machine where it is not installed."""

import os
import sys
import wave
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt


def stand_in() -> bool:
    """Makes `import soundfile` give this module, where there is no soundfile, and says whether it did."""
    if sys.modules.get("soundfile") is None and find_spec("soundfile") is None:
        sys.modules["soundfile"] = sys.modules[__name__]
    return sys.modules.get("soundfile") is sys.modules[__name__]


class SoundFileError(RuntimeError):
    """A file that cannot be read."""


@dataclass(frozen=True)
class _Info:
    seekable: int = 1


class SoundFile:
    """An open file."""

    format, subtype, channels, extra_info = "WAV", "PCM_16", 1, ""

    def __init__(self, file: Any) -> None:
        try:
            self._file = wave.open(os.fsdecode(file) if isinstance(file, str | bytes) else file, "rb")  # noqa: SIM115 - by __exit__
        except (wave.Error, EOFError) as error:
            raise SoundFileError(f"{file}: {error}") from error
        if (self._file.getnchannels(), self._file.getsampwidth()) != (1, 2):
            raise SoundFileError(f"{file}: only 16-bit mono WAV is read without soundfile; install it")
        self.frames, self.samplerate, self._info = self._file.getnframes(), self._file.getframerate(), _Info()

    def __enter__(self) -> "SoundFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def seek(self, frame: int) -> int:
        """Moves to a frame and returns it."""
        self._file.setpos(frame)
        return frame

    def read(self, frames: int = -1, dtype: str = "float32", always_2d: bool = False) -> npt.NDArray[np.float32]:
        """Returns samples of (-1, 1), (frames, 1) with `always_2d`, as soundfile does."""
        data = self._file.readframes(self.frames if frames < 0 else frames)
        samples = (np.frombuffer(data, "<i2") / 32768).astype(dtype)
        return samples[:, None] if always_2d else samples
