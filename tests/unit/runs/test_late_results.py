"""Which data sets a later round folds in, and why a result that comes after its base is of no use."""

from pathlib import Path
from typing import Any

import pytest

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.runs.late_results import awaited, is_late, no_use_of
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable

ROUNDS = [["a", "b", "c"], ["d"], ["e", "b"], ["f"]]
FAILED, GATED = "InputError: no audio", "GateError: with it, the update is too large"


def config(late: str = "next_round") -> Config:
    tree = {
        "run": {"name": "r"},
        "base": {"model": "m"},
        "datasets": {name: {"source": name, "splits": {"train": "t"}} for names in ROUNDS for name in names},
        "rounds": ROUNDS,
        "centralize": {"quorum": 1, "late": late},
    }
    return loading.parse(tree)


def base(index: int, *adapters: str, **missing: str) -> dict[str, Any]:
    return {"event": "base", "round": index, "adapters": dict.fromkeys(adapters, "s"), "missing": missing}


def test_a_base_may_be_made_without_a_data_set(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert not is_late(paths, 1, "c"), "the round has no base yet"
    staged = durable.staging_path(paths.base(1), 1)
    durable.commit_folder(staged, paths.base(1), {"sha256": "1", "adapters": {"a": "s", "b": "s"}})
    assert is_late(paths, 1, "c") and not is_late(paths, 1, "a")


def test_what_is_late_is_awaited_until_it_is_learned_turned_away_or_named_and_never_after_the_last_round() -> None:
    lines = [base(0), base(1, "a", b=FAILED, c=FAILED)]
    assert awaited(config(), lines, 0) == {} and awaited(config("never"), lines, 1) == {}
    assert awaited(config(), lines, 1) == {"b": 1, "c": 1}
    assert awaited(config(), [*lines, base(2, "d", "c")], 2) == {}, "c is learned, and round 3 names b"
    assert awaited(config(), [*lines, base(2, "d", c=GATED)], 2) == {}, "the gate has the last word on a late adapter, too"
    later = [*lines, base(2, "d"), base(3, "e", b=FAILED)]
    assert awaited(config(), later, 3) == {"b": 3, "c": 1}
    assert awaited(config(), [*later, base(4, "f")], 4) == {}


@pytest.mark.parametrize(
    ("late", "later", "why"),
    [
        ("never", [], "; name c in a later round, or set centralize.late: next_round"),
        ("next_round", [], None),
        ("next_round", [base(2, "d")], None),
        ("next_round", [base(2, "d", "c")], ", and base 2 has learned c since"),
        ("next_round", [base(2, "d", c=GATED)], ", and no later round folds it in"),
        ("next_round", [base(2, "d"), base(3, "e"), base(4, "f")], ", and no later round folds it in"),
    ],
)
def test_a_late_result_is_of_use_while_it_is_awaited(late: str, later: list[dict[str, Any]], why: str | None) -> None:
    said = no_use_of(config(late), [base(1, "a", "b", c=FAILED), *later], 1, "c")
    assert said == (why and f"base 1 was made without c and stays so{why}")
