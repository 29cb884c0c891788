"""For all tests: each begins with fresh logging, and the workers of pytest-xdist take long files first."""

import logging

import pytest
from browser import browser, visit

__all__ = ["browser", "visit"]  # fixtures for every test

LONGEST_FIRST = (
    "test_kill_resume", "test_run_on_s3", "test_fitted_run", "test_ray_run", "test_stream_run",
    "test_training_options", "test_compare_run", "test_benchmark_runs", "test_soak", "test_training_gang",
    "test_sweep_run", "test_gpu_benchmark", "test_commands", "test_centralize", "test_analyze",
)  # fmt: skip
"""A file that begins last and lasts long leaves the other workers idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first; within a file the order stays."""
    rank = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Names bytes by their argument: workers that collect at other seconds must agree, and packed bytes may hold the time."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def fresh_logging() -> None:
    """Takes back what an entry point called by an earlier test of this process set up."""
    logging.disable(logging.NOTSET)
    logger = logging.getLogger("wfc_dist")
    logger.handlers = []
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "wfc_dist"]:
        mine = logging.getLogger(name)
        mine.disabled, mine.propagate = False, True
        mine.setLevel(logging.NOTSET)
