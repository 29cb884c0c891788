"""What a signal does to a run: the first asks for a stop, the same once more changes nothing, a later one ends the process."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from wfc_dist.coordinator.signals import SAME_SIGNAL_S, StopOnSignal
from wfc_dist.errors import EXIT_INTERRUPTED, Interrupted


@pytest.fixture
def ended(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def made(stops, stop=None):
    signals = StopOnSignal(SimpleNamespace(say=lambda _: None))
    signals.store = SimpleNamespace(stop=stop or stops.append, stop_reason=lambda: stops[0] if stops else None)
    return signals


def test_a_signal_that_comes_twice_at_once_is_one(ended, monkeypatch):
    stops, now_s = [], [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    signals = made(stops)
    signals._stop(signal.SIGTERM, None)
    now_s[0] += SAME_SIGNAL_S / 2
    signals._stop(signal.SIGTERM, None)
    assert stops == ["SIGTERM"] and not ended
    now_s[0] += SAME_SIGNAL_S
    signals._stop(signal.SIGINT, None)
    assert ended == [EXIT_INTERRUPTED]


def test_a_signal_while_the_first_is_written_down_does_no_harm(ended):
    stops = []

    def stop(reason):
        signals._stop(signal.SIGINT, None)  # the stop file is not there yet
        stops.append(reason)

    signals = made(stops, stop)
    signals._stop(signal.SIGINT, None)
    assert stops == ["SIGINT"] and not ended


def test_a_signal_after_wfc_stop_ends_the_process(ended):
    made(["wfc stop"])._stop(signal.SIGTERM, None)
    assert ended == [EXIT_INTERRUPTED]


def test_before_a_run_is_opened_there_is_nothing_to_checkpoint():
    with pytest.raises(Interrupted, match="SIGUSR1 before anything was started"):
        StopOnSignal(SimpleNamespace())._stop(signal.SIGUSR1, None)
