"""This machine: processor, GPUs, memory, home, and the file system of the run directory."""

import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from wfc_dist.doctor.findings import Finding, in_one_line, ok, problem, warning
from wfc_dist.doctor.probes import run_probe

TORCH_TIMEOUT_S = 120.0
ROOMY_BYTES, TIGHT_BYTES = 20 * 2**30, 2 * 2**30
SHARED = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "fuse", "cifs", "smb", "9p", "afs", "panfs", "wekafs")


def check_machine(run_dir: Path, *, is_url: bool, wants_gpu: bool, must_share: bool = False) -> Iterator[Finding]:
    """Yields a line for each part of the machine.

    Args:
        run_dir: Where runs will be; need not exist.
        is_url: Whether the runs are on object storage, and `run_dir` is the mirror of one.
        wants_gpu: Whether the configuration asks for GPUs.
        must_share: Whether other nodes must see `run_dir`, and nobody asks them.
    """
    yield from _processor()
    yield from _torch(wants_gpu=wants_gpu)
    yield _memory()
    yield _home()
    yield from _folder(run_dir, is_url=is_url, must_share=must_share and not is_url)


def _processor() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.split())
                break
    fast = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    bf16 = "bf16 in hardware" if flags & {"avx512_bf16", "amx_bf16"} else "no bf16 in hardware, fp32 is faster"
    yield ok(
        "processor", f"{usable} usable cores of {os.cpu_count()}, {platform.machine()}, {' '.join(fast) or 'no AVX2'}; {bf16}"
    )
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > usable:
        yield warning("threads", f"OMP_NUM_THREADS is {threads}, with {usable} usable cores", "unset it, or lower it")


def _driver() -> str | None:
    """Returns the version of NVIDIA's driver; None where there is none."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else None


def _torch(*, wants_gpu: bool) -> Iterator[Finding]:
    told, why = run_probe("torch", timeout_s=TORCH_TIMEOUT_S)
    driver = _driver()
    if not told:
        yield problem("torch", f"does not answer ({in_one_line(why)})", "pip install --force-reinstall torch")
        return
    (facts,) = told
    build = facts["cuda_build"] or facts["hip_build"] or "CPUs only"
    yield ok("torch", f"{facts['version']}, built for {build}, {facts['threads']} threads, {facts['cpu']}")
    if why:
        yield problem("gpu", f"{len(facts['devices'])} are there, but a product on one fails ({in_one_line(why)})",
                      "install a torch that is built for this GPU and driver")  # fmt: skip
    elif facts["devices"]:
        names = ", ".join(f"{device['name']} ({device['gib']:.0f} GiB)" for device in facts["devices"])
        yield ok("gpu", f"{names}; driver {driver or 'unknown'}; {'bf16' if facts['bf16'] else 'no bf16, use fp16 or fp32'}")
    elif driver:
        yield problem("gpu", f"the driver {driver} is here, but torch (built for {build}) sees no GPU",
                      "install a torch built for CUDA that this driver supports, or look at CUDA_VISIBLE_DEVICES")  # fmt: skip
    elif wants_gpu:
        yield warning("gpu", "none on this machine; cluster.gpus_per_worker asks for GPUs", "they must be on other nodes")
    else:
        yield ok("gpu", "none on this machine; trainers use the processor")


def _memory() -> Finding:
    facts = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            facts[line.split(":")[0]] = int(line.split()[1]) * 1024
    limit = None
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(name).read_text(encoding="utf-8"))
            break
    free = facts.get("MemAvailable")
    if free is None:
        return warning("memory", "is not known on this system")
    free = min(free, limit) if limit else free
    what = f"{free / 2**30:.1f} GiB can be used"
    return ok("memory", what) if free >= 2 * TIGHT_BYTES else warning("memory", what, "whisper-base needs about 2 GiB a trainer")


def _home() -> Finding:
    home = Path(os.path.expanduser("~"))
    try:
        with tempfile.TemporaryFile(dir=home):
            return ok("home", f"{home} can be written")
    except OSError as error:
        return warning("home", f"{home} cannot be written ({error.strerror})",
                       "set HF_HOME and cluster.cache_dir to folders that can be written")  # fmt: skip


def existing(folder: Path) -> Path:
    """Returns a folder, or the nearest folder above it that is there."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _kind(folder: Path) -> str:
    """Returns the type of a folder's file system; "" where it is not known."""
    best = ("", "")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
            _, mount, kind, *_ = line.split()
            if Path(mount.replace("\\040", " ")) in (folder, *folder.parents) and len(mount) >= len(best[0]):
                best = (mount, kind)
    return best[1]


def _folder(run_dir: Path, *, is_url: bool, must_share: bool) -> Iterator[Finding]:
    folder = existing(run_dir)
    topic, key = ("mirror", "cluster.cache_dir") if is_url else ("run directory", "run.dir")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".wfc-doctor-") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        yield problem(topic, f"no file can be made and locked in {folder} ({error.strerror})",
                      f"set {key} to a folder that can be written, on a file system with locks")  # fmt: skip
        return
    kind, free = _kind(folder), shutil.disk_usage(folder).free
    is_shared = kind.startswith(SHARED)
    shared = "shared between nodes" if is_shared else "of this machine only, as it seems"
    what = f"{folder}: files can be made and locked; {kind or 'unknown file system'}, {shared}"
    if must_share and not is_shared:
        yield warning(topic, what, f"every node must see it; set {key} to a shared file system or object storage")
    else:
        yield ok(topic, what)
    what = f"{free / 2**30:.1f} GiB are free in {folder}"
    if free < TIGHT_BYTES:
        yield problem("disk", what, f"make room, or set {key} elsewhere")
    elif free < ROOMY_BYTES:
        yield warning("disk", what, "`wfc plan CONFIG` says how many bytes a run writes")
    else:
        yield ok("disk", what)
    if kind == "tmpfs":
        yield warning("disk", f"{folder} is in memory, and gone after a restart", f"set {key} to a disk")
