"""A metrics log that grows, is cut by a resumed training, or ends in the middle of a row."""

import json
from pathlib import Path

from wfc_dist.tracking.tail import local
from wfc_dist.training import metrics_log


def steps(rows: list[dict]) -> list[int]:
    return [row["step"] for row in rows]


def test_each_row_comes_once(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    tail = local(path)
    assert tail.rows() == []
    for step in range(1, 40):
        metrics_log.append(path, step=step, loss=1 / step)
        assert tail.rows() == [{"step": step, "loss": 1 / step}]
    assert tail.rows() == []


def test_half_a_row_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    line, tail = json.dumps({"step": 2, "loss": 0.5}) + "\n", local(path)
    metrics_log.append(path, step=1, loss=0.7)
    with open(path, "a") as file:
        file.write(line[:9])
    assert steps(tail.rows()) == [1]
    with open(path, "a") as file:
        file.write(line[9:])
    assert tail.rows() == [{"step": 2, "loss": 0.5}]


def test_a_log_that_was_cut_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    tail = local(path)
    for step in range(1, 7):
        metrics_log.append(path, step=step, loss=0.5, step_s=1.0)
    assert steps(tail.rows()) == [1, 2, 3, 4, 5, 6]
    metrics_log.cut(path, 3, evaluated=False)
    assert steps(tail.rows()) == [1, 2, 3]
    for step in range(4, 9):  # the same length again, but for the time
        metrics_log.append(path, step=step, loss=0.5, step_s=2.0)
    assert steps(tail.rows()) == [4, 5, 6, 7, 8]


def test_a_log_that_was_cut_and_has_grown_since_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    tail = local(path)
    for step in range(1, 7):
        metrics_log.append(path, step=step, loss=0.5, step_s=1.0)
    tail.rows()
    metrics_log.cut(path, 4, evaluated=False)
    for step in range(5, 9):
        metrics_log.append(path, step=step, loss=0.5, step_s=2.0)
    assert steps(tail.rows()) == [1, 2, 3, 4, 5, 6, 7, 8]
