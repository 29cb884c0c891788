"""What `wfc run` records of an attempt, before any part is started."""

import pytest

from wfc_dist.coordinator.run import launched_by


def test_the_scheduler_of_an_attempt_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    assert launched_by() == {}
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert launched_by() == {"slurm_job_id": "17"}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"metadata": {"job_submission_id": "my-run-1"}}')
    assert launched_by() == {"slurm_job_id": "17", "ray_job_id": "my-run-1"}
