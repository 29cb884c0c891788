"""What `wfc run` records of an attempt, and whom it tells, without any part that computes."""

import contextlib
import sys
from pathlib import Path

import pytest
import scored_runs

from wfc_dist.centralize.apply import num_threads
from wfc_dist.config import loading
from wfc_dist.coordinator import run as run_module
from wfc_dist.coordinator.checks import Checked
from wfc_dist.coordinator.run import all_rounds, launched_by
from wfc_dist.errors import Interrupted, TrainingError, WfcError
from wfc_dist.progress import Display
from wfc_dist.rounds import Base
from wfc_dist.runs.handle import Run
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.store import RunStore


def test_the_scheduler_of_an_attempt_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    assert launched_by() == {}
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert launched_by() == {"slurm_job_id": "17"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "my-run-1"}}')
    assert launched_by() == {"slurm_job_id": "17", "ray_job_id": "my-run-1"}


@pytest.mark.parametrize("left_over", ["{", "[]", '{"metadata": null}', '{"metadata": "job_submission_id"}', ""])
def test_what_others_leave_in_the_environment_ends_no_attempt(monkeypatch: pytest.MonkeyPatch, left_over: str) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", left_over)
    assert "ray_job_id" not in launched_by()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", left_over)
    assert num_threads() >= 1
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "0")
    assert num_threads() == 1


ENDS = {
    "done": (lambda: Base(1, "b", "f" * 64), 0),
    "failed": (lambda: throw(TrainingError("no luck")), 1),
    "stopped": (lambda: throw(Interrupted("asked to")), 75),
}


def throw(error: Exception) -> Base:
    raise error


@pytest.mark.process
@pytest.mark.parametrize("state", ENDS)
def test_an_attempt_keeps_its_progress_while_it_works_and_tells_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    ends, code = ENDS[state]
    script = (
        "import os; open(os.environ['WFC_RUN_DIR'] + '/told', 'a').write(os.environ['WFC_STATE'] + os.environ['WFC_EXIT_CODE'])"
    )
    tree = scored_runs.make_config(tmp_path).model_dump(mode="json")
    tree["run"]["notify"] = f'{sys.executable} -c "{script}"'
    config, display = loading.parse(tree), Display(plain=True)

    def opened(store: RunStore, *_: object) -> Base:
        with display.working("decoding", 2, "sets") as told:
            told(1)
            progress = Run(store.paths.run_dir).progress()
            assert progress is not None and (progress["what"], progress["total"]) == ("decoding", 2)
        assert Run(store.paths.run_dir).progress() is None
        return ends()

    monkeypatch.setattr(run_module, "_run_opened", opened)
    with opened_for_writing(config, {}) as store, contextlib.suppress(WfcError):
        run_module._run_locked(store, Checked({}, {}, {}), display, all_rounds)
    assert (config.run_dir() / "told").read_text() == f"{state}{code}", "once"
    assert not store.paths.progress.exists() and display.keep is None
