"""Several "hosts" on this machine, each in Linux namespaces of its own, so that what is written for a cluster meets one.

A host has its own IP address, host name, processes (pid 1 and all), /dev/shm, /tmp/ray and /etc/hosts. Everything else on
disk is shared with this machine, as on a cluster with a common file system; /dev/shm is a place that is *not* shared.

    with Hosts(folder=tmp_path) as hosts:                   # node1, node2, node3
        host = hosts["node1"]                               # or iterate: for host in hosts
        host.ip                                             # 10.78.N.11; this machine is hosts.gateway, 10.78.N.1
        done = host.run(["hostname"])                       # to its end -> CompletedProcess (text), 60 s at most
        process = host.start(["ray", "start", ...], env={...}, log=tmp_path / "ray.log")      # -> Popen
        host.signal(process, signal.SIGTERM)                # to the command; process.kill() ends it, too (with SIGKILL)
        host.kill()                                         # pulls the plug: the link first, then every process
        host.boot()                                         # back, same name and address, empty /dev/shm, old /tmp/ray
        host.break_torch(); host.repair_torch()             # where `write_breakable_torch` wrote a folder of PYTHONPATH
    with Hosts(("head", "tail"), folder=...) ...            # sets of hosts coexist, each on a bridge and a subnet of its own

Needs root, iproute2 and util-linux: `require()` skips the test where they are missing, and fails it under CI=true. Hosts die
with the process that made them; only a bridge without ports can remain, after a kill -9.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

PROGRAMS = ("ip", "unshare", "nsenter", "setpriv", "mount", "hostname")
SUBNETS = [f"10.78.{number}" for number in range(64)]
# What pid 1 does. $1 name, $2 folder. bash reaps orphans, as an init must; nothing is looked up but in /etc/hosts.
INIT = """
set -e
hostname "$1"
mount -t tmpfs -o size=10g,mode=1777 tmpfs /dev/shm
mount --bind "$2/$1.ray" /tmp/ray
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/nsswitch.conf" /etc/nsswitch.conf
echo up
while :; do sleep 3600 & wait $!; done
"""

BROKEN = "/dev/shm/torch-is-broken"
BREAKABLE_TORCH = f"""
import os, sys
if os.path.exists("{BROKEN}"):
    raise ImportError("libcudart.so.12: cannot open shared object file: No such file or directory")
sys.path.remove(os.path.dirname(__file__))
del sys.modules["torch"]
import torch
"""


def write_breakable_torch(folder: Path) -> None:
    """Makes a folder for PYTHONPATH with a torch that is the real one, but for hosts on which it is broken."""
    folder.mkdir()
    (folder / "torch.py").write_text(BREAKABLE_TORCH)


def missing(*programs: str) -> str:
    """Returns why this machine can't make hosts or lacks one of `programs`, in words; empty when all is there."""
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    lacking = [name for name in (*PROGRAMS, *programs) if shutil.which(name) is None]
    if lacking:
        return f"needs the programs {', '.join(lacking)}"
    done = subprocess.run(["unshare", "--net", "--pid", "--mount", "--fork", "true"], capture_output=True, text=True, check=False)
    return f"may not make namespaces: {done.stderr.strip()}" if done.returncode else ""


def require(*programs: str) -> None:
    """Skips the test when this machine can't make hosts or lacks a program; under CI=true that is a failure."""
    reason = missing(*programs)
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"CI must run the cluster tests: {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


def _ip(*arguments: object, check: bool = True) -> bool:
    done = subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)
    assert not check or done.returncode == 0, f"ip {' '.join(map(str, arguments))}: {done.stderr}"
    return done.returncode == 0


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie: a pid 1 becomes one only after all the others of its namespace."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _wait_until_ended(pid: int) -> None:
    end = time.monotonic() + 30
    while not _ended(pid):
        assert time.monotonic() < end, f"process {pid} does not end"
        time.sleep(0.01)


