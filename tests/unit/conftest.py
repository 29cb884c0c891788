"""A unit test that starts a program, forks or connects says so with the marker `process`: `make check` leaves it out."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "socket.connect"})
_unmarked = ""  # the test that runs, unless it is marked


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if _unmarked and event in _STARTS:
        raise AssertionError(f"{_unmarked} does {event} {arguments[:2]}: mark it with pytest.mark.process")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _says_what_it_starts(request: pytest.FixtureRequest) -> Iterator[None]:
    global _unmarked
    _unmarked = "" if request.node.get_closest_marker("process") else request.node.nodeid
    yield
    _unmarked = ""
