"""Python, the packages that wfc-dist asks for, those that they ask for, and the extras."""

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from wfc_dist.doctor.findings import Finding, in_one_line, ok, problem, warning
from wfc_dist.doctor.probes import run_probe

OURS = "wfc-dist"
IMPORT_TIMEOUT_S = 180.0
_MODULES = {"pyyaml": "yaml", "mlflow-skinny": "mlflow"}
_NOT_FOR_USERS = ("dev", "docs")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_packages() -> Iterator[Finding]:
    """Yields a line for Python, for each package that is wrong, and for each extra."""
    yield _python()
    try:
        wanted = metadata.requires(OURS) or []
    except metadata.PackageNotFoundError:
        yield problem(OURS, "not installed as a package", "pip install wfc-dist, or pip install -e . in a clone")
        return
    plain = [text for text in wanted if "extra ==" not in text]
    bad = list(_unmet(plain, f"pip install '{OURS}'"))
    names = [name for name in map(_name, plain) if _version(name)]
    broken = list(_broken(names))
    yield from bad
    yield from broken
    if not bad and not broken:
        yield ok("packages", f"all {len(plain)} that wfc-dist needs are here and can be imported")
    yield from _pairs(names)
    yield from _extras(wanted)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return ok("python", f"{found}, {sys.executable}")


def _name(requirement: str) -> str:
    match = _NAME.match(requirement)
    return match[0].lower().replace("_", "-") if match else requirement


def _module(name: str) -> str:
    return _MODULES.get(name, name.replace("-", "_"))


def _version(name: str) -> str | None:
    """Returns the version of an installed distribution; None if it is missing or its records are damaged."""
    try:
        return metadata.version(name) or None
    except metadata.PackageNotFoundError:
        return None


def _requirement(text: str) -> Any:
    from packaging.requirements import Requirement

    return Requirement(text)


def _unmet(requirements: Sequence[str], command: str) -> Iterator[Finding]:
    for text in requirements:
        name = _name(text)
        version = _version(name)
        if version is None:
            yield problem(name, "is missing", command)
            continue
        try:
            specifier = _requirement(text).specifier
        except Exception as error:  # packaging itself is missing or broken
            yield warning(name, f"{version} was not compared with what is needed ({in_one_line(str(error))})")
            continue
        if not specifier.contains(version, prereleases=True):
            yield problem(name, f"{version} is here, {specifier} is needed", f"pip install --upgrade '{name}{specifier}'")


def _broken(names: Sequence[str]) -> Iterator[Finding]:
    """Yields a line for each package that cannot be imported. What crashes takes only itself along."""
    left = [(_module(name), name) for name in names]
    while left:
        told, why = run_probe("imports", *(module for module, _ in left), timeout_s=IMPORT_TIMEOUT_S)
        for (_, name), (_, error) in zip(left, told, strict=False):
            if error:
                yield _cannot(name, error)
        left = left[len(told) :]
        if left:
            yield _cannot(left[0][1], why or "the process ended while it was imported")
            left = left[1:]


def _cannot(name: str, error: str) -> Finding:
    return problem(name, f"cannot be imported ({in_one_line(error)})", f"pip install --force-reinstall {name}")


def _pairs(names: Sequence[str]) -> Iterator[Finding]:
    """Yields a line for each package that another one wants in another version, or that is missing for it."""
    for name in names:
        for text in metadata.requires(name) or []:
            try:
                needed = _requirement(text)
                applies = needed.marker is None or needed.marker.evaluate({"extra": ""})
            except Exception:  # told by `_unmet`, or written in a way that nobody can read
                continue
            version = _version(needed.name)
            if applies and version is None:
                yield problem(
                    needed.name, f"is missing, {name} {_version(name)} needs it", f"pip install '{needed.name}{needed.specifier}'"
                )
            elif applies and not needed.specifier.contains(version, prereleases=True):
                yield problem(
                    needed.name, f"{version} is here, {name} {_version(name)} needs {needed.specifier}",
                    f"pip install '{needed.name}{needed.specifier}'",
                )  # fmt: skip


def _extras(wanted: Sequence[str]) -> Iterator[Finding]:
    names = metadata.metadata(OURS).get_all("Provides-Extra") or []
    present, absent = [], []
    for extra in sorted(set(names) - set(_NOT_FOR_USERS)):
        needs = [text.partition(";")[0].strip() for text in wanted if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", text)]
        if needs and all(_version(_name(text)) for text in needs):
            bad = [*_unmet(needs, f"pip install '{OURS}[{extra}]'"), *_broken([_name(text) for text in needs])]
            yield from (Finding("warning", finding.topic, f"extra {extra}: {finding.what}", finding.advice) for finding in bad)
            present += [] if bad else [extra]
        elif needs:
            absent.append(extra)
    yield ok(
        "extras", f"here: {', '.join(present) or 'none'}; not here: {', '.join(absent) or 'none'} (pip install '{OURS}[NAME]')"
    )
