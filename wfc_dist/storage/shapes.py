"""What a record in a file looks like: names and kinds of its facts, checked before anything relies on them.

A checksum finds damage. A record of an earlier version has none, and one that a stranger wrote may have any.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

from wfc_dist.errors import IntegrityError

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter

STRICT: "ConfigDict" = {"strict": True, "extra": "allow"}
"""`__pydantic_config__` of a shape: a text is no number, and facts that it does not name may be anything."""
CLOSED: "ConfigDict" = {"strict": True, "extra": "forbid"}
"""The same of a shape without other facts."""


class Shape:
    """Checks records against a TypedDict.

    Args:
        kind: The TypedDict: the facts that some reader uses, `Required` where a record without them is useless.
        needed: Facts that are required, too.
    """

    def __init__(self, kind: Any, *needed: str) -> None:
        self._kind, self._needed = kind, needed

    @cached_property
    def _adapter(self) -> "TypeAdapter[Any]":
        from pydantic import TypeAdapter  # loaded for the first record: most commands read none

        return TypeAdapter(self._kind)

    def fault(self, record: object) -> str:
        """Returns what is wrong with a record and where in it; "" if it has this shape."""
        from pydantic import ValidationError

        try:
            self._adapter.validate_python(record)
        except (ValidationError, RecursionError) as error:
            if isinstance(error, RecursionError):
                return "it is nested too deep"
            first = error.errors(include_url=False, include_input=False)[0]
            return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].removeprefix('Input should be ')} is expected"
        missing = [name for name in self._needed if name not in record]  # type: ignore[operator]  # a dictionary by now
        return f"it says nothing of {missing[0]}" if missing else ""

    def fits(self, record: object) -> bool:
        """Says whether a record has this shape."""
        return not self.fault(record)

    def require(self, record: object, where: object, remedy: str) -> None:
        """Raises IntegrityError, naming the file, the fact and `remedy`, for a record of another shape."""
        if fault := self.fault(record):
            raise IntegrityError(f"{where} is not what this version writes ({fault}); {remedy}")
