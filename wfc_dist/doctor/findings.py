"""A line of `wfc doctor`, and how all lines are shown. `--json` prints these classes: they are its schema (docs/json.md)."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

State = Literal["ok", "warning", "problem"]
_STRICT = {"extra": "forbid"}
"""As pydantic's ConfigDict; the doctor starts where pydantic is broken."""


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        state: problem: a run would fail. warning: it would be slow, or something is not known.
        topic: What was looked at, such as torch, disk, ray.
        what: What was found.
        advice: What to do; "" where nothing is to be done.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    state: State
    topic: str
    what: str
    advice: str


@dataclass(frozen=True)
class DoctorJson:
    """`wfc doctor --json`; `healthy` if nothing is a problem."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    healthy: bool
    findings: list[Finding]


def ok(topic: str, what: str) -> Finding:
    """Returns a line that needs nothing."""
    return Finding("ok", topic, what, "")


def warning(topic: str, what: str, advice: str = "") -> Finding:
    """Returns a line that may matter."""
    return Finding("warning", topic, what, advice)


def problem(topic: str, what: str, advice: str) -> Finding:
    """Returns a line that must be dealt with."""
    return Finding("problem", topic, what, advice)


def in_one_line(text: str, length: int = 300) -> str:
    """Returns a text without line breaks, cut in the middle where it is long: the end of an error says most."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length // 3]} ... {line[-2 * length // 3 :]}"


def as_text(findings: Sequence[Finding]) -> str:
    """Returns one line for each finding, and a last one with the sum."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = [
        f"{finding.state:<7}  {finding.topic:<{width}}  {finding.what}" + (f": {finding.advice}" if finding.advice else "")
        for finding in findings
    ]
    counts = [sum(finding.state == state for finding in findings) for state in ("problem", "warning")]
    return "\n".join([*lines, f"{counts[0]} problems, {counts[1]} warnings"])


def as_json(findings: Sequence[Finding]) -> str:
    """Returns one JSON object: healthy, and the findings."""
    return json.dumps(asdict(DoctorJson(is_healthy(findings), list(findings))), indent=1)


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Says whether nothing is a problem."""
    return all(finding.state != "problem" for finding in findings)
