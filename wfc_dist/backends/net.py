"""Free ports, and the network interface that process groups use."""

import os
import socket
import struct

_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


def free_port(host: str = "") -> int:
    """Returns a TCP port that is free on `host` at the time of the call."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def interface_of(ip: str) -> str | None:
    """Returns the name of the network interface that has the IPv4 address `ip`, such as eth0; None when there is none."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(answer[20:24]) == ip:
                return name
    return None


def choose_interface(ip: str) -> str:
    """Makes gloo and NCCL use the interface of `ip`, unless the user has chosen one; returns its name.

    By default gloo takes the interface of the host name's address, which on many clusters is loopback or the slow network.
    Sets GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME.
    """
    name = interface_of(ip)
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if name else ():
        os.environ.setdefault(variable, str(name))
    return os.environ.get("GLOO_SOCKET_IFNAME", name or "?")
