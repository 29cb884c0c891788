"""slurm/*.sh run by bash with stand-ins for srun, scontrol and Python: signals, requeueing, exit codes, what others can see."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfc_dist import load_config

pytestmark = pytest.mark.process

SLURM = Path(__file__).parents[3] / "slurm"
STAND_INS = {
    # the Ray step: listens where Ray's head would, ends when its input is closed
    "srun": """#!/usr/bin/env python3
import os, socket, sys
open("srun.args", "w").write(" ".join(sys.argv[1:]))
listener = socket.create_server(("", int(os.environ["WFC_PORT"])))
sys.stdin.read()
open("srun.ended", "w").close()
""",
    "scontrol": """#!/bin/bash
case "$*" in
    "show hostnames"*) echo node1; echo node2;;
    "show job "*_*) echo "   Command=$SCRIPT";;
    "show job"*) echo "   Command=$SCRIPT"; echo "   Command=/of/another/task";; # the id of the whole array
    *) echo "$*" >> scontrol.calls;;
esac
""",
    # stands for WFC_PYTHON: reads the configuration as it is, then "runs" until it is told to stop or the file `go` is there
    "python": """#!/bin/bash
[ "$1" != -c ] || exec "$REAL_PYTHON" "$@"
trap 'echo USR1 >> signals; exit 75' USR1
trap 'echo TERM >> signals; exit 75' TERM
tr '\\0' ' ' < /proc/$$/cmdline > wfc.args
env > wfc.env
touch wfc.started
while [ ! -e go ]; do sleep 0.05 & wait $!; done
exit $(cat go)
""",
}


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    tree = {"run": {"name": "run", "dir": "."}, "base": {"model": "m"}, "rounds": [["a"]],
            "datasets": {"a": {"source": "a", "splits": {"train": "train.jsonl"}}}}  # fmt: skip
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    yield tmp_path
    while STARTED:  # a test that fails leaves its script, `srun` and Python running: one process group, named after the script
        process = STARTED.pop()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def start(place: Path, *arguments: str, script: str = "round.sh", **environment: str) -> subprocess.Popen[str]:
    job = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_ARRAY_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "WFC_INTERFACE": "lo",
        "REAL_PYTHON": sys.executable,
    }
    env = {**os.environ, **job, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "SCRIPT": str(SLURM / script), **environment}
    command = ["bash", SLURM / script, *arguments]
    with open(place / "out", "w") as out:
        STARTED.append(subprocess.Popen(command, cwd=place, env=env, stdout=out, stderr=out, text=True, start_new_session=True))
    return STARTED[-1]


def await_file(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None and time.monotonic() < end, (path.parent / "out").read_text()
        time.sleep(0.02)


def calls(place: Path) -> str:
    path = place / "scontrol.calls"
    return "".join(line for line in path.read_text().splitlines(True) if "requeue" in line) if path.exists() else ""


@pytest.mark.parametrize(
    ("number", "restarts", "requeued"), [(signal.SIGUSR1, 2, True), (signal.SIGUSR1, 3, False), (signal.SIGTERM, 0, False)]
)
def test_a_warning_reaches_wfc_once_and_requeues_a_bounded_number_of_times(
    place: Path, number: signal.Signals, restarts: int, requeued: bool
) -> None:
    process = start(place, "config.yaml", SLURM_RESTART_COUNT=str(restarts), WFC_MAX_REQUEUES="3")
    await_file(place / "wfc.started", process)
    process.send_signal(number)
    await_file(place / "signals", process)
    process.send_signal(signal.SIGTERM)  # the grace period is over while it ends

    assert process.wait(30) == 75
    assert (place / "signals").read_text() == "USR1\n"
    assert calls(place) == (f"requeue {os.getpid()}\n" if requeued else "")
    assert (place / "srun.ended").exists(), "Ray was left running"
    assert ("WFC_MAX_REQUEUES=3 is reached" in (place / "out").read_text()) == (restarts == 3)


@pytest.mark.parametrize("script", ["round.sh", "per-adapter.sh"])
@pytest.mark.parametrize(("restarts", "requeued"), [(2, True), (3, False)])
def test_what_passes_by_itself_requeues_a_bounded_number_of_times(
    place: Path, script: str, restarts: int, requeued: bool
) -> None:
    (place / "go").write_text("75")
    (place / "run").mkdir()
    (place / "run" / "stop").write_text("round 1: no trainer is left")  # its own, as status.json says
    (place / "run" / "status.json").write_text('{"by_itself": true, "state": "interrupted"}')
    process = start(place, "config.yaml", script=script, SLURM_RESTART_COUNT=str(restarts), WFC_MAX_REQUEUES="3")
    assert process.wait(30) == 75
    assert calls(place) == (f"requeue {os.getpid()}\n" if requeued else "")


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_exit_code_is_that_of_wfc_and_nothing_is_requeued_without_a_warning(place: Path, code: int) -> None:
    (place / "go").write_text(str(code))
    (place / "run").mkdir()
    (place / "run" / "stop").write_text("wfc stop")  # 75 was asked for
    process = start(place, "config.yaml", "train.lr=1e-4")

    assert process.wait(30) == code
    assert calls(place) == "" and (place / "srun.ended").exists()
    arguments = (place / "wfc.args").read_text()
    assert "config.yaml cluster.backend=ray cluster.address=127.0.0.1:" in arguments
    assert 'cluster.wait_for_nodes=["node1","node2"] train.lr=1e-4' in arguments, "what the user says comes last and wins"


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_a_coordinator_that_was_asked_to_stop_or_has_failed_is_not_requeued(place: Path, code: int) -> None:
    (place / "go").write_text(str(code))
    (place / "run").mkdir()
    (place / "run" / "stop").write_text("wfc stop")
    process = start(place, "config.yaml", "run.name=run", script="per-adapter.sh")
    assert process.wait(30) == code and calls(place) == ""
    assert "run --plain config.yaml run.name=run cluster.backend=slurm" in (place / "wfc.args").read_text()


def test_a_coordinator_that_is_cancelled_is_not_requeued(place: Path) -> None:
    process = start(place, "config.yaml", script="per-adapter.sh")
    await_file(place / "wfc.started", process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75 and calls(place) == ""


def test_the_token_is_fresh_and_on_no_command_line(place: Path) -> None:
    (place / "go").write_text("0")
    tokens = []
    for _ in range(2):
        assert start(place, "config.yaml", RAY_AUTH_TOKEN="stale", RAY_ADDRESS="elsewhere:1").wait(30) == 0
        env = dict(line.split("=", 1) for line in (place / "wfc.env").read_text().splitlines() if "=" in line)
        tokens.append(env["RAY_AUTH_TOKEN"])
        assert env["RAY_AUTH_MODE"] == "token" and "RAY_ADDRESS" not in env
        seen = (place / "wfc.args").read_text() + (place / "srun.args").read_text() + (place / "out").read_text()
        assert tokens[-1] not in seen
    assert len(set(tokens)) == 2 and all(len(token) == 64 for token in tokens)


def test_a_requeued_job_that_was_finished_ends_at_once(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "status.json").write_text('{"state": "done"}')
    process = start(place, "config.yaml", SLURM_RESTART_COUNT="1")
    assert process.wait(30) == 0
    assert "done already" in (place / "out").read_text() and not (place / "srun.args").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["bad.yaml"], {}, "cannot read the configuration bad.yaml"),
        ([], {}, "usage: sbatch slurm/round.sh CONFIG"),
        (["config.yaml"], {"SLURM_JOB_ID": ""}, "this is a batch script: sbatch"),
        (["config.yaml"], {"WFC_RAY_TMP": "/a/folder/with/a/very/long/name/on/scratch"}, "too long for Ray's sockets"),
        (["config.yaml"], {"SLURM_HET_SIZE": "2"}, "heterogeneous job, whose parts Ray cannot share"),
        (
            ["config.yaml"],
            {"WFC_SETUP": "module() { return 3; }; module load cuda"},
            "WFC_SETUP failed with exit code 3: module()",
        ),
        (["config.yaml"], {"WFC_INTERFACE": "nonsense0"}, "this node has no address of its own; set WFC_INTERFACE"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    place: Path, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    process = start(place, *arguments, **environment)
    assert process.wait(30) == 2
    assert said in (place / "out").read_text() and not (place / "srun.args").exists()


@pytest.mark.parametrize("script", ["round.sh", "per-adapter.sh"])
def test_a_setup_may_read_unset_variables_and_leave_options_behind(place: Path, script: str) -> None:
    setup = 'set -euo pipefail; set +u; test "$NO_SUCH_VARIABLE" = ""'
    process = start(place, "config.yaml", script=script, WFC_SETUP=setup, WFC_MAX_REQUEUES="3")
    await_file(place / "wfc.started", process)
    process.send_signal(signal.SIGUSR1)  # `wait` and what follows return codes above 0
    assert process.wait(30) in (75, 137)
    assert calls(place) == f"requeue {os.getpid()}\n"


@pytest.mark.parametrize("script", ["round.sh", "per-adapter.sh"])
def test_a_setup_that_ends_the_shell_is_named(place: Path, script: str) -> None:
    assert start(place, "config.yaml", script=script, WFC_SETUP="set -e; false; echo more").wait(30) == 1
    assert "WFC_SETUP ended the job at: set -e; false; echo more" in (place / "out").read_text()


def test_everything_runs_in_the_container(place: Path) -> None:
    (place / "go").write_text("0")
    (place / "bin" / "container").write_text('#!/bin/bash\n[ "$1 $2" = "exec my.sif" ] && IN_CONTAINER=yes exec "${@:3}"\n')
    (place / "bin" / "container").chmod(0o755)
    assert start(place, "config.yaml", WFC_CONTAINER="container exec my.sif").wait(30) == 0
    assert "IN_CONTAINER=yes" in (place / "wfc.env").read_text()
    assert 'exec ${WFC_CONTAINER:-} "$WFC_PYTHON" -m ray.scripts.scripts start' in (SLURM / "round.sh").read_text()


def test_a_host_may_be_called_by_a_number(place: Path) -> None:
    (place / "go").write_text("0")
    (place / "bin" / "scontrol").write_text('#!/bin/bash\n[ "$1" = show ] && echo 007 && echo 1e3\n')
    assert start(place, "config.yaml").wait(30) == 0
    said = next(word for word in (place / "wfc.args").read_text().split() if "wait_for_nodes" in word)
    assert load_config(place / "config.yaml", [said]).cluster.wait_for_nodes == ["007", "1e3"]


def test_the_words_of_a_line_may_be_quoted_and_the_scripts_path_may_have_blanks(place: Path) -> None:
    scripts = place / "my scripts"
    shutil.copytree(SLURM, scripts)
    shutil.copy(place / "config.yaml", place / "my config.yaml")
    (place / "list").write_text('\'my config.yaml\' "run.notify=say done" train.lr=1e-4\n"my config.yaml run.name=x\n')
    (place / "go").write_text("0")
    command = f"{scripts / 'array.sh'} list"  # as scontrol shows it
    assert start(place, "list", script="array.sh", SLURM_ARRAY_TASK_ID="1", SCRIPT=command).wait(30) == 0, (
        place / "out"
    ).read_text()
    arguments = (place / "wfc.args").read_text()
    assert "run --plain my config.yaml cluster.backend=ray" in arguments
    assert arguments.rstrip().endswith("run.notify=say done train.lr=1e-4")
    assert start(place, "list", script="array.sh", SLURM_ARRAY_TASK_ID="2", SCRIPT=command).wait(30) == 2
    assert "line 2 of list has an open quote" in (place / "out").read_text()


def test_a_task_of_an_array_runs_its_line(place: Path) -> None:
    (place / "list").write_text("# two runs\none.yaml\n\nconfig.yaml train.lr=1e-4 run.name=second\n")
    (place / "go").write_text("0")
    assert start(place, "list", script="array.sh", SLURM_ARRAY_TASK_ID="2").wait(30) == 0
    assert "config.yaml cluster.backend=ray" in (place / "wfc.args").read_text()
    assert (place / "wfc.args").read_text().rstrip().endswith("train.lr=1e-4 run.name=second")
    assert start(place, "list", script="array.sh", SLURM_ARRAY_TASK_ID="3").wait(30) == 2
    assert "list has 2 lines, none for task 3; give --array=1-2" in (place / "out").read_text()


def test_a_task_of_an_array_requeues_itself_alone(place: Path) -> None:
    (place / "list").write_text("config.yaml\n")
    process = start(place, "list", script="array.sh", SLURM_ARRAY_TASK_ID="1")
    await_file(place / "wfc.started", process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(30) == 75
    assert calls(place) == f"requeue {os.getpid()}_1\n"


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run(["shellcheck", "-x", *SLURM.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
