"""Which tests share a worker of pytest-xdist (`--dist loadgroup`), and in which order the workers take them: longest first."""

import pytest

ONE_WORKER = {"test_slurm_jobs": "slurm", "test_slurm_round": "slurm"}
"""Files that share what a session starts: one Slurm cluster."""
LONGEST_FIRST = (
    "test_slurm_jobs", "test_slurm_round", "test_ray_cluster", "test_kill_resume", "test_run_on_s3", "test_fitted_run",
    "test_ray_run", "test_stream_run", "test_training_options", "test_ray_on_s3", "test_compare_run", "test_benchmark_runs",
    "test_training_gang", "test_sweep_run", "test_gpu_benchmark", "test_commands", "test_centralize", "test_analyze",
)  # fmt: skip
"""A file that begins last and lasts long leaves the other workers idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts every file's tests into one group, and the groups in order; within a file the order stays."""
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
    for item in items:
        name = ONE_WORKER.get(item.path.stem, str(item.path))
        item.add_marker(pytest.mark.xdist_group(name))
