"""What the package asks of soundfile, for 16-bit mono WAV files: stands in for it on a machine where it is not installed."""

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
    frames: int
    samplerate: int


def info(path: str) -> _Info:
    """Returns what the header says."""
    with SoundFile(path) as file:
        return _Info(file.frames, file.samplerate)


class SoundFile:
    """An open file."""

    def __init__(self, path: str) -> None:
        try:
            self._file = wave.open(path, "rb")  # noqa: SIM115 - closed by __exit__
        except wave.Error as error:
            raise SoundFileError(f"{path}: {error}") from error
        if (self._file.getnchannels(), self._file.getsampwidth()) != (1, 2):
            raise SoundFileError(f"{path}: only 16-bit mono WAV is read without soundfile; install it")
        self.frames, self.samplerate = self._file.getnframes(), self._file.getframerate()

    def __enter__(self) -> "SoundFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def seek(self, frame: int) -> None:
        """Moves to a frame."""
        self._file.setpos(frame)

    def read(self, frames: int = -1, dtype: str = "float32", always_2d: bool = False) -> npt.NDArray[np.float32]:
        """Returns samples of (-1, 1), (frames, 1) with `always_2d`, as soundfile does."""
        data = self._file.readframes(self.frames if frames < 0 else frames)
        samples = (np.frombuffer(data, "<i2") / 32768).astype(dtype)
        return samples[:, None] if always_2d else samples
