"""Errors a user can act on. Each says what, where and what to do, and survives pickling (Ray carries them).

The class decides the exit code of `wfc`: 0 done, 1 failed, 2 configuration or input (nothing started), 75 interrupted.
"""

import difflib
import errno
import importlib.util
import os
import re
import shutil
from collections.abc import Iterable
from typing import Any

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the same command goes on


_LONGEST_MESSAGE, _LONGEST_END = 8000, 2000
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, marks of the writing direction, and halves of surrogate pairs: a file that is quoted may hold any."""
_SECRETS = (
    re.compile(r"(\b(?!abfss?:|wasbs?:)[A-Za-z][\w+.-]*:/{1,3})(?:[^\s/@]*:(?!\d+/)[^\s@]+|[^\s/@:]+)(?=@)"),
    re.compile(r"([?&;#][\w.-]*(?:secret|token|key|password|signature|credential)[\w.-]*=)[^\s&;#'\"]+", re.IGNORECASE),
)
"""What stands before '@' in a URL, and parameters whose names say that they are secret."""


class WfcError(Exception):
    """A run-time fact that ends the command with one clear message.

    Args:
        message: What happened, where (round, data set, file), and what to do. It may quote what strangers wrote: characters that
            a terminal obeys are escaped; the middle of a message that would fill a log, and credentials in URLs, are left out.
    """

    exit_code = EXIT_FAILED

    def __init__(self, message: str) -> None:
        self.message = _readable(message)
        super().__init__(self.message)


def without_secrets(text: str) -> str:
    """Returns a text with *** in place of the credentials in its URLs."""
    for secret in _SECRETS:
        text = secret.sub(r"\1***", text)
    return text


def _readable(message: str) -> str:
    message = without_secrets(_UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), message))
    if len(message) <= _LONGEST_MESSAGE:
        return message
    left_out = len(message) - _LONGEST_MESSAGE
    return f"{message[: _LONGEST_MESSAGE - _LONGEST_END]} [... {left_out} characters ...] {message[-_LONGEST_END:]}"


class ConfigError(WfcError, ValueError):
    """The configuration is wrong; nothing was started."""

    exit_code = EXIT_USAGE


class InputError(WfcError, ValueError):
    """Data, an adapter, a model or a run directory handed in is unusable; nothing was written over."""

    exit_code = EXIT_USAGE


class NotFiniteError(InputError):
    """The result of a merge is not finite."""


class GateError(WfcError):
    """A merge does not pass `centralize.gate`; nothing was committed."""


class RunLockedError(WfcError):
    """Another process works on the run directory, or did until a moment ago: trying again later can help."""

    exit_code = EXIT_INTERRUPTED


class IntegrityError(WfcError):
    """Bytes on disk or on a receiver do not have the sha256 that was recorded for them."""


class StorageError(WfcError):
    """Object storage did not answer, or not with what was written, for longer than retries last."""


class TrainingError(WfcError):
    """A trainer failed in a way that another attempt would repeat (loss not finite, no trainable parameter, ...)."""


class GangFailedError(WfcError):
    """A trainer gang was lost more often than `cluster.max_failures` allows."""


class HungError(WfcError):
    """Work stood still for longer than `cluster.hang_timeout_s`; it goes on from its last checkpoint."""

    exit_code = EXIT_INTERRUPTED


class Interrupted(WfcError):
    """The run ended before its end, because it was asked to or because of something that passes; the same command goes on.

    Args:
        message: See `WfcError`. It says what has checkpointed.
        facts: What status.json and the ledger say besides, such as the step of a checkpoint.
    """

    exit_code = EXIT_INTERRUPTED

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts


def closest(word: str, words: Iterable[str], cutoff: float = 0.5) -> str | None:
    """Returns the one of `words` that is most like a word, whatever their case; None where none is like it.

    `cutoff` is the share of letters that two words must have in common, from 0 to 1.
    """
    plain = {name.lower().replace("-", "_"): name for name in words}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def require(package: str, extra: str, what: str) -> None:
    """Raises ConfigError if a package is missing that `what` needs and that `pip install 'wfc-dist[extra]'` brings."""
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{what} needs {package}; install it on every node: pip install 'wfc-dist[{extra}]'")


def nearest(word: str, words: Iterable[str]) -> str:
    """Returns the end of a message about a word that is none of `words`: the nearest of them, or all."""
    known = list(words)
    found = closest(word, known)
    return f"; did you mean {found!r}?" if found else f"; there are: {', '.join(sorted(known))}"


def explain_os(error: OSError) -> str:
    """Returns one line about a file or folder that could not be read or written, and what to do."""
    error = _first(error)
    what = f"{without_secrets(str(error.filename2 or error.filename or 'writing'))}: {error.strerror}"
    if _is_full(error):
        return f"{what}; free space there, and run the same command again"
    return f"{what}; {'move it away, or ' if error.errno in _IN_THE_WAY else ''}give another place"


def exit_code_of(error: Exception) -> int:
    """Returns the exit code of `wfc` for an error that ended it; that of a full disk says that trying again can help."""
    if isinstance(error, WfcError):
        return error.exit_code
    if not isinstance(error, OSError):
        return EXIT_FAILED
    error = _first(error)
    if _is_full(error):
        return EXIT_INTERRUPTED
    return EXIT_USAGE if error.filename is not None and error.errno in _PLACES else EXIT_FAILED


def is_of_a_place(error: OSError) -> bool:
    """Returns whether `explain_os` has something to say: a file or folder is named, or a disk is full."""
    error = _first(error)
    return error.filename is not None or _is_full(error)


def _first(error: OSError) -> OSError:
    """Returns the first error of a copied folder, of which shutil keeps texts; any other error as it is."""
    if not isinstance(error, shutil.Error):
        return error
    failed = error.args[0][0] if error.args and isinstance(error.args[0], list) else None
    if not isinstance(failed, tuple):
        return error
    if (number := re.match(r"\[Errno (\d+)\]", str(failed[2]))) is None:
        return OSError(errno.EINVAL, str(failed[2]), str(failed[0]))  # such as a pipe
    return OSError(int(number[1]), os.strerror(int(number[1])), str(failed[1 if int(number[1]) in _FULL else 0]))


_IN_THE_WAY = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}
_PLACES = _IN_THE_WAY | {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENAMETOOLONG}
"""What the system says of a place that cannot be used."""


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _is_full(error: OSError) -> bool:
    return error.errno in _FULL
