"""Starting an embedded Ray node: a real one, with a GCS in front of it that does not start."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from processes import kill_tree

from wfc_dist.backends.ray import embedded
from wfc_dist.backends.ray.cluster import EMBEDDED_STORE_BYTES, prepare_environment
from wfc_dist.backends.ray.embedded import User, node
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import ConfigError, Interrupted

BROKEN = """#!/bin/sh
for word in "$@"; do case $word in --stderr_filepath=*) echo "no room in the database" >>"${word#*=}" ;; esac; done
exit 3
"""


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    prepare_environment(ClusterConfig())
    from ray._private import services

    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1")
    monkeypatch.setattr(embedded, "PAUSE_S", 0.0)
    gcs = tmp_path / "gcs_server"
    gcs.write_text(BROKEN)
    gcs.chmod(0o755)
    monkeypatch.setattr(services, "GCS_SERVER_EXECUTABLE", str(gcs))
    return services


@pytest.mark.process
def test_a_node_that_does_not_start_is_started_again_and_what_it_runs_is_deaf_to_signals(services, monkeypatch) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if len(said) == 2:
            monkeypatch.undo()

    others = set(psutil.Process().children(recursive=True))
    before, on_term = signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGTERM)
    with node(EMBEDDED_STORE_BYTES, User(say=say)):
        import ray

        assert ray.cluster_resources()["CPU"] >= 1
        assert (signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGTERM)) == (before, on_term)
        family = {process: process.name() for process in set(psutil.Process().children(recursive=True)) - others}
        assert set(embedded.VITAL) <= set(family.values())
        for process, name in family.items():
            blocked = int(Path(f"/proc/{process.pid}/status").read_text().partition("SigBlk:")[2].split()[0], 16)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                assert blocked >> (number - 1) & 1, f"{name} takes {number.name}"
    assert signal.getsignal(signal.SIGTERM) == on_term
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert len(said) == 2 and said[0].startswith("Ray did not start, attempt 1 of 3: ")
    assert "gcs_server ended with exit code 3" in said[0] and "gcs_server: no room in the database" in said[0]


@pytest.mark.process
def test_a_node_that_never_starts_can_be_tried_again_later(services) -> None:
    with pytest.raises(Interrupted, match=r"in 3 attempts: .*no room in the database.*the same command tries again"):  # noqa: SIM117
        with node(EMBEDDED_STORE_BYTES, User()):
            pass
    left = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
    assert [process for process in left if process.name() in embedded.VITAL] == []


@pytest.mark.process
def test_a_stop_is_noticed_between_two_attempts(services) -> None:
    def stopped(when: str) -> None:
        raise Interrupted(f"SIGTERM: stopped {when}")

    with (
        pytest.raises(Interrupted, match="stopped while Ray was started"),
        node(EMBEDDED_STORE_BYTES, User(raise_if_stopped=stopped)),
    ):
        pass


@pytest.mark.process
def test_a_folder_that_ray_cannot_use_is_a_matter_of_settings(monkeypatch, tmp_path: Path) -> None:
    prepare_environment(ClusterConfig())
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(ConfigError, match="AF_UNIX path length"), node(EMBEDDED_STORE_BYTES, User()):
        pass
    assert os.environ["RAY_TMPDIR"] == str(long)


STARTING = """
import sys, threading, time
import psutil
from wfc_dist import activity
from wfc_dist.backends.ray import embedded
from wfc_dist.backends.ray.cluster import EMBEDDED_STORE_BYTES, prepare_environment
from wfc_dist.config.cluster import ClusterConfig

def hit() -> None:
    while True:
        for process in psutil.Process().children():
            if process.name() == sys.argv[3]:
                time.sleep(float(sys.argv[2]))
                process.send_signal(int(sys.argv[1]))
                return
        time.sleep(0.002)

embedded.STARTING_S = embedded.STOPPED_S = 3.0
embedded.START_LIMIT_S = 20
activity.may_end_process = True
prepare_environment(ClusterConfig())
threading.Thread(target=hit, daemon=True).start()
with embedded.node(EMBEDDED_STORE_BYTES, embedded.User()):
    time.sleep(10)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "number", "after_s"),
    [("gcs_server", signal.SIGKILL, 0.0), ("gcs_server", signal.SIGKILL, 0.5), ("gcs_server", signal.SIGSTOP, 0.0),
     ("raylet", signal.SIGSTOP, 0.0)],
)  # fmt: skip
def test_what_is_lost_while_ray_starts_ends_a_command_with_75_or_is_started_again(name: str, number: int, after_s: float) -> None:
    command = [sys.executable, "-c", STARTING, str(int(number)), str(after_s), name]
    environment = os.environ | {"RAY_gcs_server_port_wait_time_s": "3"}  # Ray's own limit in this one part of the start
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            _, said = process.communicate(timeout=50)  # Ray itself would end it with 1 after 60
        finally:
            kill_tree(process)
    if process.returncode == 0:
        assert "Ray did not start, attempt 1 of 3" in said
    else:
        assert process.returncode == 75 and re.search("the same command (goes on from the last checkpoints|tries again)", said)
