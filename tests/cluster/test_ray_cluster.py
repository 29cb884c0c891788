"""Runs on a real Ray cluster of several hosts, submitted as users submit them; nodes join, drain and die while they train."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hosts
import pytest
import tiny
import yaml
from processes import wfc
from ray_nodes import RayNodes

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

REPO = Path(__file__).resolve().parent.parent.parent
# Long enough to be caught in the middle: some 20 s an adapter on two cores. The second round shows the broadcast.
TRAIN = {"max_steps": 100, "checkpoint_every": 5}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
HEAR_CTRL_C = ("env", "--default-signal=INT")  # a shell that starts the tests in the background has it ignored


@dataclass(frozen=True)
class Project:
    """A user's checkout with a configuration, what its runs should end with, and where they lie: all hosts see it."""

    folder: Path
    sha256: str

    def run_dir(self, name: str) -> Path:
        return self.folder / "shared" / name / "tiny"


def _make_project(folder: Path) -> Project:
    (folder / "configs").mkdir()
    for name in ("wfc_dist", "launch"):
        shutil.copytree(REPO / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".rayignore", ".gitignore", "pyproject.toml"):
        shutil.copy(REPO / name, folder / name)
    (folder / "data").mkdir()
    with open(folder / "data" / "speech.wav", "wb") as file:
        file.truncate(200 * 2**20)  # twice what the job API takes: .rayignore keeps it at home
    config = tiny.make_config(folder / "shared", rounds=[["a", "b", "c"], ["d"]], train=TRAIN)
    shutil.copy(config, folder / "configs" / "tiny.yaml")
    wfc("run", config, f"run.dir={folder / 'shared' / 'one-process'}", "--plain")
    return Project(folder, Run(folder / "shared" / "one-process" / "tiny").base().sha256)


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    hosts.require()
    with tempfile.TemporaryDirectory(prefix="wfc-project-") as name:
        yield _make_project(Path(name))


@pytest.fixture(scope="module")
def cluster(project: Project) -> Iterator[RayNodes]:
    """node1 is the head, without trainers, as on a cloud; node2 has room for one; node3 is up, without Ray."""
    with tempfile.TemporaryDirectory(prefix="wfc-ray-") as folder, RayNodes(folder=Path(folder)) as nodes:
        nodes.start("node1", "node2", head_cpus=0)
        yield nodes


class Jobs:
    """The user's terminal, in the checkout."""

    def __init__(self, cluster: RayNodes, project: Project) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # `ray` is there, also where nothing is activated
        self._environment, self._folder = {**os.environ, **cluster.env, "PATH": path}, project.folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *command: object, log: Path) -> "subprocess.Popen[str]":
        with open(log, "w", encoding="utf-8") as file:
            self.started.append(subprocess.Popen(
                [*HEAR_CTRL_C, *map(str, command)],
                stdout=file, stderr=subprocess.STDOUT, text=True, cwd=self._folder, env=self._environment,
            ))  # fmt: skip
        return self.started[-1]

    def ray_job(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "launch/submit_ray.py", *map(str, arguments)],
            capture_output=True, text=True, timeout=300, cwd=self._folder, env=self._environment, check=False,
        )  # fmt: skip

    def submit(self, run_dir: Path, *overrides: str, log: Path) -> "subprocess.Popen[str]":
        command = (sys.executable, "launch/submit_ray.py", "submit", "configs/tiny.yaml", *overrides_of(run_dir), *overrides)
        return self.start(*command, log=log)


def overrides_of(run_dir: Path) -> tuple[str, ...]:
    return (f"run.dir={run_dir.parent}", "cluster.backend=ray", "cluster.max_trainers=4")


@pytest.fixture
def jobs(cluster: RayNodes, project: Project) -> Iterator[Jobs]:
    terminal = Jobs(cluster, project)
    yield terminal
    for process in terminal.started:
        process.kill()
        process.wait()


def until(what: Callable[[], object], process: "subprocess.Popen[str]", log: Path, timeout_s: float = 150) -> None:
    """Waits until something is so; fails when the process ends before."""
    end = time.monotonic() + timeout_s
    while not what():
        assert process.poll() is None, f"ended with {process.returncode}\n{log.read_text()}"
        assert time.monotonic() < end, f"not within {timeout_s} s\n{log.read_text()}"
        time.sleep(0.1)


def step(run_dir: Path, dataset: str) -> int:
    """Returns the last step of a data set of round 1 that has a complete checkpoint; 0 when none has."""
    found = (run_dir / "round-0001" / "training" / dataset).glob("step-*/manifest.json")
    return max((int(path.parent.name.removeprefix("step-")) for path in found), default=0)


