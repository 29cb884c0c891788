"""The network interface that process groups use."""

import pytest

from wfc_dist.backends import net


def test_the_interface_of_an_address() -> None:
    assert net.interface_of("127.0.0.1") == "lo"
    assert net.interface_of("203.0.113.77") is None


def test_the_users_choice_of_an_interface_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    assert net.choose_interface("127.0.0.1") == "ib0"
