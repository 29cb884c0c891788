"""Audio that a program writes to its output: the pipes of Kaldi's wav.scp, one program without a shell."""

import io
import shlex
import subprocess
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from wfc_dist import activity
from wfc_dist.errors import InputError

TIMEOUT_S = 300
_SHELL_LETTERS = frozenset("|;&<>()`$")


@dataclass(frozen=True, slots=True)
class AudioPipe:
    """The output of a program, or a stretch of it; see `AudioFile`. The program is run whenever its output is not in memory."""

    command: tuple[str, ...]
    offset_s: float = 0.0
    length_s: float | None = None
    channel: int | None = None

    @property
    def name(self) -> str:
        """The name in messages."""
        return shlex.join(self.command)

    @property
    def recording(self) -> Hashable:
        """The identity of the recording, whatever stretch of it this is."""
        return self.command

    def size_bytes(self) -> int:
        """Returns the size of the encoded audio. Raises InputError if the program fails."""
        return len(self.encoded())

    def open(self) -> Any:
        """Returns a file in memory. Raises InputError if the program fails."""
        return io.BytesIO(self.encoded())

    def encoded(self) -> bytes:
        """Returns the encoded audio. Raises InputError if the program fails."""
        return _output(self.command)


@lru_cache(maxsize=4)  # the segments of a recording follow one another
def _output(command: tuple[str, ...]) -> bytes:
    name = shlex.join(command)
    try:
        with activity.reading(name):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=False)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot start {name}: {reason}; install the program, or convert the audio") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{name} did not end within {TIMEOUT_S} s; run it yourself and convert the audio") from error
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = f"ended with {done.returncode}" if done.returncode else "wrote no audio"
        raise InputError(f"{name} {why}{f': {said[-1][:200]}' if said else ''}; run it yourself and correct the line")
    return done.stdout


def pipe_command(pipe: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Returns the program and the arguments of a pipe of a wav.scp, `sph2pipe -f wav a.sph |`, which no shell has to read.

    A program that is allowed by its name is the one on this machine's PATH, whatever folder the pipe names. A program in a folder
    is started if it is allowed by its whole path.

    Raises:
        InputError: The program is not among the allowed names, or it is not one program only. The text begins with the reason.
    """
    lexer = shlex.shlex(pipe.strip().removesuffix("|"), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise InputError(f"the pipe cannot be read ({error}); correct it") from error
    if not words:
        raise InputError("the pipe names no program; write the path of the audio")
    if any(_SHELL_LETTERS & set(word) for word in words):
        raise InputError("the pipe needs a shell, which is not started; use one program, or convert the audio")
    program, name = words[0], PurePosixPath(words[0]).name
    if program in allowed:
        return tuple(words)
    if name in allowed:  # the program of this name that this machine finds, and none that a corpus brings along
        return (name, *words[1:])
    raise InputError(
        f"the pipe would start the program {name!r}, which a data set may not by default; convert the audio, or allow the "
        f"program: allow_pipes: [{name}]"
    )
