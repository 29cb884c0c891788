"""Which nodes may be used, and the words for those that may not."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from wfc_dist.backends import net
from wfc_dist.backends.ray.admission import NodeFacts, place_marker, refusal, versions
from wfc_dist.backends.ray.cluster import connected
from wfc_dist.config.schema import ClusterConfig
from wfc_dist.errors import ConfigError

HERE = {"python": "3.11.7", "torch": "2.13.0"}
GOOD = NodeFacts("node1", "10.0.0.1", "eth0", HERE, "token", True)


def test_a_node_that_sees_everything_is_used() -> None:
    assert refusal(GOOD, "token", HERE, Path("runs/x"), "/models/m") is None
    assert refusal(replace(GOOD, marker=None), None, HERE, Path("runs/x"), "") is None, "on object storage there is no marker"


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(GOOD, marker=None), "does not see the run directory /"),
        (replace(GOOD, marker="another"), "does not see the run directory /"),
        (replace(GOOD, root=False), "does not see the root model /models/m"),
        (replace(GOOD, versions={**HERE, "torch": "2.12.1"}), "runs other versions: torch 2.12.1 (here 2.13.0)"),
    ],
)
def test_a_node_that_does_not_is_refused_with_the_reason(facts: NodeFacts, said: str) -> None:
    why = refusal(facts, "token", HERE, Path("runs/x"), "/models/m")
    assert why is not None and said in why


def test_every_marker_is_another(tmp_path: Path) -> None:
    first = place_marker(tmp_path / ".shared")
    second = place_marker(tmp_path / ".shared")
    assert first != second and (tmp_path / ".shared").read_text() == second


def test_versions_name_what_makes_the_bytes() -> None:
    assert {"python", "torch", "transformers", "peft"} <= versions().keys()
    assert "+" not in versions()["torch"]


def test_the_interface_of_an_address() -> None:
    assert net.interface_of("127.0.0.1") == "lo"
    assert net.interface_of("203.0.113.77") is None


def test_the_users_choice_of_an_interface_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    assert net.choose_interface("127.0.0.1") == "ib0"


def test_an_address_nobody_answers_is_refused_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with (
        pytest.raises(ConfigError, match=f"no Ray cluster answers at cluster.address {address}"),
        connected(ClusterConfig(address=address)),
    ):
        pass


def test_ray_client_addresses_are_refused_with_the_other_way() -> None:
    with pytest.raises(ConfigError, match="ray job submit"), connected(ClusterConfig(address="ray://head:10001")):
        pass
