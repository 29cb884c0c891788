"""What lies beyond this machine: Ray, Slurm, object storage, the hub; and the model and extras of a configuration."""

import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wfc_dist.doctor.findings import Finding, in_one_line, ok, problem, warning
from wfc_dist.doctor.machine import existing
from wfc_dist.doctor.probes import run_probe

if TYPE_CHECKING:
    from wfc_dist.backends.slurm.client import Partition
    from wfc_dist.config.schema import Config

RAY_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 120.0
_UNABLE = ("down", "drain", "fail", "unknown", "maint", "inval", "error", "future")
_CGROUP = ("ProctrackType", "TaskPlugin", "AccountingStorageType")


def check_ray(config: "Config | None") -> Iterator[Finding]:
    """Yields lines on the cluster of `cluster.address` or RAY_ADDRESS, or on a node that is started here for a moment.

    Every node of a cluster is asked for its versions, and whether it sees the run directory and the root model of `config`.
    """
    address = (config.cluster.address if config else None) or os.environ.get("RAY_ADDRESS") or ""
    where = f"the cluster at {address}" if address else "a node of its own on this machine"
    folder, run_dir, root = "", "", ""
    if address and config:
        root = str(Path(config.base.model).resolve()) if Path(config.base.model).is_dir() else ""
        run_dir = "" if config.run_url() else str(config.run_dir().absolute())
        above = existing(Path(run_dir or "/"))
        folder = str(above) if run_dir and os.access(above, os.W_OK) else ""
    told, why = run_probe("ray", address, folder, run_dir, root, timeout_s=RAY_TIMEOUT_S)
    if why or len(told) < 2:
        advice = (
            "see the message; `ray status` on a node says more" if address else "pip install --force-reinstall 'ray[default]'"
        )
        yield problem("ray", f"{where} did not run a task ({in_one_line(why)})", advice)
        return
    nodes, facts = told
    cpus, gpus = (sum(node[kind] for node in nodes) for kind in ("cpus", "gpus"))
    token = "with a token" if facts["has_token"] else "without a token"
    each = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}, {cpus:g} cores, {gpus:g} GPUs, {token}"
    yield ok("ray", f"{facts['version']}, {where} runs tasks: {each}")
    for why in facts["refused"]:
        yield problem("ray node", in_one_line(why), "a run refuses this node; make it like the others, or take it out")
    if leaving := [node["name"] for node in nodes if node["draining"]]:
        yield warning("ray", f"nodes that are about to leave: {', '.join(leaving)}")


def check_slurm(config: "Config | None", path: Path | None, overrides: Sequence[str]) -> Iterator[Finding]:
    """Yields lines on the Slurm site; of its jobs, too, if the configuration, which was read from `path`, wants Slurm."""
    from wfc_dist.backends.slurm.client import COMMANDS, SlurmError, call, partitions

    is_wanted = config is not None and config.cluster.backend == "slurm"
    lacking = [name for name in COMMANDS if shutil.which(name) is None]
    if lacking and not is_wanted:
        yield ok("slurm", "not on this machine")
        return
    if lacking:
        yield problem("slurm", f"commands are missing here: {', '.join(lacking)}", "use a login node, or another cluster.backend")
        return
    try:
        site = partitions()
        lines = [line.partition("=") for line in call("scontrol", "show", "config").splitlines()]
        settings = {key.strip(): value.strip() for key, _, value in lines}
    except SlurmError as error:
        yield Finding(
            "problem" if is_wanted else "warning", "slurm", f"does not answer ({error.message})", "ask the site's admins"
        )
        return
    shown = ", ".join(f"{part.name} ({part.state}{', default' if part.is_default else ''})" for part in site)
    yield ok("slurm", f"partitions: {shown or 'none'}; " + ", ".join(f"{key} {settings.get(key, '?')}" for key in _CGROUP))
    if "cgroup" not in settings.get("ProctrackType", ""):
        yield warning(
            "slurm", "does not hold processes in control groups", "what a job leaves behind may live on; tell the admins"
        )
    if "none" in settings.get("AccountingStorageType", "none"):
        yield warning(
            "slurm", "keeps no accounting", "ends of jobs are known for minutes only; the run's own files tell the rest"
        )
    yield from _partitions_of_jobs(config.cluster.slurm.partition if config and is_wanted else None, site)
    if is_wanted:
        _, why = run_probe("slurm", str(path), *overrides, timeout_s=PROBE_TIMEOUT_S)
        yield problem("slurm jobs", in_one_line(why), "see the message") if why else ok("slurm jobs", "Slurm would take them")


