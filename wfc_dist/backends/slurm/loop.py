"""Takes some work through Slurm, a job for each piece, until every piece has its result.

A coordinator that died is replaced by one that finds the same jobs again: queued, running, or finished in the meantime.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfc_dist.backends.failure_policy import Decision, Failure, FailurePolicy
from wfc_dist.backends.slurm import client, submission
from wfc_dist.backends.slurm.client import JobState, SlurmError
from wfc_dist.backends.slurm.endings import INTERRUPTED, SETTLE_ELSE_S, SETTLE_S, cause_of
from wfc_dist.backends.slurm.submission import Shape, Submission
from wfc_dist.backends.slurm.tasks import Task, Work, read_failure, read_result
from wfc_dist.backends.slurm.watching import Watch
from wfc_dist.errors import GangFailedError, InputError, Interrupted, WfcError
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

logger = logging.getLogger(__name__)
POLL_S = 1.0
RETRY_S, MAX_REFUSALS = 30.0, 20


@dataclass(frozen=True)
class Wanted:
    """A piece of work for one job.

    Attributes:
        label: Its name in the run directory, such as train-a.
        title: In messages, such as a.
        key: Identity: a job with another key is another piece of work.
        make: Returns what the job does; called when it is submitted.
        shape: What the job asks for.
        checkpoints: Whether it can be asked for a checkpoint.
        facts: What the ledger says it is, such as {"dataset": "a"}.
    """

    label: str
    title: str
    key: str
    make: Callable[[], Work]
    shape: Shape
    checkpoints: bool
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """What a job gave: the work's value, and where and as what it ran."""

    value: Mapping[str, Any]
    host: str
    job_id: str
    num_requeues: int


@dataclass
class Active:
    """A job in Slurm's hands."""

    wanted: Wanted
    submission: Submission
    host: str = ""
    told: str = ""
    num_requeues: int = 0
    recorded: int = 0
    cancelled_s: float = field(default=-1e9)

    @property
    def job_id(self) -> str:
        """Slurm's number of it."""
        return str(self.submission.job_id)


