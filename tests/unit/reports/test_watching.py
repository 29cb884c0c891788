"""`wfc status --watch`: what is shown while a run works, and when it ends."""

import io
import json
from pathlib import Path

import jsonschema
import pytest
import scored_runs
from rich.console import Console

from wfc_dist.errors import WfcError
from wfc_dist.reports import as_json
from wfc_dist.reports.watching import watch_run
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import locked
from wfc_dist.storage import durable

TRAINING = {"dataset": "cs", "step": 5, "max_steps": 10, "loss": float("nan"), "host": "h", "left_s": None}
PROGRESS = {"what": "round 1: training 2 adapters", "done": 5, "total": 20, "unit": "steps", "left_s": 90.0, "time_s": 1.0,
            "trainings": [TRAINING]}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return scored_runs.make_run(tmp_path, scored_runs.make_config(tmp_path))


def stands(run_dir: Path, state: str) -> None:
    durable.write_json(run_dir / "status.json", {"state": state, "message": "m", "attempt": 1, "exit_code": None})


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("end", ["done", "failed", "interrupted"])
def test_it_shows_progress_until_the_run_ends(run_dir: Path, end: str, terminal: bool) -> None:
    (run_dir / "progress.json").write_text(json.dumps(PROGRESS))
    looks = iter(["new", "running", "running", end])
    console = Console(file=io.StringIO(), width=160, force_terminal=terminal)

    def look() -> Run:
        stands(run_dir, next(looks))
        return Run(run_dir)

    with locked(RunPaths(run_dir)):
        watch_run(look, console, every_s=0.0)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "round 1: training 2 adapters: 25 % of 20 steps, about 2 min left" in text and "cs on h: 50 % of 10 steps" in text
    assert end in text and list(looks) == []
    assert terminal or text.count("25 % of 20") == 1  # a line is said once


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("state", ["new", "running"])
def test_a_run_that_nobody_holds_is_left_with_what_to_do(run_dir: Path, state: str, terminal: bool) -> None:
    stands(run_dir, state)
    console = Console(file=io.StringIO(), width=160, force_terminal=terminal)
    with pytest.raises(WfcError, match=f"attempt 1 is {state} by its records, but its process is gone: .* `wfc run` goes on"):
        watch_run(lambda: Run(run_dir), console, every_s=0.0)


def test_ctrl_c_leaves(run_dir: Path) -> None:
    looks = iter([Run(run_dir)])

    def look() -> Run:
        for run in looks:
            return run
        raise KeyboardInterrupt

    watch_run(look, Console(file=io.StringIO()), every_s=0.0)


@pytest.mark.parametrize(
    ("state", "text", "shown"),
    [
        ("running", json.dumps(PROGRESS), True),
        ("done", json.dumps(PROGRESS), False),
        ("running", "{}", False),
        ("running", "{", False),
    ],
)
def test_progress_in_json_is_that_of_a_running_run(run_dir: Path, state: str, text: str, shown: bool) -> None:
    stands(run_dir, state)
    (run_dir / "progress.json").write_text(text)
    tree = json.loads(as_json.text_of(as_json.status_json(Run(run_dir))))
    jsonschema.validate(tree, as_json.schema_of("status"))
    assert (tree["progress"] is not None) == shown
    assert not shown or tree["progress"]["trainings"][0]["loss"] is None