def _partitions_of_jobs(wanted: str | None, site: Sequence["Partition"]) -> Iterator[Finding]:
    """Yields lines on the partitions that jobs go to: those that are named, or else the default one."""
    from wfc_dist.backends.slurm.client import call

    names = [name.strip() for name in wanted.split(",")] if wanted else []
    for part in site:
        if part.name not in names and not (part.is_default and not names):
            continue
        able: dict[str, int] = {}
        unable: list[str] = []
        gres = set()
        for line in call("sinfo", "--noheader", "--Node", f"--partition={part.name}", "--format=%N|%T|%G|%E").splitlines():
            node, state, has, reason = line.strip().split("|", 3)
            if state.startswith(_UNABLE) or state.endswith("*"):  # a star: the node does not answer
                unable.append(f"{node} is {state}" + (f" ({reason})" if reason not in ("none", "") else ""))
            else:
                able[state] = able.get(state, 0) + 1
                gres |= {has} - {"(null)"}
        limit = "no time limit" if part.limit_min is None else f"at most {part.limit_min:g} min a job"
        nodes = ", ".join(f"{count} {state}" for state, count in able.items()) or "none"
        topic = f"partition {part.name}"
        found = f"{limit}; nodes that take jobs: {nodes}; {', '.join(sorted(gres)) or 'no GPUs'}"
        yield (
            ok(topic, found) if able else problem(topic, found, "name another cluster.slurm.partition, or ask the site's admins")
        )
        if unable:
            yield warning(topic, f"takes no jobs on some nodes: {in_one_line(', '.join(unable))}", "ask the site's admins")


def check_objects(url: str) -> Finding:
    """Lists, writes, reads and deletes one small object below a URL."""
    told, why = run_probe("objects", url.rstrip("/"), timeout_s=PROBE_TIMEOUT_S)
    if why:
        done = f"after {', '.join(told)}" if told else "at once"
        return problem("object storage", f"{url} failed {done} ({in_one_line(why)})", "check bucket, credentials and endpoint")
    return ok("object storage", f"{url}: {', '.join(told)} one small object")


def check_hub(model: str | None, *, may_ask: bool) -> Finding:
    """Says whether the hub can be used; asks it only if `may_ask`, without a token."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return ok("hub", "offline (HF_HUB_OFFLINE): models and data come from this machine")
    if not may_ask:
        return ok("hub", f"{endpoint} was not asked; --network asks it")
    url = f"{endpoint}/api/models/{urllib.parse.quote(model)}" if model else f"{endpoint}/api/models?limit=1"
    try:
        with urllib.request.urlopen(url, timeout=15) as answer:
            return ok("hub", f"{endpoint} answers ({answer.status}){f', {model} is there' if model else ''}")
    except urllib.error.HTTPError as error:
        return warning(
            "hub", f"{endpoint} answers {error.code} for {model or 'models'}", "check the name, and HF_TOKEN if it is gated"
        )
    except (OSError, http.client.HTTPException, ValueError) as error:
        return warning(
            "hub", f"{endpoint} does not answer ({in_one_line(str(error))})", "use a folder as base.model, or HF_HUB_OFFLINE=1"
        )


def check_config(config: "Config", *, may_ask: bool) -> Iterator[Finding]:
    """Yields lines on the model, the extras, the object storage and the hub of a configuration."""
    from wfc_dist.errors import WfcError
    from wfc_dist.tracking.catalog import require_trackers

    try:
        require_trackers(config)
    except WfcError as error:
        yield problem("trackers", error.message, "see the message")
    if config.run_url():
        yield check_objects(config.run.dir)
    is_folder = Path(config.base.model).is_dir()
    if is_folder:
        _, why = run_probe("model", config.base.model, timeout_s=PROBE_TIMEOUT_S)
        yield problem("model", in_one_line(why), "see the message") if why else ok("model", f"{config.base.model} is complete")
    yield check_hub(None if is_folder else config.base.model, may_ask=may_ask)
