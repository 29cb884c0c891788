"""How many data sets a round needs, and what is raised when too many are missing."""

from pathlib import Path

import pytest

from wfc_dist.errors import GangFailedError, InputError, TrainingError
from wfc_dist.rounds import Adapter
from wfc_dist.runs.quarantine import Quarantine, num_needed
from wfc_dist.runs.records import Ledger
from wfc_dist.storage.mirror import NO_MIRROR


@pytest.mark.parametrize(
    ("quorum", "num_datasets", "needed"),
    [
        (None, 3, 3),
        (2, 3, 2),
        (5, 3, 3),
        (1, 1, 1),
        (0.5, 4, 2),
        (0.5, 5, 3),
        (0.01, 3, 1),
        (0.6, 5, 3),
        (0.7, 10, 7),
        (0.99, 3, 3),
    ],
)
def test_how_many_are_needed(quorum: float | None, num_datasets: int, needed: int) -> None:
    assert num_needed(quorum, num_datasets) == needed


def quarantine(tmp_path: Path, quorum: float | None) -> Quarantine:
    return Quarantine(Ledger(tmp_path / "ledger.jsonl", NO_MIRROR, 1), quorum)


def adapter(name: str) -> Adapter:
    return Adapter(name, name, name, "base", 1.0)


def test_the_error_of_the_missing_one_is_raised(tmp_path: Path) -> None:
    aside, error = quarantine(tmp_path, None), TrainingError("b diverged")
    aside.add(1, "b", error, "\x1b[36mTraceback\x1b[39m", "node1")
    with pytest.raises(TrainingError) as raised:
        aside.present(1, ["a", "b"], {"a": adapter("a")})
    assert raised.value is error and aside.holds(1, "b") and not aside.holds(2, "b")
    assert '"traceback": "Traceback"' in (tmp_path / "ledger.jsonl").read_text()
    aside.add(1, "a", InputError("a is gone"), "", "node1")
    with pytest.raises(InputError, match="a is gone; b diverged"):
        aside.present(1, ["a", "b"], {})


def test_a_quorum_keeps_the_order_and_says_who_is_missing(tmp_path: Path) -> None:
    aside = quarantine(tmp_path, 0.5)
    aside.add(1, "b", TrainingError("b diverged"), "", "node1")
    found = aside.present(1, ["a", "b", "c"], {"c": adapter("c"), "a": adapter("a")})
    assert [item.dataset for item in found] == ["a", "c"]
    assert aside.missing(1, ["a", "b", "c"], {"a": "1", "c": "2"}) == {"b": "TrainingError: b diverged"}


def test_a_late_data_set_is_tried_again_if_nothing_or_only_its_trainers_failed(tmp_path: Path) -> None:
    aside = quarantine(tmp_path, 2)
    aside.add(1, "a", TrainingError("loss nan"), "", "h")
    aside.add(1, "b", GangFailedError("lost"), "", "h")

    assert [aside.may_retry(1, name) for name in "abc"] == [False, True, True] and aside.may_retry(2, "a")
