"""A GCS that is gone ends the program before Ray would; one that comes back does not. Real sockets stand in for it."""

import socket
import threading

import pytest

from wfc_dist.backends.ray import joined
from wfc_dist.backends.ray.embedded import User


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "POLL_S", 0.05)


def listening(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port))


def test_less_than_the_time_after_which_ray_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s", raising=False)
    assert joined.gcs_limit_s() == 45
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "600")
    assert joined.gcs_limit_s() == 450


@pytest.mark.process
def test_one_that_is_gone_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "0.4")
    told, heard = threading.Event(), []
    gcs = listening()
    address = f"127.0.0.1:{gcs.getsockname()[1]}"

    def lost(message: str) -> None:
        heard.append(message)
        told.set()

    with joined.watched(address, User(lost=lost)):
        gcs.close()
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
def test_one_that_was_never_to_be_reached_is_not_watched(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as gcs:
        address = f"127.0.0.1:{gcs.getsockname()[1]}"
    names = {thread.name for thread in threading.enumerate()}
    with joined.watched(address, User()):
        assert {thread.name for thread in threading.enumerate()} <= names
    assert f"the GCS at {address} is not watched" in caplog.text
