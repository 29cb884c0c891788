"""What grows is told from what is flat."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import soak


def samples(num_rounds: int) -> list[soak.Sample]:
    """A coordinator that grows by half a megabyte a round, trainers that jump to and fro around 800 MB, a flat rest."""
    return [
        soak.Sample(
            index, 2.0 * index, {"coordinator": 400 + index / 2, "trainers": 800 + 50 * (-1) ** index}, {"coordinator": 36},
            {"coordinator": 26}, 11, 0, 1_000_000 * index, 500_000,
        )
        for index in range(1, num_rounds + 1)
    ]  # fmt: skip


def test_growth_is_by_round_and_medians_hide_the_noise() -> None:
    rows = {row["measure"]: row for row in soak.growth(samples(100))}

    assert rows["coordinator, MB"]["per_round"] == pytest.approx(0.5)
    assert rows["trainers, MB"]["per_round"] == pytest.approx(0, abs=0.01)
    assert rows["coordinator, files"] == {"measure": "coordinator, files", "at_first": 36, "at_last": 36, "per_round": 0}
    assert rows["run directory, MB"]["per_round"] == pytest.approx(1)
    assert rows["a round, seconds"]["at_last"] == 2


def test_processes_have_roles_by_their_commands() -> None:
    commands = (["ray::WorkerActor.score"], ["/x/raylet/raylet", "--a"], ["/y/gcs_server"], ["python", "agent.py"], [])

    assert [soak.role_of(words) for words in commands] == ["trainers", "raylet and store", "gcs", soak.OTHER, soak.OTHER]


def test_the_plot_has_every_role(tmp_path: Path) -> None:
    soak.plot(samples(30), tmp_path / "soak.svg")

    text = (tmp_path / "soak.svg").read_text()
    assert text.startswith("<svg") and all(f">{role}<" in text for role in (soak.COORDINATOR, *soak.ROLES.values(), soak.OTHER))
