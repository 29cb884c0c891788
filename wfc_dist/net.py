"""Ports."""

import socket


def free_port(host: str = "") -> int:
    """Returns a TCP port that was free on `host` a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
