"""Progress: the time left, lines for logs, snapshots for who watches."""

import io
import time

import pytest
from rich.console import Console

from wfc_dist import progress
from wfc_dist.progress import Display, Pace, in_words
from wfc_dist.training.job import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def display(clock: list[float]) -> Display:
    shown = Display(plain=True)
    shown.console = Console(file=io.StringIO(), width=200)
    return shown


def printed(display: Display) -> list[str]:
    return display.console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_time_left_is_that_of_the_pace_since_the_first_report(clock: list[float]) -> None:
    pace = Pace()
    assert pace.left_s(50, 100) is None  # a resume begins at 50
    clock[0] += 10
    assert pace.left_s(60, 100) == pytest.approx(40)
    assert pace.left_s(100, 100) == 0
    assert pace.left_s(20, 100) is None  # a worker was lost, and its work with it
    clock[0] += 5
    assert pace.left_s(40, 100) == pytest.approx(15)


@pytest.mark.parametrize(
    ("left_s", "words"),
    [
        (None, ""),
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (3599, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (400_000, "111 h 07 min"),
    ],
)
def test_a_time_left_in_words(left_s: float | None, words: str) -> None:
    assert in_words(left_s) == words


def test_a_phase_says_now_and_then_how_far_it_is(display: Display, clock: list[float]) -> None:
    with display.working("decoding base-0001", 4, "sets") as told:
        for done in (0.5, 1.0, 1.5, 2.0, 4.0):
            clock[0] += 11
            told(done)
    assert [line.split("] ")[1] for line in printed(display)] == [
        "decoding base-0001: 25 % of 4 sets, about 66 s left",
        "decoding base-0001: 50 % of 4 sets, about 44 s left",
    ]


def test_snapshots_are_kept_every_few_seconds_and_an_empty_one_at_the_end(display: Display, clock: list[float]) -> None:
    kept: list[dict] = []
    display.keep = kept.append  # type: ignore[assignment]
    with display.working("decoding", 2, "sets") as told:
        told(0.1)
        clock[0] += 4
        told(1.0)
    assert [snapshot.get("done") for snapshot in kept] == [0.0, 1.0, None] and kept[-1] == {}
    assert kept[1]["left_s"] == pytest.approx(4.0) and kept[1]["total"] == 2 and abs(kept[1]["time_s"] - time.time()) < 60


def test_trainings_have_times_left_in_lines_and_in_snapshots(display: Display, clock: list[float]) -> None:
    kept: list[dict] = []
    display.keep = kept.append  # type: ignore[assignment]
    with display.training(1, ["a", "b"]):
        display.update("a", None, "h")
        for step in (1, 2, 3):
            display.update("a", Progress(step, 10, 0.5, 1e-3, 7.0, "train"), "h")
            clock[0] += 30
    assert "round 1 a: step 2/10 loss 0.500 7.0 s speech/s on h, about 4 min left" in printed(display)[-2]
    last = kept[-2]
    assert (last["what"], last["done"], last["total"]) == ("round 1: training 2 adapters", 3, 20)
    assert last["trainings"] == [{"dataset": "a", "step": 3, "max_steps": 10, "loss": 0.5, "host": "h", "left_s": 210.0}]
    assert kept[-1] == {}


def test_the_live_table_names_the_nodes_that_are_left_out(display: Display) -> None:
    display.left_out = {"node3": "ImportError: libcudart.so.12"}
    with display.training(1, ["a"]):
        shown = io.StringIO()
        Console(file=shown, width=100).print(display._table())
    assert "left out: node3: ImportError: libcudart.so.12" in shown.getvalue()
