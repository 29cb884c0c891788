"""Reads where every second of a run went: the spans of all processes, side by side, from their events files."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from wfc_dist.log import Phase
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.shapes import EVENT
from wfc_dist.storage import durable

OTHER, IDLE = "other", "idle"
PHASES: tuple[str, ...] = (*get_args(Phase), OTHER)
_UNMARKED: Mapping[Phase, str] = {
    "training": "train",
    "dev": "dev",
    "checkpoint": "checkpoint write_checkpoint",
    "scoring": "evaluate score",
    "loading": "start_ray admission open_root verify_root load_base fetch_base receive broadcast",
    "merging": "centralize average merge fetch write_delta write_base commit_base commit_interim",
    "recording": "commit_adapter append_ledger publish_checkpoint serve",
    "curvature": "curvature",
    "fitting": "fit",
    "waiting for trainers": "factorize",
}
"""Phase -> names of spans, for events files in which a span does not name its phase."""
_PHASE_OF = {name: phase for phase, names in _UNMARKED.items() for name in names.split()}
_BESIDE = ("write_checkpoint", "publish_checkpoint")


@dataclass(frozen=True)
class Span:
    """One piece of work of one process.

    Attributes:
        process: coordinator, gang-0-rank-0, centralizer-1, ...
        name: Name of the span, such as train.
        start_s, end_s: Seconds since the first event of the attempt, by the hosts' own clocks.
        about: The data set, model or base it is about.
        phase: Where its time is booked, one of PHASES; "" of a moment, such as first_step.
        beside: Whether a thread did it beside the other work of the process.
    """

    process: str
    name: str
    start_s: float
    end_s: float
    about: str = ""
    phase: str = ""
    beside: bool = False


@dataclass(frozen=True)
class Timeline:
    """The spans of one attempt, in the order of their starts; of spans that start together the longest is first."""

    spans: Sequence[Span]

    @property
    def last_s(self) -> float:
        """Returns when the last span ends."""
        return max(span.end_s for span in self.spans)

    @property
    def processes(self) -> dict[str, list[Span]]:
        """Returns process -> its spans, without moments; the coordinator is first."""
        spans = [span for span in self.spans if span.phase]
        names = sorted({span.process for span in spans}, key=lambda name: (name != "coordinator", name))
        return {name: [span for span in spans if span.process == name] for name in names}

    @property
    def phases(self) -> list[str]:
        """Returns the phases that occur, in the order of PHASES."""
        return [phase for phase in PHASES if any(span.phase == phase for span in self.spans)]

    def seconds(self, process: str) -> dict[str, float]:
        """Returns phase -> seconds of a process, from its first span to the end of the attempt; `idle` is what is left."""
        spans = self.processes[process]
        return time_by_phase(spans, min(span.start_s for span in spans), self.last_s)

    def turnarounds(self) -> list[float]:
        """Returns how long each round after the first had to wait for its first optimizer step, in seconds.

        The time from the end of the last adapter of the round before: average, merge, commit, broadcast and the start of the
        training. Scoring is left out.
        """
        scoring = [(span.start_s, span.end_s) for span in self.spans if span.name == "score"]
        waits = []
        for last_s, first_s in turnaround_moments(self.spans):
            scored = sum(max(0.0, min(end_s, first_s) - max(start_s, last_s)) for start_s, end_s in scoring)
            waits.append(first_s - last_s - scored)
        return waits


def read_attempts(run_dir: Path) -> dict[int, Timeline]:
    """Returns attempt -> its timeline, of all processes and rounds of a run.

    A span that was cut off (its process was killed) ends with the last event of its process.
    """
    files: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for attempt, process, path in RunPaths(run_dir).all_events():
        events = durable.read_json_lines(path, fits=EVENT.fits)
        if not events:
            continue  # nothing of this process is whole
        files.setdefault(attempt, {}).setdefault(process, []).extend(events)
    attempts = {}
    for attempt, events_of in sorted(files.items()):
        moments = [event["time_s"] for events in events_of.values() for event in events]
        if not moments:
            continue  # nothing of this attempt is whole
        first_s = min(moments)
        spans = [span for process, events in events_of.items() for span in _spans(process, events, first_s)]
        attempts[attempt] = Timeline(sorted(spans, key=lambda span: (span.start_s, -span.end_s, span.process)))
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
            yield _span(process, name, start_s, max(start_s, event["time_s"] - first_s), event)
        elif not name:
            time_s = event["time_s"] - first_s
            yield Span(process, event["event"], time_s, time_s, _about(event))
    for name, unfinished in begun.items():
        for event in unfinished:
            yield _span(process, name, event["time_s"] - first_s, last_s, event)


def _span(process: str, name: str, start_s: float, end_s: float, event: Mapping[str, Any]) -> Span:
    phase = event.get("phase", _PHASE_OF.get(name, OTHER))
    beside = event.get("beside", "phase" not in event and name in _BESIDE)
    return Span(process, name, start_s, end_s, _about(event), phase if phase in PHASES else OTHER, beside)


def _about(event: Mapping[str, Any]) -> str:
    for key, words in (("model", "{}"), ("base_index", "base {}"), ("dataset", "{}"), ("round", "round {}")):
        if key in event:
            return words.format(event[key])
    return ""


def time_by_phase(spans: Sequence[Span], from_s: float, to_s: float) -> dict[str, float]:
    """Returns phase -> seconds of one process between two moments; they add up to the whole.

    Where one span contains another, the inner one counts. Work that a thread does beside counts only where there is no other
    span. Where there is no span at all, the process is idle.
    """
    moments = sorted({from_s, to_s, *(min(max(t, from_s), to_s) for span in spans for t in (span.start_s, span.end_s))})
    waiting = sorted(spans, key=lambda span: (span.start_s, -span.end_s), reverse=True)
    active: list[Span] = []
    seconds: dict[str, float] = {}
    for start_s, end_s in itertools.pairwise(moments):
        while waiting and waiting[-1].start_s <= start_s:
            active.append(waiting.pop())
        active = [span for span in active if span.end_s > start_s]
        innermost = max(active, key=lambda span: (not span.beside, active.index(span)), default=None)
        phase = innermost.phase if innermost else IDLE
        seconds[phase] = seconds.get(phase, 0.0) + end_s - start_s
    return seconds


def turnaround_moments(spans: Sequence[Span]) -> list[tuple[float, float]]:
    """Returns two moments for each round after the first of an attempt: the end of the last adapter of the round before, and the
    first optimizer step of this round."""
    committed = [span.end_s for span in spans if span.name == "commit_base"]
    rounds = list(zip([0.0, *committed], [*committed, float("inf")], strict=True))
    trained = [[span.end_s for span in spans if span.name == "train" and start <= span.start_s < end] for start, end in rounds]
    began = [
        [span.start_s for span in spans if span.name == "first_step" and start <= span.start_s < end] for start, end in rounds
    ]
    return [(max(ends), min(starts)) for ends, starts in zip(trained, began[1:], strict=False) if ends and starts]
