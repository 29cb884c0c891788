"""Where every second of a run went: the spans of all its processes, side by side, from their events files."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wfc_dist.storage import durable

PHASES: Mapping[str, Sequence[str]] = {
    "training": ("train",),
    "dev": ("dev",),
    "checkpoint": ("checkpoint",),
    "scoring": ("evaluate", "score"),
    "loading": ("start_ray", "admission", "open_root", "verify_root", "load_base", "fetch_base", "receive", "broadcast"),
    "merging": ("centralize", "average", "merge", "fetch", "write_delta", "write_base", "commit_base", "commit_interim"),
    "recording": ("commit_adapter", "append_ledger", "publish_checkpoint", "serve"),
    "waiting for trainers": ("factorize",),
}
"""Phase -> the spans that are part of it."""
IDLE = "idle"
_PHASE_OF = {span: phase for phase, spans in PHASES.items() for span in spans}


@dataclass(frozen=True)
class Span:
    """One phase of one process.

    Attributes:
        process: coordinator, gang-0-rank-0, centralizer-1, ...
        name: Of the span, such as train.
        start_s, end_s: Seconds since the first event of the attempt, by the hosts' own clocks.
        about: The data set, model or base it is about.
    """

    process: str
    name: str
    start_s: float
    end_s: float
    about: str = ""

    @property
    def phase(self) -> str:
        """The phase it is part of; its own name where none is known."""
        return _PHASE_OF.get(self.name, self.name)


def read_attempts(run_dir: Path) -> dict[int, list[Span]]:
    """Returns attempt -> spans in the order of their starts, from RUN/round-*/logs/attempt-*/events-*.jsonl.

    A span that was cut off (its process was killed) ends with the last event of its process.
    """
    files: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for path in sorted(run_dir.glob("round-*/logs/attempt-*/events-*.jsonl")):
        attempt, process = int(path.parent.name.removeprefix("attempt-")), path.stem.removeprefix("events-")
        events = [json.loads(line) for line in durable.read_lines(path)]
        files.setdefault(attempt, {}).setdefault(process, []).extend(events)
    attempts = {}
    for attempt, events_of in sorted(files.items()):
        first_s = min(event["time_s"] for events in events_of.values() for event in events)
        spans = [span for process, events in events_of.items() for span in _spans(process, events, first_s)]
        attempts[attempt] = sorted(spans, key=lambda span: (span.start_s, -span.end_s, span.process))
    return attempts


def _spans(process: str, events: Sequence[Mapping[str, Any]], first_s: float) -> Iterator[Span]:
    begun: dict[str, list[Mapping[str, Any]]] = {}
    last_s = max(event["time_s"] for event in events) - first_s
    for event in events:
        name, _, moment = event["event"].rpartition(".")
        if moment == "start":
            begun.setdefault(name, []).append(event)
        elif moment == "end" and begun.get(name):
            start_s = begun[name].pop()["time_s"] - first_s
            yield Span(process, name, start_s, max(start_s, event["time_s"] - first_s), _about(event))
        elif not name:  # a moment, not a phase
            yield Span(process, event["event"], event["time_s"] - first_s, event["time_s"] - first_s, _about(event))
    for name, unfinished in begun.items():
        for event in unfinished:
            yield Span(process, name, event["time_s"] - first_s, last_s, _about(event))


def _about(event: Mapping[str, Any]) -> str:
    for key, words in (("model", "{}"), ("base_index", "base {}"), ("dataset", "{}"), ("round", "round {}")):
        if key in event:
            return words.format(event[key])
    return ""


def time_by_phase(spans: Sequence[Span], from_s: float, to_s: float) -> dict[str, float]:
    """Returns phase -> seconds of one process between two moments; they add up to the whole.

    Inside a span that holds another one the inner one counts; where there is none the process is idle.
    """
    moments = sorted({from_s, to_s, *(min(max(t, from_s), to_s) for span in spans for t in (span.start_s, span.end_s))})
    waiting = sorted(spans, key=lambda span: (span.start_s, -span.end_s), reverse=True)
    active: list[Span] = []
    seconds: dict[str, float] = {}
    for start_s, end_s in itertools.pairwise(moments):
        while waiting and waiting[-1].start_s <= start_s:
            active.append(waiting.pop())
        active = [span for span in active if span.end_s > start_s]
        phase = active[-1].phase if active else IDLE
        seconds[phase] = seconds.get(phase, 0.0) + end_s - start_s
    return seconds


def turnaround_moments(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """Returns, of each round after the first of an attempt, when the round before had its last adapter and when this one took
    its first optimizer step."""
    committed = [span.end_s for span in spans if span.name == "commit_base"]
    rounds = list(zip([0.0, *committed], [*committed, float("inf")], strict=True))
    trained = [[span.end_s for span in spans if span.name == "train" and start <= span.start_s < end] for start, end in rounds]
    began = [
        [span.start_s for span in spans if span.name == "first_step" and start <= span.start_s < end] for start, end in rounds
    ]
    return [(max(ends), min(starts)) for ends, starts in zip(trained, began[1:], strict=False) if ends and starts]


def turnarounds(spans: Sequence[Span]) -> list[float]:
    """Returns how long each round after the first of an attempt had to wait for its first optimizer step, in seconds.

    Counted from the end of the last adapter of the round before: average, merge, commit, broadcast and the start of the
    training. Scoring is left out.
    """
    scoring = [(span.start_s, span.end_s) for span in spans if span.name == "score"]
    found = []
    for last_s, first_s in turnaround_moments(spans):
        scored = sum(max(0.0, min(end_s, first_s) - max(start_s, last_s)) for start_s, end_s in scoring)
        found.append(first_s - last_s - scored)
    return found
