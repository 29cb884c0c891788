"""What a process says of its own work."""

import threading
import time

import pytest

from wfc_dist import activity


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [100.0]
    monkeypatch.setattr(activity, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now_s[0])}))
    monkeypatch.setattr(activity, "_here", activity._Here())
    return now_s


def test_moves_make_the_work_young_and_its_slowest_step_is_kept(clock: list[float]) -> None:
    activity.begin("a", step=4)
    clock[0] += 50
    activity.moved(step=5)
    assert (activity.now().idle_s, activity.now().slowest_s) == (0.0, 0.0), "what comes before the first step is no step"
    clock[0] += 7
    activity.moved(step=6)
    clock[0] += 3
    said = activity.now()
    assert (said.step, said.idle_s, said.slowest_s, said.is_steady) == (6, 3.0, 7.0, True)
    activity.begin()
    assert activity.now().slowest_s == 0.0 and not activity.now().is_steady


def test_the_innermost_work_is_named(clock: list[float]) -> None:
    with activity.doing("train"):
        with activity.doing("checkpoint"):
            assert activity.now().doing == "checkpoint"
        clock[0] += 1
        assert (activity.now().doing, activity.now().idle_s) == ("train", 1.0)
    assert activity.now().doing == ""


def test_the_file_that_is_read_for_longest_is_named(clock: list[float]) -> None:
    with activity.reading("a.wav"):
        clock[0] += 5
        with activity.reading("b.wav"):
            clock[0] += 1
            assert (activity.now().reading, activity.now().reading_s) == ("a.wav", 6.0)
        assert activity.now().idle_s == 0.0, "a file that was read is a move"
    assert activity.now().reading == ""


def test_a_file_that_another_thread_reads_is_named_too() -> None:
    entered, leave = threading.Event(), threading.Event()

    def read() -> None:
        with activity.reading("stuck.wav"):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=read)
    thread.start()
    entered.wait(30)
    try:
        assert activity.now().reading == "stuck.wav"
    finally:
        leave.set()
        thread.join()
    assert activity.now().reading == "" and time.monotonic() > 0


def test_what_has_a_limit_of_its_own_does_not_count(clock: list[float]) -> None:
    with activity.excused():
        clock[0] += 1000
        assert activity.now().idle_s == 0.0
    assert activity.now().idle_s == 0.0
