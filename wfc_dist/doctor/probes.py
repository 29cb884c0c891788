"""Looks that load heavy or broken packages. Each runs in a process of its own, which may crash or hang.

python -m wfc_dist.doctor.probes NAME [ARGUMENT]...     prints a line of JSON for each thing found
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from wfc_dist.errors import WfcError


def run_probe(name: str, *arguments: str, timeout_s: float) -> tuple[list[Any], str]:
    """Runs a probe in a child process.

    Returns:
        What it has printed, and why it did not end well; "" if it did.
    """
    command = [sys.executable, "-m", "wfc_dist.doctor.probes", name, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        try:
            out, err = child.communicate(timeout=timeout_s)
            why = "" if child.returncode == 0 else _end_of(child.returncode, err)
        except subprocess.TimeoutExpired:
            _end(child)
            out, why = child.communicate()[0], f"took longer than {timeout_s:g} s"
    lines = [line for line in out.splitlines() if line.startswith(_MARK)]
    return [json.loads(line.removeprefix(_MARK)) for line in lines], why


def _end_of(code: int, err: str) -> str:
    words = [line for line in err.splitlines() if line.strip()]
    return f"ended by signal {-code}" if code < 0 else (words[-1] if words else f"exit code {code}")


def _end(child: "subprocess.Popen[str]") -> None:
    import os
    import signal

    os.killpg(child.pid, signal.SIGKILL)  # the child leads a session: a Ray that it has started ends, too


_MARK = "wfc-doctor "


def _tell(fact: Any) -> None:
    print(_MARK + json.dumps(fact), flush=True)


def imports(*modules: str) -> None:
    """Tells [module, error or ""] of each; a crash ends the process before the module is told of."""
    for module in modules:
        try:
            importlib.import_module(module)
            _tell([module, ""])
        except BaseException as error:  # a broken package may raise anything, SystemExit included
            _tell([module, f"{type(error).__name__}: {error}"])


def torch_facts() -> None:
    """Tells what torch says of this machine."""
    import torch

    cuda = [
        {"name": torch.cuda.get_device_name(index), "gib": torch.cuda.get_device_properties(index).total_memory / 2**30}
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    _tell({
        "version": torch.__version__, "cuda_build": torch.version.cuda, "hip_build": torch.version.hip, "devices": cuda,
        "bf16": bool(cuda) and torch.cuda.is_bf16_supported(), "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    })  # fmt: skip
    if cuda:
        a = torch.ones(8, 8, device="cuda")
        assert float((a @ a).sum()) == 512


def ray_nodes(address: str, folder: str, run_dir: str, root: str) -> None:
    """Joins the Ray cluster at an address, or starts a node here for ""; tells of its nodes, and of those that a run refuses.

    Args:
        address: Of the cluster.
        folder: A folder that every node must see as this one does; "" where they need not share one. Gets a file for a moment.
        run_dir: The run directory, for messages.
        root: Folder of the root model that every node must see; "" where it is none.
    """
    import os
    import uuid
    from pathlib import Path

    from wfc_dist.backends.ray.cluster import alive_nodes, connected, prepare_environment
    from wfc_dist.config.cluster import ClusterConfig

    cluster = ClusterConfig(address=address or None)
    prepare_environment(cluster)
    marker = Path(folder) / f".wfc-doctor-{uuid.uuid4().hex}" if folder else None
    with connected(cluster):
        import ray

        from wfc_dist.backends.ray.admission import Admission

        nodes = alive_nodes()
        _tell([{"name": node.name, "cpus": node.cpus, "gpus": node.gpus, "draining": node.draining} for node in nodes])
        try:
            admission = Admission(Path(run_dir), marker, root=root, timeout_s=60)
            admission.query([node for node in nodes if not node.draining])
            admission.collect_replies(60)
        finally:
            if marker:
                marker.unlink(missing_ok=True)
        has_token = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        refused = sorted((admission.refused | admission.unable).values())
        _tell({"version": ray.__version__, "has_token": has_token, "refused": refused})


def objects(url: str) -> None:
    """Lists, writes, reads back and removes one small object below a URL; tells each step that worked."""
    import uuid

    from wfc_dist.storage.objects import Objects

    store, name, data = Objects(url), f"wfc-doctor-{uuid.uuid4().hex}", uuid.uuid4().bytes
    store.list(name)
    _tell("list")
    store.write(name, data)
    _tell("write")
    try:
        assert store.read(name) == data, "another text was read than was written"
        _tell("read")
    finally:
        store.remove(name)
    assert store.read(name) is None, "the object is still there after it was removed"
    _tell("delete")


def model(folder: str) -> None:
    """Checks a model folder as a run does."""
    from pathlib import Path

    from wfc_dist.weights.checkpoint import check

    check(Path(folder))


def slurm(path: str, *overrides: str) -> None:
    """Asks Slurm whether it would take the jobs of a configuration."""
    from wfc_dist.backends.slurm.backend import check
    from wfc_dist.config.loading import load_config

    check(load_config(path, overrides))


PROBES: dict[str, Callable[..., None]] = {
    "imports": imports, "torch": torch_facts, "ray": ray_nodes, "objects": objects, "model": model, "slurm": slurm,
}  # fmt: skip


if __name__ == "__main__":
    try:
        PROBES[sys.argv[1]](*sys.argv[2:])
    except WfcError as error:
        sys.exit(" ".join(error.message.split()))
