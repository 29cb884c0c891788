"""A GCS that is gone or stands still ends the program before Ray would; one that comes back does not. A real gRPC server
stands in for it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from wfc_dist.backends.ray import joined
from wfc_dist.backends.ray.embedded import User


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "POLL_S", 0.05)


@contextlib.contextmanager
def answering() -> Iterator[tuple[str, grpc.Server]]:
    """Yields the address of a gRPC server, and the server."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", server
        finally:
            server.stop(None).wait()


def test_less_than_the_time_after_which_ray_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s", raising=False)
    assert joined.gcs_limit_s() == 45
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    assert joined.gcs_limit_s() == 450


@pytest.mark.process
def test_one_that_is_gone_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "0.4")
    told, heard = threading.Event(), []

    def lost(message: str) -> None:
        heard.append(message)
        told.set()

    with answering() as (address, gcs), joined.watched(address, User(lost=lost)):
        gcs.stop(None).wait()
        assert told.wait(30)
    assert len(heard) == 1 and heard[0].startswith(f"the GCS of the Ray cluster at {address} has not answered for 0 s (")
    assert heard[0].endswith("start the cluster again; the same command goes on from the last checkpoints")


@pytest.mark.process
def test_one_that_comes_back_is_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    answers, enough = iter(["", *["refused"] * 3, "", *["refused"] * 3]), threading.Event()

    def why_away(gcs: str) -> str:
        answer = next(answers, None)
        if answer is None:
            enough.set()
        return answer or ""

    monkeypatch.setattr(joined, "_why_away", why_away)
    monkeypatch.setattr(joined, "gcs_limit_s", lambda: 5 * (joined.POLL_S + joined.PROBE_S))
    with joined.watched("head:6379", User(lost=heard.append)):
        assert enough.wait(60)
    assert not heard


@pytest.mark.process
def test_one_that_takes_connections_and_does_not_answer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "PROBE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stopped:  # as the system does for a process that is stopped
        assert "timed out" in joined._why_away(f"127.0.0.1:{stopped.getsockname()[1]}")
    with answering() as (address, _):
        assert joined._why_away(address) == ""


@pytest.mark.process
def test_one_that_was_never_to_be_reached_is_not_watched(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    names = {thread.name for thread in threading.enumerate()}
    with joined.watched(address, User()):
        assert {thread.name for thread in threading.enumerate()} <= names
    assert f"the GCS at {address} is not watched" in caplog.text
