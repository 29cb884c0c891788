"""JSON files from outside: an object, or an InputError that says what is wrong with the file."""

import json
from pathlib import Path
from typing import Any

from wfc_dist.errors import InputError

MAX_BYTES = 64 << 20
"""Several times the largest tokenizer of a Whisper model."""


def read_object(path: Path, todo: str, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
        path: The file.
        todo: End of the message: what the user does.
        max_bytes: A larger file is not read.

    Raises:
        InputError: No such file, no UTF-8, no JSON, or JSON that is no object.
    """
    try:
        if not path.is_file():
            raise ValueError("there is no such file")
        if (size_bytes := path.stat().st_size) > max_bytes:
            raise ValueError(f"it has {size_bytes} bytes, more than the {max_bytes} that are read")
        found = json.loads(path.read_bytes().decode("utf-8"))
    except RecursionError as error:
        raise InputError(f"{path} cannot be read: it is nested too deeply; {todo}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; {todo}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} cannot be read: it holds a {type(found).__name__} where an object is expected; {todo}")
    return found


def whole_number(value: object, least: int, most: int) -> bool:
    """Says whether a value from JSON is an integer from `least` to `most`; true and 1.0 are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def number(value: object, most: float) -> bool:
    """Says whether a value from JSON is a number above 0 and up to `most`, which NaN and true are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most
