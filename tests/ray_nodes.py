"""A real Ray cluster over several hosts of `hosts`, started with `ray start`, with token authentication and the job API.

    with RayNodes(("node1", "node2", "node3"), folder=tmp_path) as cluster:     # boots the hosts; no Ray runs yet
        cluster.start("node1", "node2")                     # the first is the head; returns when all have joined
        cluster.add("node3")                                # one more worker; may come at any time
        cluster.hosts["node3"].break_torch()                # from now on no process there can import torch; repair_torch ends it
        cluster.url, cluster.address                        # http://HEAD:8265 for jobs, HEAD:6379 for drivers
        cluster.env                                         # token and address, as a user of the job API sets them
        cluster.hosts["node2"].run([...], env=cluster.node_env)         # a driver on a node
        cluster.drain("node3", deadline_s=60)               # the notice a cloud gives before it takes a spot node back
        cluster.kill("node3")                               # pulls the plug; boots it again, without Ray, with `boot=True`
        cluster.alive()                                     # host names of the nodes Ray knows as alive

All of it listens in the hosts' own network. The head notices a silent node after about 12 s.
"""

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from hosts import Hosts, write_breakable_torch

START_TIMEOUT_S = 120
OBJECT_STORE_BYTES = 150 * 2**20
# Defaults take a minute to notice a node without a plug.
HEALTH = {"RAY_health_check_initial_delay_ms": "2000", "RAY_health_check_period_ms": "1000",
          "RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "3"}  # fmt: skip


class RayNodes:
    """Hosts and the Ray cluster on them; a context manager."""

    def __init__(self, names: Sequence[str] = ("node1", "node2", "node3"), *, folder: Path) -> None:
        self.hosts = Hosts(names, folder=folder)
        self.folder, self.head = folder, names[0]
        self.token = secrets.token_hex(32)
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._shim = folder / "shim"
        self.node_env = {**auth, **HEALTH, "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
        self._auth = auth

    def __enter__(self) -> "RayNodes":
        self.hosts.__enter__()
        write_breakable_torch(self._shim)
        return self

    def __exit__(self, *unused: object) -> None:
        self.hosts.close()  # takes every process on them along

    @property
    def address(self) -> str:
        """Where drivers and nodes join."""
        return f"{self.hosts[self.head].ip}:6379"

    @property
    def url(self) -> str:
        """Where the job API is."""
        return f"http://{self.hosts[self.head].ip}:8265"

    @property
    def env(self) -> dict[str, str]:
        """What a user of the job API sets."""
        return {**self._auth, "RAY_API_SERVER_ADDRESS": self.url}

    def start(self, head: str, *workers: str, num_cpus: float = 1, head_cpus: float | None = None) -> None:
        """Starts the head, then the workers side by side; a head with `head_cpus=0` gets no trainer."""
        self.head = head
        host = self.hosts[head]
        head_cpus = num_cpus if head_cpus is None else head_cpus
        self._ray_start(head, head_cpus, "--head", "--port", 6379, "--dashboard-host", host.ip, "--dashboard-port", 8265)
        self.add(*workers, num_cpus=num_cpus)

    def add(self, *names: str, num_cpus: float = 1) -> None:
        """Starts Ray on hosts, side by side; returns when they have joined."""
        started = [(name, self._start(name, num_cpus, "--address", self.address)) for name in names]
        for name, process in started:
            self._finish(name, process)
        self.wait_until(set(names), timeout_s=START_TIMEOUT_S)

    def _ray_start(self, name: str, num_cpus: float, *arguments: object) -> None:
        self._finish(name, self._start(name, num_cpus, *arguments))

    def _start(self, name: str, num_cpus: float, *arguments: object) -> "subprocess.Popen[str]":
        host = self.hosts[name]
        command = ["ray", "start", *arguments, "--node-ip-address", host.ip, "--num-cpus", f"{num_cpus:g}",
                   "--object-store-memory", OBJECT_STORE_BYTES, "--disable-usage-stats"]  # fmt: skip
        path = ":".join(filter(None, [self.node_env.get("PYTHONPATH"), str(self._shim), os.environ.get("PYTHONPATH")]))
        return host.start(command, env={**self.node_env, "PYTHONPATH": path}, log=self.log(name))

    def _finish(self, name: str, process: "subprocess.Popen[str]") -> None:
        code = process.wait(START_TIMEOUT_S)
        assert code == 0, f"ray start on {name}: exit {code}\n{self.log(name).read_text()}"

    def log(self, name: str) -> Path:
        """Where the output of a host's `ray start` goes."""
        return self.folder / f"{name}-ray-start.log"

    def nodes(self) -> list[dict[str, Any]]:
        """Returns what the dashboard says of every node there ever was: hostname, ip, raylet {nodeId, state}."""
        request = urllib.request.Request(f"{self.url}/nodes?view=summary", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return list(json.load(answer)["data"]["summary"])

    def alive(self) -> dict[str, str]:
        """Returns host name -> node id of the nodes Ray holds for alive."""
        return {node["hostname"]: node["raylet"]["nodeId"] for node in self.nodes() if node["raylet"].get("state") == "ALIVE"}

    def wait_until(
        self, there: AbstractSet[str] = frozenset(), gone: AbstractSet[str] = frozenset(), timeout_s: float = 60
    ) -> None:
        """Waits until some nodes are alive and others are not."""
        end = time.monotonic() + timeout_s
        while not (there <= (alive := set(self.alive())) and not gone & alive):
            assert time.monotonic() < end, f"wanted {there or 'any'}, not {gone or 'any'}; alive: {alive}"
            time.sleep(0.5)

    def kill(self, name: str, *, boot: bool = False) -> None:
        """Pulls the plug of a host; with `boot` it comes back without Ray."""
        self.hosts[name].kill()
        if boot:
            self.hosts[name].boot()

    def drain(self, name: str, deadline_s: int = 300) -> None:
        """Tells Ray that a node will be taken away, as an autoscaler does; nobody takes it."""
        command = ["ray", "drain-node", "--address", self.address, "--node-id", self.alive()[name],
                   "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot node taken back",
                   "--deadline-remaining-seconds", deadline_s]  # fmt: skip
        done = self.hosts[self.head].run(command, env=self.node_env)
        assert done.returncode == 0, done.stdout + done.stderr
