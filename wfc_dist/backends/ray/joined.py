"""A joined Ray cluster: notices that its GCS, the process on the head node that Ray depends on, is gone for good or stands still.

Ray ends a program, with exit code 1 and without a word to it, once the GCS has not answered for GCS_LIMIT_S. Before, it waits,
since a GCS with a store of its own may come back: the run then goes on where it is.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

from wfc_dist.backends.ray import embedded
from wfc_dist.backends.ray.embedded import User

logger = logging.getLogger(__name__)
POLL_S, PROBE_S = 1.0, 3.0
GCS_LIMIT_S = 60.0
"""Ray's default for RAY_gcs_rpc_server_reconnect_timeout_s."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2, and so of gRPC, begins: the preface and an empty SETTINGS frame. A server answers with its settings."""
SHARE = 0.75
"""How much of Ray's time passes before this program ends itself: less, since both begin to count when they notice."""


def gcs_limit_s() -> float:
    """Returns for how many seconds the GCS may be away before the program ends itself, in time before Ray would end it."""
    try:
        limit_s = float(os.environ["RAY_gcs_rpc_server_reconnect_timeout_s"])  # noqa: SIM112 (Ray spells it so)
    except (KeyError, ValueError):
        limit_s = GCS_LIMIT_S
    return SHARE * limit_s


@contextlib.contextmanager
def watched(gcs: str, user: User) -> Iterator[None]:
    """Ends this process, if it is a command, when the GCS is lost while the context lasts; `user` is told.

    Args:
        gcs: Address of the GCS, host:port.
        user: See `embedded.User`. Users within the context are told in its place (`embedded.used_by`).
    """
    if wrong := _why_away(gcs):
        logger.warning("the GCS at %s is not watched, since it does not answer from here: %s", gcs, wrong)
        with embedded.used_by(user):
            yield
        return
    with embedded.used_by(user), embedded.beside("gcs-watch", partial(_watch, gcs, gcs_limit_s())):
        yield


def _watch(gcs: str, limit_s: float, over: threading.Event) -> None:
    away_s, looked_s = 0.0, time.monotonic()
    while not over.wait(POLL_S):
        wrong = _why_away(gcs)
        before_s, looked_s = looked_s, time.monotonic()
        # A long time between two looks is none of the GCS: this process was stopped meanwhile.
        away_s = away_s + min(looked_s - before_s, POLL_S + PROBE_S) if wrong else 0.0
        if away_s >= limit_s and not over.is_set():
            lost = f"the GCS of the Ray cluster at {gcs} has not answered for {away_s:.0f} s ({wrong}); start the cluster again"
            embedded.end(lost, ())
            return


def _why_away(gcs: str) -> str:
    """Returns why nobody answers at an address; "" if somebody does. The system takes connections for a stopped process, too."""
    host, _, port = gcs.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S) as connection:
            connection.sendall(_HELLO)
            with contextlib.suppress(ConnectionError):  # a server that wants TLS may hang up, but it lives
                connection.recv(1)
            return ""
    except OSError as error:
        return str(error)
