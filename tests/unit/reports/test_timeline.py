"""Where the time went, from events files as the processes write them."""

import json
from pathlib import Path

import pytest

from wfc_dist import log
from wfc_dist.reports.timeline import IDLE, OTHER, Span, Timeline, read_attempts, time_by_phase


def write_events(
    run_dir: Path, process: str, events: list[tuple[float, str, dict]], round_index: int = 1, attempt: int = 1
) -> None:
    folder = run_dir / f"round-{round_index:04d}" / "logs" / f"attempt-{attempt}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"time_s": 1000 + time_s, "event": event, **facts}) + "\n" for time_s, event, facts in events]
    (folder / f"events-{process}.jsonl").write_text("".join(lines))


def test_spans_count_from_the_first_event_of_their_attempt(tmp_path: Path) -> None:
    write_events(tmp_path, "coordinator", [(0, "factorize.start", {"round": 1}), (9, "factorize.end", {"round": 1})])
    write_events(tmp_path, "gang-0-rank-0", [(2, "train.start", {"dataset": "a"}), (3, "first_step", {"dataset": "a"}),
                                             (8, "train.end", {"dataset": "a"})])  # fmt: skip
    write_events(
        tmp_path, "coordinator", [(50, "score.start", {"base_index": 1}), (51, "score.end", {"base_index": 1})], attempt=2
    )

    assert read_attempts(tmp_path) == {
        1: Timeline(
            [
                Span("coordinator", "factorize", 0, 9, "round 1", "waiting for trainers"),
                Span("gang-0-rank-0", "train", 2, 8, "a", "training"),
                Span("gang-0-rank-0", "first_step", 3, 3, "a"),
            ]
        ),
        2: Timeline([Span("coordinator", "score", 0, 1, "base 1", "scoring")]),
    }


def test_a_span_without_an_end_lasts_until_its_process_was_last_heard_of(tmp_path: Path) -> None:
    write_events(tmp_path, "gang-0-rank-0", [(0, "train.start", {}), (4, "checkpoint.start", {}), (5, "checkpoint.end", {})])

    spans = read_attempts(tmp_path)[1].spans

    assert [(span.name, span.start_s, span.end_s) for span in spans] == [("train", 0, 5), ("checkpoint", 4, 5)]


def test_the_time_of_a_process_is_shared_out_without_gap_or_overlap() -> None:
    spans = [
        Span("p", "load_base", 1, 3, phase="loading"), Span("p", "train", 4, 14, phase="training"),
        Span("p", "dev", 6, 8, phase="dev"), Span("p", "checkpoint", 7, 9, phase="checkpoint"),
        Span("p", "publish_checkpoint", 10, 15, phase="recording", beside=True),
    ]  # fmt: skip

    seconds = time_by_phase(spans, 0, 20)

    assert seconds == {IDLE: 1 + 1 + 5, "loading": 2, "training": 2 + 5, "dev": 1, "checkpoint": 2, "recording": 1}
    assert sum(time_by_phase(spans, 2, 7.5).values()) == pytest.approx(5.5)


def test_turnaround_is_from_the_last_adapter_to_the_next_rounds_first_step_without_scoring() -> None:
    spans = [
        Span("g0", "train", 0, 10), Span("g0", "first_step", 1, 1), Span("g1", "train", 0, 12), Span("g1", "first_step", 1, 1),
        Span("c", "commit_base", 13, 14), Span("c", "score", 14, 20), Span("g0", "train", 21, 30),
        Span("g0", "first_step", 22, 22),
        Span("g1", "train", 21.5, 30), Span("g1", "first_step", 23, 23),
    ]  # fmt: skip

    assert Timeline(spans).turnarounds() == [22 - 12 - 6]
    assert Timeline([span for span in spans if span.name != "commit_base"]).turnarounds() == []


def test_the_time_of_a_span_is_booked_on_the_phase_it_was_opened_with(tmp_path: Path) -> None:
    events = tmp_path / "round-0001" / "logs" / "attempt-1" / "events-p.jsonl"
    log.open_events(events)
    with log.span("anything", phase="curvature", dataset="a"), log.span("write", phase="checkpoint", beside=True):
        pass
    log.open_events(tmp_path / "elsewhere")  # events are this process's

    spans = read_attempts(tmp_path)[1].spans

    assert [(span.name, span.phase, span.beside) for span in spans] == [
        ("anything", "curvature", False), ("write", "checkpoint", True),
    ]  # fmt: skip


def test_files_without_phases_are_read_and_no_span_of_theirs_is_idle(tmp_path: Path) -> None:
    names = ["curvature", "fit", "write_checkpoint", "of_another_version"]
    moments = [(place, f"{name}.{moment}", {}) for number, name in enumerate(names)
               for place, moment in ((number, "start"), (number + 1, "end"))]  # fmt: skip
    write_events(tmp_path, "coordinator", moments)

    assert read_attempts(tmp_path)[1].seconds("coordinator") == {"curvature": 1, "fitting": 1, "checkpoint": 1, OTHER: 1}


def test_an_attempt_whose_events_are_all_damaged_is_left_out(tmp_path: Path) -> None:
    write_events(tmp_path, "coordinator", [(0, "factorize.start", {"round": 1}), (9, "factorize.end", {"round": 1})])
    write_events(tmp_path, "coordinator", [(0, "factorize.start", {"round": 1})], attempt=2)
    (tmp_path / "round-0001" / "logs" / "attempt-2" / "events-coordinator.jsonl").write_text("{torn\n")

    assert list(read_attempts(tmp_path)) == [1]
