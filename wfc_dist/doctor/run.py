"""Puts the checks together. Loads nothing but the standard library until a check needs more."""

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wfc_dist.doctor.findings import Finding, as_json, as_text, in_one_line, is_healthy, ok, problem
from wfc_dist.doctor.packages import check_packages
from wfc_dist.errors import EXIT_FAILED, EXIT_USAGE, WfcError

_USAGE = "usage: wfc doctor [CONFIG [KEY.PATH=VALUE]...] [--json] [--network]"


def findings(path: Path | None, overrides: Sequence[str], *, may_ask: bool) -> Iterator[Finding]:
    """Yields all lines, in the order of the checks.

    Args:
        path: A configuration; None looks at the installation, this machine, a local Ray, and Slurm if it is here.
        overrides: Of the configuration.
        may_ask: Whether the hub may be asked.
    """
    yield from check_packages()
    config: Any = None
    if path is not None:
        try:
            config = importlib.import_module("wfc_dist.config.loading").load_config(path, overrides)
            yield ok("configuration", f"{path} is one")
        except WfcError as error:
            yield problem("configuration", in_one_line(error.message, 1000), "see the message")
        except Exception as error:  # a package of the configuration's is broken
            yield problem("configuration", f"cannot be read ({in_one_line(repr(error))})", "see the packages above")
    yield from _guarded("machine", lambda: _machine(config))
    if config is None or config.cluster.backend == "ray":
        yield from _guarded("ray", lambda: _sites().check_ray(config))
    yield from _guarded("slurm", lambda: _sites().check_slurm(config, path, overrides))
    if config is not None:
        yield from _guarded("configuration", lambda: _sites().check_config(config, may_ask=may_ask))
    else:
        yield from _guarded("hub", lambda: [_sites().check_hub(None, may_ask=may_ask)])


def _sites() -> Any:
    return importlib.import_module("wfc_dist.doctor.sites")


def _machine(config: Any) -> Iterator[Finding]:
    from wfc_dist.doctor.machine import check_machine

    if config is None:
        return check_machine(Path.cwd(), is_url=False, wants_gpu=False)
    return check_machine(
        config.run_dir(), is_url=config.run_url() is not None, wants_gpu=config.cluster.gpus_per_worker > 0,
        must_share=config.cluster.backend == "slurm",
    )  # fmt: skip


def _guarded(topic: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yields the lines of a check; one that breaks is a line, too."""
    try:
        yield from check()
    except Exception as error:  # whatever a broken installation raises
        yield problem(topic, f"could not be looked at ({in_one_line(repr(error))})", "see the packages above")


def diagnose(path: Path | None, overrides: Sequence[str] = (), *, json: bool = False, may_ask: bool = False) -> int:
    """Prints all lines, and returns the exit code: 0 if nothing is a problem, else 1."""
    found = list(findings(path, overrides, may_ask=may_ask))
    print(as_json(found) if json else as_text(found))
    return 0 if is_healthy(found) else EXIT_FAILED


def main(arguments: Sequence[str]) -> int:
    """Does `wfc doctor` where the command line's own packages are broken."""
    options = {word for word in arguments if word.startswith("-")}
    words = [word for word in arguments if not word.startswith("-")]
    if unknown := options - {"--json", "--network"}:
        print(f"{_USAGE}\nwfc doctor: no such option: {' '.join(sorted(unknown))}", file=sys.stderr)
        return EXIT_USAGE
    path = Path(words[0]) if words else None
    return diagnose(path, words[1:], json="--json" in options, may_ask="--network" in options)