class Host:
    """One host; made by `Hosts`."""

    def __init__(self, name: str, ip: str, link: str, bridge: str, folder: Path) -> None:
        self.name, self.ip = name, ip
        self._link, self._bridge, self._folder = link, bridge, folder
        self._unshare: subprocess.Popen[str] | None = None
        self._pid = 0

    def boot(self) -> None:
        """Starts it, with a network; returns when it is up."""
        assert self._unshare is None, f"{self.name} is up"
        self._unshare = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child",
             "--mount-proc", "bash", "-c", INIT, "init", self.name, str(self._folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._unshare.stdout is not None
        said = self._unshare.stdout.readline()
        assert said == "up\n", f"{self.name} did not start: {said}{self._unshare.stdout.read()}"
        self._pid = _child_of(self._unshare.pid)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._pid)
        _ip("link", "set", self._link, "master", self._bridge, "up")
        for arguments in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.ip}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            # Programs look for "the" address of a host by its default route; without a gateway nothing leaves by it.
            ("route", "add", "default", "dev", "eth0"),
        ):
            self.run(["ip", *arguments]).check_returncode()

    def kill(self) -> None:
        """Pulls the plug. The others see silence, not closed connections; every process on it is gone when this returns."""
        _ip("link", "del", self._link, check=False)
        if self._unshare is not None:
            self._unshare.kill()  # takes pid 1 along (--kill-child), and that all others
            self._unshare.wait(30)
            assert self._unshare.stdout is not None
            self._unshare.stdout.close()
            _wait_until_ended(self._pid)
            self._unshare, self._pid = None, 0

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._unshare is not None and self._unshare.poll() is None

    def command(self, command: Sequence[object]) -> list[str]:
        """Returns the command line that runs `command` on this host."""
        assert self.up, f"{self.name} is down"
        enter = ["nsenter", "--target", str(self._pid), "--net", "--uts", "--ipc", "--mount", "--pid"]
        return [*enter, "--", "setpriv", "--pdeathsig", "KILL", *map(str, command)]

    def break_torch(self) -> None:
        """Makes torch fail to import, as a driver update or a damaged disk does; processes that have imported it go on."""
        self.run(["touch", BROKEN]).check_returncode()

    def repair_torch(self) -> None:
        """Ends what `break_torch` began."""
        self.run(["rm", "-f", BROKEN]).check_returncode()

    def run(
        self, command: Sequence[object], env: Mapping[str, str] = {}, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; `env` is added to this process's environment."""
        return subprocess.run(
            self.command(command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, **(env or {})},
            check=False,
        )

    def start(
        self, command: Sequence[object], env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> subprocess.Popen[str]:
        """Starts a command in a session of its own; its output goes to `log`. `signal` reaches it, `kill` ends it."""
        with open(log or os.devnull, "a", encoding="utf-8") as file:
            return subprocess.Popen(
                self.command(command), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, text=True,
                env={**os.environ, **(env or {})}, start_new_session=True,
            )  # fmt: skip

    def signal(self, process: subprocess.Popen[str], number: int) -> None:
        """Sends a signal to the command that `start` started."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
            os.kill(_child_of(process.pid), number)


class Hosts:
    """A set of hosts on a bridge; a context manager."""

    def __init__(self, names: Sequence[str] = ("node1", "node2", "node3"), *, folder: Path) -> None:
        self.names, self.folder = tuple(names), folder
        self.bridge = self.gateway = ""
        self._hosts: dict[str, Host] = {}

    def __enter__(self) -> "Hosts":
        self.bridge, subnet = _make_bridge()
        self.gateway = f"{subnet}.1"
        try:
            self._write_files(subnet)
            for number, name in enumerate(self.names, start=1):
                link = f"{self.bridge}-{number}"
                self._hosts[name] = Host(name, f"{subnet}.{10 + number}", link, self.bridge, self.folder)
                self._hosts[name].boot()
        except BaseException:
            self.close()
            raise
        return self

    def _write_files(self, subnet: str) -> None:
        Path("/tmp/ray").mkdir(mode=0o1777, exist_ok=True)  # what a host mounts its own over
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self.names:
            (self.folder / f"{name}.ray").mkdir(exist_ok=True)
            (self.folder / f"{name}.ray").chmod(0o1777)
        lines = ["127.0.0.1 localhost", *(f"{subnet}.{10 + number} {name}" for number, name in enumerate(self.names, start=1))]
        lines.append(f"{self.gateway} {os.uname().nodename}")
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        (self.folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files\n")

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every host and removes the network; may be called twice."""
        for host in self._hosts.values():
            host.kill()
        _ip("link", "del", self.bridge, check=False)

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())


def _make_bridge() -> tuple[str, str]:
    """Makes a bridge on the first subnet that has none; its name is the lock between sets of hosts."""
    for number, subnet in enumerate(SUBNETS):
        name = f"wfcbr{number}"
        if _ip("link", "add", name, "type", "bridge", check=False):
            try:
                # Left alone, a bridge changes its MAC with its ports, and connections to it hang when a host comes or goes.
                _ip("link", "set", name, "address", f"02:00:0a:4e:{number:02x}:01")
                _ip("addr", "add", f"{subnet}.1/24", "dev", name)
                _ip("link", "set", name, "up")
            except BaseException:
                _ip("link", "del", name, check=False)
                raise
            return name, subnet
    raise AssertionError(f"all of {SUBNETS[0]}.x to {SUBNETS[-1]}.x are in use; `ip link del wfcbr0` removes one left over")