def ledger(run_dir: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def trained_on(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Returns the ledger's line of every adapter; each has exactly one."""
    lines = ledger(run_dir, "adapter")
    assert sorted(line["dataset"] for line in lines) == ["a", "b", "c", "d"]
    return {line["dataset"]: line for line in lines}


def training_on(run_dir: Path, attempt: int) -> dict[str, str]:
    """Returns host -> the data set of round 1 that a trainer there began last, in one attempt."""
    path = run_dir / "round-0001" / "logs" / f"attempt-{attempt}" / "coordinator.log"
    lines = path.read_text().splitlines() if path.exists() else []
    words = [line.partition(": training on ") for line in lines]
    return {place.split()[0]: dataset.split()[-1] for dataset, _, place in words if place}


def caught_on(run_dir: Path, attempt: int, before: Mapping[str, int] = MappingProxyType({})) -> dict[str, str]:
    """Returns node -> data set where a trainer is in the middle: it has made a checkpoint since `before`, and has far to go."""
    found = training_on(run_dir, attempt)
    return {node: name for node, name in found.items() if before.get(name, 0) < step(run_dir, name) <= TRAIN["max_steps"] / 2}


def break_node(cluster: RayNodes, node: str) -> None:
    """Ends the trainer on a node, where no other can start from now on: torch cannot be imported there."""
    cluster.hosts[node].break_torch()
    find = "import pathlib; files = pathlib.Path('/proc').glob('[0-9]*/cmdline'); " \
           "print(*[file.parent.name for file in files if file.read_bytes().startswith(b'ray::WorkerActor')])"  # fmt: skip
    (pid,) = cluster.hosts[node].run([sys.executable, "-c", find]).stdout.split()
    cluster.hosts[node].run(["kill", "-KILL", pid]).check_returncode()


def test_stopped_and_submitted_again_while_nodes_join_and_die(
    cluster: RayNodes, project: Project, jobs: Jobs, tmp_path: Path
) -> None:
    run_dir, log, log_2 = project.run_dir("joined"), tmp_path / "log", tmp_path / "log-2"
    first = jobs.submit(run_dir, log=log)
    until(lambda: step(run_dir, "a"), first, log)
    alone = training_on(run_dir, 1)
    first.send_signal(signal.SIGINT)  # Ctrl-C ends the following, not the job
    left = first.wait(30)
    first = jobs.start(sys.executable, "launch/submit_ray.py", "logs", "tiny", log=log_2)
    cluster.add("node3")
    until(lambda: "node3" in caught_on(run_dir, 1), first, log_2)
    broken = caught_on(run_dir, 1)["node3"]
    break_node(cluster, "node3")
    until(lambda: ledger(run_dir, "node_left_out"), first, log_2)
    cluster.hosts["node3"].repair_torch()
    again = jobs.ray_job("submit", "configs/tiny.yaml", *overrides_of(run_dir))
    stopped = jobs.ray_job("stop", run_dir)
    code = first.wait(60)
    status = jobs.ray_job("status", "tiny")
    at_stop = {dataset: step(run_dir, dataset) for dataset in "abc"}

    assert alone == {"node2": "a"}, "one node has room for one trainer, b and c are queued"
    assert left == 130 and "wfc-tiny-1 runs on; follow it with `python launch/submit_ray.py logs wfc-tiny-1" in log.read_text()
    assert "round 1: training 3 adapters" in log_2.read_text(), "followed again from the beginning"
    assert again.returncode == 2 and "is running as job wfc-tiny-1" in again.stderr
    assert stopped.returncode == 0, stopped.stderr
    assert code == 75, log_2.read_text()
    assert "interrupted, `submit` goes on (exit code 75)" in status.stdout
    assert json.loads((run_dir / "status.json").read_text())["state"] == "interrupted"

    failures, (left_out,) = ledger(run_dir, "failure"), ledger(run_dir, "node_left_out")
    assert [(line["dataset"], line["host"]) for line in failures] == [(broken, "node3")]
    assert failures[0]["kind"] in ("crashed", "failed at its start"), "whether its first step had been heard of or not"
    assert left_out["node"] == "node3" and left_out["reason"].endswith("libcudart.so.12: cannot open shared object file: "
                                                                       "No such file or directory")  # fmt: skip
    assert "node3 is left out for 1800 s: " in log_2.read_text()

    # what the README says, to the letter; Ray's command knows only 0 and 1
    log = tmp_path / "log-3"
    second = jobs.start(
        "ray", "job", "submit", "--working-dir", ".", "--", "wfc", "run", "configs/tiny.yaml", *overrides_of(run_dir), log=log
    )
    until(lambda: caught_on(run_dir, 2, at_stop), second, log)
    node, lost = caught_on(run_dir, 2, at_stop).popitem()
    cluster.kill(node, boot=True)
    assert second.wait(400) == 0, log.read_text()
    cluster.add(node)

    adapters = trained_on(run_dir)
    assert Run(run_dir).base().sha256 == project.sha256
    gone = [(line["dataset"], line["kind"]) for line in ledger(run_dir, "failure") if line["attempt"] == 2]
    assert gone == [(lost, "lost with its node")], "the others trained on"
    assert adapters[lost]["host"] != node and adapters[lost]["resumed_from"] > at_stop[lost]
    resumed = {name: line["resumed_from"] for name, line in adapters.items() if line["attempt"] == 2 and name not in (lost, "d")}
    assert resumed == {name: at_stop[name] for name in resumed}
    submitted = [line["ray_job_id"] for line in ledger(run_dir, "attempt")]
    assert len(submitted) == 2 and submitted[0] == "wfc-tiny-1" and submitted[1].startswith("raysubmit_")
    assert [line["reason"].startswith("wfc stop") for line in ledger(run_dir, "stopped")] == [True]


@contextlib.contextmanager
def spot_notice(cluster: RayNodes) -> Iterator[str]:
    """A cloud's metadata service (simulated), which gives notice at the third look; yields its address."""
    looks = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer(200, b"session")

        def do_GET(self) -> None:
            looks.append(self.path)
            self._answer(200 if len(looks) > 2 else 404, b'{"action": "terminate"}')

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *unused: object) -> None:
            pass

    with ThreadingHTTPServer((cluster.hosts.gateway, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{cluster.hosts.gateway}:{server.server_port}"
        server.shutdown()


def test_a_drained_node_stops_the_run_or_only_moves_its_trainer(
    cluster: RayNodes, project: Project, jobs: Jobs, tmp_path: Path
) -> None:
    run_dir, log = project.run_dir("drained"), tmp_path / "log"
    first = jobs.submit(run_dir, log=log)
    until(lambda: caught_on(run_dir, 1).keys() == {"node2", "node3"}, first, log)
    cluster.drain("node3")
    code = first.wait(120)
    at_stop = {dataset: step(run_dir, dataset) for dataset in "abc"}

    assert code == 75, log.read_text()
    (line,) = ledger(run_dir, "stopped")
    assert line["reason"] == "node drained: node3"

    log = tmp_path / "log-2"
    second = jobs.submit(run_dir, "cluster.on_drain=move", log=log)
    until(lambda: caught_on(run_dir, 2, at_stop).keys() == {"node2"}, second, log)  # the drained node is still there
    cluster.kill("node3", boot=True)  # as the cloud does
    cluster.add("node3")
    until(lambda: "node3" in caught_on(run_dir, 2, at_stop), second, log)
    moved = caught_on(run_dir, 2, at_stop)["node3"]
    with spot_notice(cluster) as metadata:
        watch = ("launch/drain_on_spot_notice.py", cluster.address, "--metadata", metadata, "--every", "0.2")
        done = cluster.hosts["node3"].run([sys.executable, REPO / watch[0], *watch[1:]], env=cluster.node_env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert second.wait(400) == 0, log.read_text()
    cluster.kill("node3", boot=True)
    cluster.add("node3")

    adapters = trained_on(run_dir)
    assert Run(run_dir).base().sha256 == project.sha256
    assert [(line["dataset"], line["host"]) for line in ledger(run_dir, "moved")] == [(moved, "node3")]
    assert adapters[moved]["host"] != "node3" and adapters[moved]["resumed_from"] > at_stop[moved]
    assert not ledger(run_dir, "failure")
    broadcast = [line for line in ledger(run_dir, "broadcast") if line["round"] == 1]
    assert broadcast and all("node3" not in line["hosts"] for line in broadcast)


def test_plan_shows_who_would_go_where_and_what_does_not_fit(cluster: RayNodes, project: Project, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "wfc_dist", "plan", project.folder / "configs" / "tiny.yaml"]
    given = (f"run.dir={tmp_path / 'runs'}", "cluster.backend=ray", f"cluster.address={cluster.address}")
    wide = {**cluster.node_env, "COLUMNS": "150"}

    done = cluster.hosts["node1"].run([*command, *given], env=wide, timeout_s=120)
    too_large = cluster.hosts["node1"].run([*command, *given, "cluster.cpus_per_worker=2"], env=wide, timeout_s=120)

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {cells[0]: cells[1:] for line in done.stdout.splitlines() if len(cells := line.replace("│", " ").split()) > 3}
    assert rows["node1"][:4] == [cluster.hosts["node1"].ip, "0", "of", "0"] and "too small for one worker" in done.stdout
    assert rows["node2"][:4] == [cluster.hosts["node2"].ip, "1", "of", "1"]
    below = done.stdout.partition("placement")[2]
    placed = [line.replace("│", " ").split() for line in below.splitlines() if "│ 1 " in line]
    assert [(cells[1], cells[2:]) for cells in placed][:3] == [
        ("a", ["0", "node2"]), ("b", ["1", "node3"]), ("c", ["the", "first", "that", "is", "free", "queued"]),
    ]  # fmt: skip
    assert too_large.returncode == 2 and "no trainer fits: one needs 1 x (2 CPU, 0 GPU)" in too_large.stderr
    assert list(tmp_path.iterdir()) == [], "something was left behind"


def test_relative_paths_are_the_coordinators_and_a_broken_node_costs_one_node(cluster: RayNodes, project: Project) -> None:
    shared = project.folder / "shared"
    tree = yaml.safe_load((project.folder / "configs" / "tiny.yaml").read_text())
    tree |= {"base": {"model": "model"}, "rounds": [["a", "b"]], "run": {"name": "tiny", "dir": "relative"}}
    tree["datasets"] = {name: tree["datasets"][name] | {"source": name} for name in "ab"}
    (shared / "relative.yaml").write_text(yaml.safe_dump(tree))
    run = ("run", "relative.yaml", "--plain", "train.max_steps=2")
    on_ray = ("cluster.backend=ray", f"cluster.address={cluster.address}")
    assert Path.cwd() != shared, "Ray was started here"
    if "node3" not in cluster.alive():
        cluster.add("node3")
    cluster.hosts["node3"].break_torch()

    command = ["env", "-C", shared, sys.executable, "-m", "wfc_dist", *run]
    done = cluster.hosts["node1"].run([*command, *on_ray], env=cluster.node_env, timeout_s=300)
    cluster.hosts["node3"].repair_torch()
    one = cluster.hosts["node1"].run([*command, "run.dir=one"], env=cluster.node_env, timeout_s=300)

    assert done.returncode == one.returncode == 0, done.stdout + done.stderr + one.stderr
    run_dir = shared / "relative" / "tiny"
    assert Run(run_dir).base().sha256 == Run(shared / "one" / "tiny").base().sha256
    (left_out,) = ledger(run_dir, "node_left_out")
    said = f"node3 ({cluster.hosts['node3'].ip}) cannot import torch: ImportError: libcudart.so.12"
    assert left_out["node"] == "node3" and said in left_out["reason"] and f"node3 is left out for 1800 s: {said}" in done.stderr
    assert {line["host"] for line in ledger(run_dir, "adapter")} == {"node2"} and not ledger(run_dir, "failure")
    assert ledger(run_dir, "base")[-1]["hosts"] == ["node1", "node2"]


def test_errors_say_what_to_do(cluster: RayNodes, project: Project, tmp_path: Path) -> None:
    def wfc_on(node: str, *overrides: str, code: int = 2, **environment: str) -> str:
        """Returns what `wfc run` says as a driver on a node; it must refuse to start, soon."""
        command = [sys.executable, "-m", "wfc_dist", "run", project.folder / "configs" / "tiny.yaml", "--plain"]
        given = (f"run.dir={tmp_path / 'runs'}", "cluster.backend=ray", *overrides)
        done = cluster.hosts[node].run([*command, *given], env={**cluster.node_env, **environment}, timeout_s=60)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
        return done.stderr.splitlines()[-1]

    here = f"cluster.address={cluster.address}"
    nobody = cluster.hosts.gateway.rpartition(".")[0] + ".99:6379"  # nothing has this address: packets to it are lost
    assert f"no Ray cluster answers at cluster.address {nobody}" in wfc_on("node1", f"cluster.address={nobody}")
    said = wfc_on("node1", here, RAY_AUTH_TOKEN="0" * 64)
    assert f"cannot join it as a Ray cluster (Failed to connect to Ray cluster at {cluster.address})" in said
    assert "the cluster's own RAY_AUTH_TOKEN" in said
    said = wfc_on("node1", here, RAY_AUTH_TOKEN="", HOME=str(tmp_path))  # and no ~/.ray/auth_token
    assert f"the Ray cluster at {cluster.address} refuses the token; set RAY_AUTH_TOKEN" in said

    said = wfc_on("node1", here, "run.dir=/dev/shm/runs")
    assert all(
        f"{name} ({cluster.hosts[name].ip}) does not see the run directory /dev/shm/runs" in said for name in ("node2", "node3")
    )
    assert "node1 (" not in said

    said = wfc_on("node1", here, "cluster.wait_for_nodes=4", "cluster.start_timeout_s=2", code=75)
    assert all(f"{name} ({cluster.hosts[name].ip})" in said for name in ("node1", "node2", "node3")) and "missing: 1 more" in said
    said = wfc_on("node1", here, "cluster.wait_for_nodes=[node2, node7]", "cluster.start_timeout_s=2", code=75)
    assert "missing: node7." in said and "the same command tries again" in said


DOCTOR = """if True:
    import sys
    from pathlib import Path
    from wfc_dist.config.loading import load_config
    from wfc_dist.doctor.sites import check_ray
    for line in check_ray(load_config(Path(sys.argv[1]), sys.argv[2:])):
        print(line.state, "|", line.topic, "|", line.what)
"""


def test_the_doctor_asks_every_node(cluster: RayNodes, project: Project, tmp_path: Path) -> None:
    def doctor(*overrides: str) -> list[list[str]]:
        command = [sys.executable, "-c", DOCTOR, project.folder / "configs" / "tiny.yaml", "cluster.backend=ray"]
        given = (f"cluster.address={cluster.address}", f"run.dir={tmp_path / 'runs'}", *overrides)
        done = cluster.hosts["node1"].run([*command, *given], env=cluster.node_env, timeout_s=150)
        return [line.split(" | ") for line in done.stdout.splitlines()]

    num_nodes, (healthy,) = len(cluster.alive()), doctor()
    # node3 comes back with another torch, as it says; every node has a /dev/shm of its own
    (tmp_path / "other" / "torch-1.2.3.dist-info").mkdir(parents=True)
    (tmp_path / "other" / "torch-1.2.3.dist-info" / "METADATA").write_text("Name: torch\nVersion: 1.2.3\n")
    paths, usual = [str(tmp_path / "other"), *filter(None, [os.environ.get("PYTHONPATH")])], dict(cluster.node_env)
    cluster.kill("node3", boot=True)
    cluster.node_env["PYTHONPATH"] = os.pathsep.join(paths)
    try:
        cluster.add("node3")
    finally:
        cluster.node_env = usual
    other = doctor()
    (tmp_path / "other" / "wfc_dist").mkdir()
    (tmp_path / "other" / "wfc_dist" / "__init__.py").write_text("raise ImportError('there is no wfc_dist here')")
    hidden = doctor("run.dir=/dev/shm/runs")

    assert healthy[:2] == ["ok", "ray"] and f"runs tasks: {num_nodes} nodes, " in healthy[2] and "with a token" in healthy[2]
    assert [line[:2] for line in other] == [["ok", "ray"], ["problem", "ray node"]], other
    assert f"node3 ({cluster.hosts['node3'].ip}) runs other versions: torch 1.2.3 (here " in other[1][2]
    assert "node2" in hidden[1][2] and "does not see the run directory /dev/shm/runs" in hidden[1][2]
    assert "node3" in hidden[2][2] and "cannot run wfc_dist: " in hidden[2][2], hidden
    assert list(tmp_path.iterdir()) == [tmp_path / "other"], "something was left behind"


def test_another_version_of_ray_is_refused(cluster: RayNodes, project: Project, tmp_path: Path) -> None:
    # Simulated: the head is this Ray, told to call itself another. What it writes and how drivers compare is Ray's own.
    script = "import ray; ray.__version__ = '2.59.0'; from ray.scripts.scripts import main; main()"
    host = cluster.hosts["node3"]
    command = [sys.executable, "-c", script, "start", "--head", "--port", 6380, "--node-ip-address", host.ip, "--num-cpus", 1,
               "--include-dashboard", "false", "--disable-usage-stats"]  # fmt: skip
    cluster.kill("node3", boot=True)
    done = host.run(command, env=cluster.node_env)
    assert done.returncode == 0, done.stdout + done.stderr

    done = host.run(
        [sys.executable, "-m", "wfc_dist", "run", project.folder / "configs" / "tiny.yaml", f"run.dir={tmp_path}",
         "cluster.backend=ray", f"cluster.address={host.ip}:6380"],
        env=cluster.node_env,
    )  # fmt: skip

    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stdout + done.stderr
    assert "runs other versions than this program" in done.stderr and "2.59.0" in done.stderr
