"""The short form of `make chaos`: a few random faults, each of which ends in the bytes of a run without it.

The faults of this seed stop and kill processes; what becomes of each damaged file is in test_damage.py.
"""

import chaos
import pytest


@pytest.mark.slow
def test_random_faults_end_in_the_same_bytes() -> None:
    results = list(chaos.faults(5, seed=6, backend="in_process"))
    assert [(result.kind, result.target, result.outcome) for result in results if result.outcome != "same bytes"] == []
    assert len(results) == 5


def test_the_table_counts_kinds_and_outcomes() -> None:
    lost = [chaos.Result("kill", "same bytes", "3 processes", seconds) for seconds in (1.0, 5.0, 2.0)]
    rows = chaos.table([*lost, chaos.Result("damage", "damage left (base-0001)", "flip x", 9.0)]).splitlines()
    assert rows[2:] == ["| damage | damage left | 1 | 9.0 |", "| kill | same bytes | 3 | 2.0 |"]
