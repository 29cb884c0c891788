"""A real Slurm cluster on this machine: munge, slurmctld, slurmdbd with a database, and one slurmd per host of `hosts`.

All of it lies in a folder and on ports of its own and is found by the environment alone (SLURM_CONF), so that it can run
beside another Slurm. Up in a few seconds. The fixture `slurm` of tests/cluster/conftest.py is one for the whole session:

    def test_x(slurm: SlurmCluster, monkeypatch):
        slurm.names, slurm.hosts["node1"].ip, slurm.env     # env = {"SLURM_CONF": ...}: for sbatch, srun, submitit, ...
        slurm.use(monkeypatch)                              # sets it in os.environ for this test, as submitit wants it
        job = slurm.submit(script, "arg", options=["--nodes=3"], env={...}, cwd=tmp_path)      # sbatch -> job id (str)
        slurm.state(job); slurm.info(job)["NodeList"]       # from scontrol: "PENDING" "RUNNING" "COMPLETED" "PREEMPTED" ...
        slurm.wait(job, "RUNNING", timeout_s=60)            # for one of the states -> it; fails when the job ends otherwise
        slurm.signal(job, "USR1")                           # scancel -b -s USR1: the warning signal
        slurm.cancel(job); slurm.cancel_all()
        slurm.run("squeue", "-h")                           # any client command -> its stdout; fails when it does
        slurm.kill_node("node3"); slurm.boot_node("node3")  # the plug; `scontrol` is told at once, detection takes 40 s else
        slurm.set_node("node2", "drain"); slurm.set_node("node2", "resume")
        slurm.stop_controller(); slurm.start_controller()   # or restart_controller()
        slurm.history(job)                                  # sacct -D: one {State, ExitCode, NodeList, Start, End} an attempt

Partitions: `debug` (default) and `high`, which preempts it by requeueing: USR1 (or what --signal says) to the batch shell
at once, SIGTERM after 10 s of grace, SIGKILL KILL_WAIT_S later. Nodes have 8 CPUs, 2 GPUs (of /dev/null: counted, not
computed with) and 16 GB, of which nothing is enforced. Packages come from .ci/run, not from here.
"""

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hosts import Hosts

PROGRAMS = ("munged", "slurmctld", "slurmd", "slurmdbd", "sbatch", "mariadbd", "mariadb-install-db")
GRACE_S = 10
KILL_WAIT_S = 10
FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}
TEMPLATES = Path(__file__).parent / "cluster"


