"""Free ports, and the network interface that process groups use."""

import os
import socket

import psutil


def free_port(host: str = "") -> int:
    """Returns a TCP port that is free on `host` at the time of the call."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def interface_of(ip: str) -> str | None:
    """Returns the name of the network interface that has the address `ip`, such as eth0; None when there is none."""
    interfaces = psutil.net_if_addrs()
    return next((name for name, addresses in interfaces.items() if ip in {entry.address for entry in addresses}), None)


def choose_interface(ip: str) -> str:
    """Makes gloo and NCCL use the interface of `ip`, unless the user has chosen one; returns its name.

    By default gloo takes the interface of the host name's address, which on many clusters is loopback or the slow network.
    Sets GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.
    """
    name = interface_of(ip)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name else ():
        os.environ.setdefault(variable, str(name))
    return os.environ.get("GLOO_SOCKET_IFNAME", name or "?")
