"""The real coordinator on simulated machines, some of which are bad (benchmarks/simulated_ray.py): one costs one."""

import json
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[4]
sys.path.append(str(REPO / "benchmarks"))

import scale  # noqa: E402
from simulated_ray import START_S, SimulatedRay  # noqa: E402

from wfc_dist.config.schema import Config  # noqa: E402
from wfc_dist.errors import GangFailedError  # noqa: E402
from wfc_dist.runs.layout import RunPaths  # noqa: E402
from wfc_dist.runs.opening import opened_for_writing  # noqa: E402

BAD = "node00001"
REASON = "ImportError: libcudart.so.12: not found"


def simulate(config: Config, ray: SimulatedRay) -> str:
    with opened_for_writing(config, {f"{name}/train": "0" for name in config.datasets}) as store:
        return scale.run_all(store, ray).sha256


def ledger(config: Config, *events: str) -> list[dict]:
    lines = [json.loads(line) for line in RunPaths(config.run_dir()).ledger.read_text().splitlines()]
    return [line for line in lines if line["event"] in events]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    return simulate(scale.make_config(tmp_path_factory.mktemp("good"), 4, 24, 8), SimulatedRay(4, scale.train_s))


def test_a_node_on_which_every_start_fails_costs_one_node(tmp_path: Path, expected: str) -> None:
    config, ray = scale.make_config(tmp_path, 4, 24, 8), SimulatedRay(4, scale.train_s, broken=[BAD])
    assert simulate(config, ray) == expected
    (first, *again) = ledger(config, "node_left_out")
    assert (first["node"], first["reason"]) == (BAD, REASON) and first["until"] and {line["node"] for line in again} <= {BAD}
    assert ledger(config, "failure") == [], "no adapter has failed"
    assert ray.starts[BAD] <= 2 + ray.now_s / config.cluster.node_rest_s
    assert {name: number for name, number in ray.starts.items() if name != BAD} == {f"node{i:05d}": 1 for i in (0, 2, 3)}


def test_when_every_node_is_left_out_each_is_named(tmp_path: Path) -> None:
    config, ray = scale.make_config(tmp_path, 2, 4, 4), SimulatedRay(2, scale.train_s, broken=["node00000", BAD])
    with pytest.raises(GangFailedError, match=f"no node is left .*node00000: {REASON}; {BAD}: {REASON}. Repair a node"):
        simulate(config, ray)
    assert dict(ray.starts) == {"node00000": 2, BAD: 2}


def test_a_node_that_does_not_answer_gets_no_replacement_though_it_is_listed(tmp_path: Path, expected: str) -> None:
    config = scale.make_config(tmp_path, 4, 24, 8)
    ray = SimulatedRay(4, scale.train_s, silent={BAD: 3 * START_S})
    assert simulate(config, ray) == expected
    assert ray.starts[BAD] == 1
    (failure,) = ledger(config, "failure")
    assert (failure["host"], failure["kind"], failure["decision"]) == (BAD, "lost with its node", "restart")
    (line,) = ledger(config, "node_left_out")
    assert line["node"] == BAD and "Ray lists it, but it does not answer" in line["reason"]
