"""A run in a Ray cluster that somebody else has started, on loopback: its GCS dies, and comes back."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.backends import net
from wfc_dist.runs.handle import Run

RECONNECT_S = 20


@contextlib.contextmanager
def head(port: int, environment: dict[str, str]) -> Iterator[psutil.Process]:
    """Starts a head node; yields its GCS. At the end nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:  # sockets have short names
        try:
            ray = Path(sys.executable).parent / "ray"
            subprocess.run(
                [str(ray), "start", "--head", "--port", str(port), "--node-ip-address", "127.0.0.1",
                 "--temp-dir", folder, "--num-cpus", "2", "--object-store-memory", str(128 * 2**20), "--include-dashboard=false",
                 "--disable-usage-stats"],
                env={**os.environ, **environment}, check=True, capture_output=True, text=True, timeout=180,
            )  # fmt: skip
            (gcs,) = [process for process in of(folder) if process.name() == "gcs_server"]
            yield gcs
        finally:
            left = of(folder)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def of(folder: str) -> list[psutil.Process]:
    """Returns the processes of the head, and the workers that they have started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(folder in word for word in process.cmdline()):
                found += [process, *process.children(recursive=True)]
    return list(dict.fromkeys(found))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_gcs_that_dies_or_stops_ends_the_run_with_75_and_the_same_command_goes_on(tmp_path: Path, number: int) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a", "b"]], evaluate={"adapters": False})
    run_dir, held, log, port = tmp_path / "runs" / "tiny", tmp_path / "held", tmp_path / "log", net.free_port("127.0.0.1")
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_enable_metrics_collection": "0",
                   "RAY_gcs_rpc_server_reconnect_timeout_s": str(RECONNECT_S)}  # fmt: skip
    command = ("run", config, "cluster.backend=ray", f"cluster.address=127.0.0.1:{port}", "--plain")
    with head(port, {**environment, "WFC_HOLD_AT": f"merge={held}"}) as gcs:  # workers have the environment of their node
        process = start_wfc(*command, log=log, **environment)
        try:
            assert wait_for(held, process), log.read_text()
            gcs.send_signal(number)
            assert process.wait(120) == 75, log.read_text()
        finally:
            kill_tree(process)
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["by_itself"]) == ("interrupted", 75, True)
    assert (
        status["message"].startswith("the GCS of the Ray cluster at ") and f":{port} has not answered for 1" in status["message"]
    )
    assert status["message"].endswith("start the cluster again; the same command goes on from the last checkpoints")
    assert f"wfc: {status['message']}" in log.read_text()

    held.unlink()
    with head(port, environment):
        wfc(*command, **environment)
    assert Run(run_dir).base().index == 1 and Run(run_dir).status().state == "done"
    stopped = [line["reason"] for line in Run(run_dir).ledger() if line["event"] == "stopped"]
    assert stopped == [status["message"]]