def poll(what: str, condition: Callable[[], object], timeout_s: float, every_s: float = 0.1) -> None:
    """Waits until `condition()` is true; fails, saying `what`, when it is not in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        time.sleep(every_s)


class SlurmCluster:
    """The cluster; a context manager. The module's docstring shows what it can do."""

    def __init__(self, folder: Path, names: Sequence[str] = ("node1", "node2", "node3")) -> None:
        self.folder, self.names = folder, tuple(names)
        self.hosts = Hosts(names, folder=folder / "hosts")
        self.env = {"SLURM_CONF": str(folder / "etc" / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "SlurmCluster":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()

    def _start(self) -> None:
        for name in ("etc", "munge", "state", "sql"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        self.hosts.__enter__()
        ports = _free_ports(self.hosts.gateway, 3)
        self._write_configuration(ports)
        self._start_munge()
        self._start_accounting(ports[2])
        self.start_controller()
        for name in self.names:
            self._start_slurmd(name)
        self.await_idle()

    def _write_configuration(self, ports: Sequence[int]) -> None:
        etc = self.folder / "etc"
        nodes, devices = [], []
        for number, host in enumerate(self.hosts):
            nodes.append(f"NodeName={host.name} NodeAddr={host.ip} Port=6818 CPUs=8 RealMemory=16000 Gres=gpu:2 State=UNKNOWN")
            for index in (2 * number, 2 * number + 1):
                os.mknod(etc / f"gpu{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            devices.append(f"NodeName={host.name} Name=gpu File={etc}/gpu[{2 * number}-{2 * number + 1}]")
        facts = {
            "machine": os.uname().nodename.partition(".")[0], "gateway": self.hosts.gateway, "folder": self.folder,
            "ports": ports, "nodes": "\n".join(nodes), "grace_s": GRACE_S, "kill_wait_s": KILL_WAIT_S,
        }  # fmt: skip
        for name in ("slurm.conf", "slurmdbd.conf"):
            (etc / name).write_text((TEMPLATES / name).read_text().format(**facts))
        (etc / "slurmdbd.conf").chmod(0o600)
        (etc / "gres.conf").write_text("\n".join(devices) + "\n")
        (etc / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _daemon(self, *command: object) -> None:
        """Starts a daemon in the foreground; it is told to end when this process does, however that ends."""
        name = str(command[0])
        with open(self.folder / f"{name}.out", "ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.env}, start_new_session=True,
            )  # fmt: skip

    def _answers(self, *command: object) -> bool:
        done = subprocess.run(list(map(str, command)), capture_output=True, env={**os.environ, **self.env}, check=False)
        return done.returncode == 0

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o400)
        files = [f"--{name}-file={folder / name}" for name in ("key", "pid", "seed", "log")]
        self._daemon("munged", "--force", "--foreground", f"--socket={folder / 'socket'}", *files)
        poll("munged answers", lambda: self._answers("munge", "-n", f"--socket={folder / 'socket'}"), 20)

    def _start_accounting(self, port: int) -> None:
        sql = self.folder / "sql"
        with open(self.folder / "mariadb-install.out", "wb") as log:
            subprocess.run(
                ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={sql}", "--skip-test-db",
                 "--auth-root-authentication-method=normal"],
                stdout=log, stderr=log, timeout=120, check=True,
            )  # fmt: skip
        self._daemon(
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={sql}", f"--socket={sql}/socket", f"--pid-file={sql}/pid",
            "--bind-address=127.0.0.1", f"--port={port}", "--skip-grant-tables", "--skip-log-bin",
            "--innodb-buffer-pool-size=128M", "--innodb-lock-wait-timeout=900", "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        client = ("--no-defaults", "-h", "127.0.0.1", "-P", port)
        poll("mariadbd answers", lambda: self._answers("mariadb-admin", *client, "ping"), 180)
        self.run("mariadb", *client, "-e", "CREATE DATABASE slurm_acct_db")
        self._daemon("slurmdbd", "-D")
        poll("slurmdbd answers", lambda: self._answers("sacctmgr", "-n", "show", "cluster"), 180)
        self.run("sacctmgr", "-i", "add", "cluster", "wfctest")

    def start_controller(self) -> None:
        """Starts slurmctld; returns when it answers."""
        self._daemon("slurmctld", "-D")
        poll("slurmctld answers", lambda: self._answers("scontrol", "show", "config"), 60)

    def stop_controller(self) -> None:
        """Stops slurmctld; jobs go on."""
        self._end("slurmctld")

    def restart_controller(self) -> None:
        """Stops slurmctld and starts it again."""
        self.stop_controller()
        self.start_controller()

    def _start_slurmd(self, name: str) -> None:
        self.hosts[name].start(["slurmd", "-D", "-N", name], env=self.env, log=self.folder / f"slurmd.{name}.out")

    def await_idle(self, timeout_s: float = 90) -> None:
        """Waits until no job runs and every node is ready for one."""

        def idle() -> bool:
            nodes = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %t").split("\n")
            return {f"{name} idle" for name in self.names} <= set(nodes)

        poll("every node is idle", idle, timeout_s)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes this process, for one test, a client of the cluster."""
        for key, value in self.env.items():
            monkeypatch.setenv(key, value)

    def run(self, *command: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """Runs a client command and returns its output."""
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=120, cwd=cwd, check=False,
            env={**os.environ, **self.env, **(env or {})},
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def submit(
        self,
        script: Path,
        *arguments: object,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Submits a batch script with its arguments; returns the job's id."""
        return self.run("sbatch", "--parsable", *options, script, *arguments, env=env, cwd=cwd).strip().partition(";")[0]

    def info(self, job: str) -> dict[str, str]:
        """Returns what `scontrol show job` says."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return dict(word.partition("=")[::2] for word in words if "=" in word)

    def state(self, job: str) -> str:
        """Returns the job's state, such as RUNNING."""
        return self.info(job)["JobState"]

    def wait(self, job: str, *states: str, timeout_s: float = 60) -> str:
        """Waits until the job is in one of the states and returns it; fails at once when it ended in another."""
        end = time.monotonic() + timeout_s
        while (info := self.info(job))["JobState"] not in states:
            facts = f"job {job} is {info['JobState']} ({info['Reason']}, exit {info['ExitCode']}), not {' or '.join(states)}"
            # a preempted or requeued job passes through a final state on its way to PENDING
            assert info["JobState"] not in FINAL - {"PREEMPTED", "NODE_FAIL"}, facts
            assert time.monotonic() < end, f"{facts}, after {timeout_s:g} s"
            time.sleep(0.2)
        return info["JobState"]

    def signal(self, job: str, name: str) -> None:
        """Sends a signal to the batch shell alone, as a site's warning does."""
        self.run("scancel", "-b", "-s", name, job)

    def cancel(self, job: str) -> None:
        """Cancels a job for good."""
        self.run("scancel", job)

    def cancel_all(self) -> None:
        """Cancels every job and waits until the nodes are free."""
        for job in self.run("squeue", "-h", "-o", "%A").split():
            self.cancel(job)
        self.await_idle()

    def history(self, job: str) -> list[dict[str, str]]:
        """Returns what the accounting knows of the job's attempts, first to last."""
        fields = ("State", "ExitCode", "NodeList", "Start", "End")
        rows = self.run("sacct", "-D", "-X", "-n", "-P", "-j", job, "-o", ",".join(fields)).splitlines()
        return [dict(zip(fields, row.split("|"), strict=True)) for row in rows]

    def kill_node(self, name: str) -> None:
        """Pulls a node's plug, and tells the controller, which finds out by itself only after SlurmdTimeout."""
        self.hosts[name].kill()
        self.set_node(name, "down")

    def boot_node(self, name: str) -> None:
        """Brings a killed node back; returns when Slurm has it."""
        self.hosts[name].boot()
        self._start_slurmd(name)
        self.set_node(name, "resume")
        poll(f"{name} is back", lambda: self.run("sinfo", "-h", "-n", name, "-o", "%t").strip() in ("idle", "mix", "alloc"), 60)

    def set_node(self, name: str, state: str) -> None:
        """Sets a node down, drain or resume."""
        reason = ["reason=test"] if state in ("down", "drain") else []
        self.run("scontrol", "update", f"nodename={name}", f"state={state}", *reason)

    def _end(self, name: str) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(20)

    def stop(self) -> None:
        """Ends the nodes and what runs on them, then the daemons; removes the folder unless WFC_KEEP_SLURM is set."""
        self.hosts.close()
        for name in ("slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        if not os.environ.get("WFC_KEEP_SLURM"):
            shutil.rmtree(self.folder, ignore_errors=True)


def _free_ports(address: str, number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind((address, 0))
        return [probe.getsockname()[1] for probe in probes]
