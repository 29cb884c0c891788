"""Which results come after their base was made without them, and which of these no later round takes."""

from pathlib import Path

from wfc_dist.runs.late_results import is_late, no_use_of
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable


def commit(paths: RunPaths, index: int, *datasets: str) -> None:
    staged = durable.staging_path(paths.base(index), 1)
    durable.commit_folder(staged, paths.base(index), {"sha256": str(index), "adapters": dict.fromkeys(datasets, "s")})


def test_a_late_result_is_of_use_until_a_base_has_learned_its_data_set(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert not is_late(paths, 1, "c"), "the round has no base yet"
    commit(paths, 1, "a", "b")
    assert is_late(paths, 1, "c") and not is_late(paths, 1, "a")
    assert no_use_of(paths, "next_round", 1, "c") is None
    assert "set centralize.late: next_round" in (no_use_of(paths, "never", 1, "c") or "")
    commit(paths, 2, "d")
    assert no_use_of(paths, "next_round", 1, "c") is None
    commit(paths, 3, "e", "c")
    assert no_use_of(paths, "next_round", 1, "c") == "base 1 was made without c and stays so, and base 3 has learned c since"
