"""Connecting to a cluster, and which of its nodes are missing."""

import socket

import pytest

from wfc_dist.backends.ray.cluster import connected, missing_nodes
from wfc_dist.backends.ray.placement import Node
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import ConfigError


def test_missing_nodes_are_named() -> None:
    nodes = [Node("a", "node1.cluster", 1, 0, "10.0.0.1"), Node("b", "node2", 1, 0, "10.0.0.2")]
    assert missing_nodes(2, nodes) == ""
    assert missing_nodes(4, nodes) == "2 more"
    assert missing_nodes(["node1", "node2.other", "10.0.0.2"], nodes) == ""
    assert missing_nodes(["node1", "node3", "node4"], nodes) == "node3, node4"


@pytest.mark.process
def test_an_address_nobody_answers_is_refused_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"no Ray cluster answers at cluster.address {address}"),
        connected(ClusterConfig(address=address)),
    ):
        pass


@pytest.mark.process
def test_an_address_left_in_the_environment_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(ConfigError, match=r"RAY_ADDRESS=127\.0\.0\.1:1 of the environment \(unset it"),
        connected(ClusterConfig()),
    ):
        pass


def test_ray_client_addresses_are_refused_with_the_other_way() -> None:
    with pytest.raises(ConfigError, match="ray job submit"), connected(ClusterConfig(address="ray://head:10001")):
        pass
