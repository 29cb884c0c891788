"""What `wfc plan` says of a running cluster."""

import io

import pytest
from rich.console import Console

from wfc_dist.backends.ray.live_plan import LivePlan, plan_on
from wfc_dist.backends.ray.placement import Node
from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError
from wfc_dist.reports.plan import live_table

SPLITS = {"train": "train.jsonl"}
NODES = [Node("1", "node1", 8, 2, "10.0.0.1"), Node("2", "node2", 8, 2, "10.0.0.2"), Node("3", "node3", 2, 0, "10.0.0.3")]
FREE = {"1": (8.0, 2.0), "2": (1.0, 0.0), "3": (2.0, 0.0)}


def make_config(**cluster: object) -> Config:
    return loading.parse(
        {
            "run": {"name": "x"},
            "base": {"model": "org/model"},
            "datasets": {name: {"source": name, "splits": SPLITS} for name in "abc"},
            "rounds": [["a", "b", "c"]],
            "cluster": {"address": "auto", **cluster},
        }
    )


def shown(plan: LivePlan, config: Config) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(live_table(plan, config, {"a": 1.0, "b": 3.0, "c": 2.0}))
    return console.export_text()


def test_only_what_is_free_is_planned_on() -> None:
    config = make_config(cpus_per_worker=2, gpus_per_worker=1)
    plan = plan_on(NODES, FREE, {}, config)
    assert plan.gangs == [["node1"], ["node1"]]
    assert [row.note for row in plan.nodes] == ["", "taken by others now", "too small for one worker"]
    assert [row.num_workers for row in plan.nodes] == [2, 0, 0]


def test_the_table_shows_the_queue_longest_first() -> None:
    config = make_config(cpus_per_worker=2, gpus_per_worker=1)
    text = shown(plan_on(NODES, FREE, {}, config), config)
    lines = [line.replace("│", " ").replace("┃", " ").split() for line in text.splitlines()]
    assert ["1", "b", "0", "node1"] in lines and ["1", "c", "1", "node1"] in lines
    assert ["1", "a", "the", "first", "that", "is", "free", "queued"] in lines


def test_what_is_missing_or_refused_is_said() -> None:
    config = make_config(wait_for_nodes=4)
    plan = plan_on(NODES, FREE, {"3": "node3 (10.0.0.3) does not see the run directory"}, config)
    text = shown(plan, config)
    assert "nodes that have not joined: 1 more" in text
    assert "not used: node3 (10.0.0.3) does not see the run directory" in text


def test_what_can_never_fit_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no trainer fits"):
        plan_on(NODES, FREE, {}, make_config(workers_per_trainer=5, gpus_per_worker=1))


def test_a_full_cluster_is_not_an_error() -> None:
    config = make_config()
    plan = plan_on(NODES, dict.fromkeys(FREE, (0.0, 0.0)), {}, config)
    assert plan.gangs == [] and "the run would wait" in shown(plan, config)
