"""What an attempt runs on and with: versions, the machine of the coordinator, the command. Reads files only, and asks git."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("wfc-dist", "torch", "transformers", "peft", "accelerate", "deepspeed", "ray")
_GIT_TIMEOUT_S = 5


def describe_environment() -> dict[str, Any]:
    """Returns the facts of this process and this machine that help to repeat a run; what cannot be found out is left out.

    The keys are command, python, packages (name -> version), commit, system, cpu, num_cpus, gpus (a list) and driver.
    """
    facts = {
        "command": command_line(sys.argv),
        "python": platform.python_version(),
        "packages": package_versions(),
        "commit": commit_of(Path(__file__).parents[2]),
        "system": platform.platform(),
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor(),
        "num_cpus": os.cpu_count(),
        "gpus": gpus(),
        "driver": driver(),
    }
    return {key: value for key, value in facts.items() if value}


def package_versions() -> dict[str, str]:
    """Returns name -> version of the packages on which the bytes of a result depend; those that are installed."""
    return {name: found for name in _PACKAGES if (found := _version(name))}


def command_line(arguments: Sequence[str]) -> str:
    """Returns the command as it is typed: the program without its folder, arguments quoted where needed; "" of `python -c`."""
    program, *rest = arguments or [""]
    name = Path(program).name
    if name in ("", "-c"):
        return ""
    return shlex.join(["python", "-m", "wfc_dist", *rest] if name == "__main__.py" else [name, *rest])


def commit_of(folder: Path) -> str:
    """Returns the git commit of a checkout, with "-dirty" where tracked files are changed; "" where it is no checkout."""
    if not (folder / ".git").exists():
        return ""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns what the processor of this machine says that it can do, such as avx512_bf16; empty where the system has no list."""
    return frozenset(_field(path, "flags").split())


def gpus(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Returns the model of every NVIDIA GPU of this machine, as its driver names it."""
    return [model for path in sorted(folder.glob("*/information")) if (model := _field(path, "Model"))]


def driver(path: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Returns the version of the NVIDIA driver; "" without one."""
    words = _field(path, "NVRM version").split()
    return next((word for word in words if word[0].isdigit() and "." in word), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _field(path: Path, name: str) -> str:
    """Returns the first value of `name: value` in a file; "" where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")
