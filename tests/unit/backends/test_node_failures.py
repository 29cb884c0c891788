"""What is said when no node is left: each with its reason, and what may help."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from wfc_dist.backends.node_failures import NodeFailures
from wfc_dist.config import loading
from wfc_dist.errors import GangFailedError, Interrupted
from wfc_dist.progress import Display
from wfc_dist.runs.opening import opened_for_writing

SLOW = "not ready within cluster.start_timeout_s = 300 s"


@pytest.fixture
def failures(tmp_path: Path) -> Iterator[NodeFailures]:
    tree = {"run": {"name": "r", "dir": str(tmp_path)}, "base": {"model": "m"}, "rounds": [["a"]],
            "datasets": {"a": {"source": "a", "splits": {"train": "t"}}}}  # fmt: skip
    with opened_for_writing(loading.parse(tree), {"a/train": "1"}) as store:
        yield NodeFailures(store, Display(plain=True))


@pytest.mark.parametrize(
    ("has_worked", "reason", "error"),
    [
        (False, "no such module", GangFailedError("node1: no such module. Repair a node, then run the same command")),
        (
            False,
            SLOW,
            GangFailedError(f"node1: {SLOW}. Repair a node, or raise cluster.start_timeout_s if it is only slow, then"),
        ),
        (True, "no such module", Interrupted("node1: no such module. The same command goes on")),
        (True, SLOW, Interrupted(f"node1: {SLOW}. The same command goes on; raise cluster.start_timeout_s if it is only slow")),
    ],
)
def test_a_start_that_took_too_long_points_at_its_limit(
    failures: NodeFailures, has_worked: bool, reason: str, error: GangFailedError | Interrupted
) -> None:
    assert failures.none_left({}) is None
    failures.has_worked = has_worked
    failures.failed("node1", reason, at_start=True, at_once=True)
    said = failures.none_left({})
    assert type(said) is type(error) and error.message in said.message
    assert ("raise" in said.message) == (reason == SLOW)
