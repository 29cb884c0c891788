"""What a signal does to a run: the first asks for a stop, the same once more changes nothing, a later one ends the process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import scored_runs

from wfc_dist.caller import handled
from wfc_dist.coordinator.signals import SAME_SIGNAL_S, SignalsSoFar, StopOnSignal
from wfc_dist.errors import EXIT_INTERRUPTED, Interrupted


def quiet() -> StopOnSignal:
    return StopOnSignal(SimpleNamespace(say=lambda _: None))


def test_a_signal_that_comes_twice_at_once_is_one(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    so_far = SignalsSoFar()
    assert so_far.kind(lambda: False) == "first"
    assert so_far.kind(lambda: False) == "same", "the stop file is not there yet"
    now_s[0] += SAME_SIGNAL_S / 2
    assert so_far.kind(lambda: True) == "same"
    now_s[0] += SAME_SIGNAL_S
    assert so_far.kind(lambda: True) == "later"


def test_a_signal_after_wfc_stop_is_a_later_one():
    assert SignalsSoFar().kind(lambda: True) == "later"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_writes_the_stop_file_even_if_nothing_can_be_said(number):
    def say(_):
        raise BrokenPipeError

    stopped, asked = threading.Event(), []
    store = SimpleNamespace(
        stop=lambda reason: (asked.append(reason), stopped.set()),
        stop_reason=lambda: asked[0] if asked else None,
        config=SimpleNamespace(cluster=SimpleNamespace(backend="in_process", start_timeout_s=300)),
    )
    with StopOnSignal(SimpleNamespace(say=say)).caught() as signals, signals.stopping(store):
        os.kill(os.getpid(), number)
        assert stopped.wait(60)
    assert asked == [number.name]


def test_before_a_run_is_opened_there_is_nothing_to_checkpoint():
    with pytest.raises(Interrupted, match="SIGUSR1 before anything was started"), quiet().caught():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(60)  # until the handler raises


def test_a_signal_that_comes_while_a_run_is_opened_is_not_lost():
    signals = quiet()
    signals._take(signal.SIGTERM)  # the listener is faster than the main thread
    with pytest.raises(Interrupted, match="before anything was started"), signals.stopping(SimpleNamespace()):
        pytest.fail("the run was begun")


def test_a_hangup_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled(lambda number, frame: None):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_signals_that_a_parent_has_blocked_are_let_through():
    came, before = [], signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        with handled(lambda number, frame: came.append(number)):
            os.kill(os.getpid(), signal.SIGUSR2)
            while not came:
                time.sleep(0.01)
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


DEAF = """
import ctypes, sys, threading
from pathlib import Path
import scored_runs
from wfc_dist.coordinator import signals
from wfc_dist.progress import Display
from wfc_dist.runs.opening import opened_for_writing

signals.DEAF_S = float(sys.argv[2])
config = scored_runs.make_config(Path(sys.argv[1]))
caught = signals.StopOnSignal(Display(plain=True))
with caught.caught(), opened_for_writing(config, {}) as store, caught.stopping(store):
    store.status.write("running")
    Path(sys.argv[1], "ready").touch()
    mutex, pthread = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    pthread.pthread_mutex_lock(mutex)
    pthread.pthread_mutex_lock(mutex)  # never returns, and no signal interrupts it: a call of Ray on a raylet that hangs
"""


@pytest.mark.process
@pytest.mark.parametrize(("deaf_s", "num_signals"), [(0.5, 1), (600, 2)], ids=["one signal", "two signals"])
def test_a_program_that_is_deaf_ends_all_the_same_and_its_status_is_right(
    tmp_path: Path, deaf_s: float, num_signals: int
) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", DEAF, str(tmp_path), str(deaf_s)], env=environment)
    try:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.05)
        for _ in range(num_signals):
            process.send_signal(signal.SIGTERM)
            time.sleep(1.5 * SAME_SIGNAL_S)
        assert process.wait(60) == EXIT_INTERRUPTED
    finally:
        process.kill()
    run_dir = scored_runs.make_config(tmp_path).run_dir()
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", EXIT_INTERRUPTED)
    assert "the same command goes on" in status["message"] and (run_dir / "stop").read_text() == "SIGTERM\n"
    assert '"event": "stopped"' in (run_dir / "ledger.jsonl").read_text()