class JobLoop:
    """The event loop of one kind of work in a round.

    Args:
        store: The opened run.
        round_index: 1-based.
        say: Gets one line per change of a job.
        on_done: Gets each result as it comes.
        on_look: Gets each job at every turn, for progress.
    """

    def __init__(
        self, store: RunStore, round_index: int, say: Callable[[str], None], on_done: Callable[[Wanted, Done], None],
        on_look: Callable[[Active, JobState | None], None] | None = None,
    ) -> None:  # fmt: skip
        self._store, self._round, self._say, self._on_done, self._on_look = store, round_index, say, on_done, on_look
        self._cluster = store.config.cluster
        self._folder = (store.paths.run_dir / "slurm" / f"round-{round_index:04d}").resolve()
        self._policy = FailurePolicy(self._cluster.max_failures)
        self._watch = Watch()
        self._waiting: list[Wanted] = []
        self._active: dict[str, Active] = {}
        self._stopped: set[str] = set()
        self._failures: dict[str, int] = {}
        self._interruptions: dict[str, int] = {}
        self._refusals, self._retry_s = 0, 0.0
        self._fatal: WfcError | None = None

    def run(self, wanted: Sequence[Wanted]) -> None:
        """Returns when every piece has its result. Raises Interrupted, or the error of a job that cannot go on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for piece in wanted:
            self._attach_or_queue(piece)
        while self._waiting or self._active:
            if self._store.stop_reason() is not None:
                self._stop_jobs()
                if not self._active:
                    break
            else:
                self._submit_waiting()
            self._watch.look([(item.submission.name, item.job_id) for item in self._active.values()])
            for item in list(self._active.values()):
                self._settle(item)
            if self._active or self._waiting:
                time.sleep(POLL_S)
        if self._fatal:
            raise self._fatal
        if self._waiting or self._stopped:
            raise Interrupted(
                f"{self._store.stop_reason()}: every job has checkpointed or left the queue; the same command goes on"
            )

    # --- submitting, or finding again

    def _attach_or_queue(self, wanted: Wanted) -> None:
        found = submission.find(self._folder, wanted.label)
        if found is not None and found.key == wanted.key:
            found = submission.adopt(found)
            item = Active(wanted, found, recorded=self._num_recorded(found))
            if self._finish(item):
                return
            state = client.states([found.name]).get(found.name) if found.job_id else None
            if state is not None and (not state.ended or state.state in SETTLE_S):
                self._active[wanted.label] = item
                self._tell(item, f"goes on with job {state.job_id}")
                return
        self._waiting.append(wanted)

    def _num_recorded(self, found: Submission) -> int:
        lines = [json.loads(line) for line in durable.read_lines(self._store.paths.ledger)]
        return sum(line["event"] == "requeue" and line.get("slurm_job") == found.job_id for line in lines)

    def _submit_waiting(self) -> None:
        room = (self._cluster.max_trainers or 10**6) - len(self._active)
        while self._waiting and room > 0 and time.monotonic() >= self._retry_s:
            wanted, room = self._waiting[0], room - 1
            prepared = submission.prepare(self._folder, wanted.label, wanted.key, self._store.config.run.name)
            stop_file, slurm = str(self._store.paths.stop_file.resolve()), self._cluster.slurm
            task = Task(str(prepared.folder), stop_file, wanted.make(), slurm.max_requeues, wanted.checkpoints)
            try:
                sent = submission.submit(prepared, task, self._cluster, wanted.shape)
            except SlurmError as error:
                self._refused(prepared, error)
                return
            self._waiting.pop(0)
            self._refusals = 0
            self._active[wanted.label] = Active(wanted, sent)
            self._watch.hurry()

    def _refused(self, prepared: Submission, error: SlurmError) -> None:
        """Slurm is busy, restarting, or at a limit of the user's: that passes."""
        self._refusals += not self._active  # a limit on queued jobs holds for as long as ours are in the queue
        if self._refusals > MAX_REFUSALS:
            raise error
        self._say(f"round {self._round}: {error.message}; trying again in {RETRY_S:.0f} s")
        self._retry_s = time.monotonic() + RETRY_S
        try:
            submission.adopt(prepared)  # cancels a job that came into being without our knowing
        except SlurmError:
            logger.warning("%s may be in the queue; its work is not there, so it will end by itself", prepared.name)

    def _stop_jobs(self) -> None:
        """Queued jobs leave the queue; running trainings see the stop file themselves, other jobs are ended."""
        for item in self._active.values():
            if time.monotonic() - item.cancelled_s > SETTLE_ELSE_S:
                client.cancel(item.job_id, pending_only=item.wanted.checkpoints)
                item.cancelled_s = time.monotonic()
                self._watch.hurry()

    # --- watching

    def _settle(self, item: Active) -> None:
        state = self._watch.state(item.submission.name)
        self._note_starts(item)
        if state is not None and not state.ended:
            where = item.host or state.nodes
            self._tell(
                item, f"running on {where}" if state.state == "RUNNING" else f"{state.state.lower()} {state.reason}".strip()
            )
        if self._on_look:
            self._on_look(item, state)
        if self._finish(item) or state is None or not (state.ended or state.state == "UNKNOWN"):
            return
        if self._watch.age_s(item.submission.name) >= SETTLE_S.get(state.state, SETTLE_ELSE_S):
            self._ended(item, state)

    def _finish(self, item: Active) -> bool:
        """Hands over the result if it is there, whatever became of the job and of the coordinator that asked for it."""
        result = read_result(item.submission.folder)
        if result is None or result["state"] != "done":
            return False
        if not all(any(Path(folder).glob("*")) for folder in result["value"]["folders"]):
            return False  # committed, or thrown away, by a coordinator that died over it
        self._note_starts(item)
        self._active.pop(item.wanted.label, None)
        self._on_done(item.wanted, Done(result["value"], result["host"], item.job_id, item.num_requeues))
        self._tell(item, f"done on {result['host']}")
        return True

    def _note_starts(self, item: Active) -> None:
        """Writes each requeue the job has noted into the ledger, once."""
        reason, seen = "", 0
        for line in item.submission.starts():
            if "requeue" in line:
                reason = line["reason"]
                continue
            if line["start"] > 0:
                seen += 1
                if seen > item.recorded:
                    self._record("requeue", item, host=item.host, reason=reason or "ended without a warning, requeued by Slurm")
                    item.recorded = seen
            item.host, reason = line["host"], ""
        item.num_requeues = seen

    def _tell(self, item: Active, text: str) -> None:
        if text != item.told:
            item.told = text
            self._say(f"round {self._round} {item.wanted.title}: {text} (job {item.job_id})")

    def _record(self, event: str, item: Active, **facts: Any) -> None:
        self._store.record(event, round=self._round, **item.wanted.facts, slurm_job=item.job_id, **facts)

    # --- what follows when a job ended without a result

    def _ended(self, item: Active, state: JobState) -> None:
        wanted, label = item.wanted, item.wanted.label
        del self._active[label]
        if state.state in SETTLE_S:
            client.cancel(item.job_id)  # so that it can't come back beside its successor
        if self._store.stop_reason() is not None:
            self._stopped.add(label)
            return
        failure, result = read_failure(item.submission.folder), read_result(item.submission.folder)
        host = item.host or state.nodes
        if failure is None and (state.state in INTERRUPTED or (result and state.state != "CANCELLED")):
            reason = result["reason"] if result else f"the job ended: {state.state}"
            self._interruptions[label] = self._interruptions.get(label, 0) + 1
            self._record("requeue", item, host=host, reason=reason)
            if self._interruptions[label] <= self._cluster.slurm.max_requeues:
                self._tell(item, f"{state.state.lower()}; a new job goes on")
                self._waiting.insert(0, wanted)
                return
            self._give_up(item, GangFailedError(f"{wanted.title}: interrupted more often than cluster.slurm.max_requeues"))
            return
        self._failed(item, state, failure, host)

    def _failed(self, item: Active, state: JobState, failure: dict[str, Any] | None, host: str) -> None:
        label = item.wanted.label
        where = f"round {self._round}, {item.wanted.title}: job {item.job_id}"
        cause = cause_of(where, item.submission, state, failure, host)
        kind = Failure.REFUSED if isinstance(cause, InputError) or (failure and failure["refused"]) else Failure.LOST
        self._failures[label] = self._failures.get(label, 0) + 1
        decision = self._policy.decide(kind, self._failures[label])
        reason = f"{type(cause).__name__}: {cause}"[:300]
        self._record("failure", item, host=host, reason=reason, decision=decision.value)
        if decision is Decision.RESTART:
            logger.warning("%s: job %s on %s failed (%s); a new one goes on", label, item.job_id, host, cause)
            self._tell(item, f"failed on {host}: {reason}; a new job goes on")
            self._waiting.insert(0, item.wanted)
            return
        self._give_up(item, cause)

    def _give_up(self, item: Active, cause: WfcError) -> None:
        self._fatal = self._fatal or cause
        self._store.stop(f"round {self._round}, {item.wanted.title} failed")  # the others checkpoint
