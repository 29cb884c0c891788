"""Submits jobs to Slurm and watches them until each has its result.

After a crash of the coordinator, the next coordinator finds the same jobs again, whether they are queued, running or finished.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wfc_dist import activity
from wfc_dist.backends.failure_policy import Budget, Decision, Failure
from wfc_dist.backends.hangs import Limits
from wfc_dist.backends.node_failures import NodeFailures
from wfc_dist.backends.slurm import client, submission
from wfc_dist.backends.slurm.client import JobState, SlurmError
from wfc_dist.backends.slurm.endings import INTERRUPTED, SETTLE_ELSE_S, SETTLE_S, judge
from wfc_dist.backends.slurm.exclusion import excluded
from wfc_dist.backends.slurm.heartbeats import Heartbeats
from wfc_dist.backends.slurm.job_process import JobProcess, read_failure, read_result
from wfc_dist.backends.slurm.jobs import JobResult, JobSpec, SubmittedJob
from wfc_dist.backends.slurm.submission import JobRecord
from wfc_dist.backends.slurm.watching import Watch
from wfc_dist.errors import GangFailedError, Interrupted, WfcError
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)
POLL_S = 1.0
RETRY_S, MAX_REFUSALS = 30.0, 20
MOST_BLIND = 2
"""Nodes that do not see the run directory, before any job has got somewhere, after which the directory is not shared at all."""


class JobLoop:
    """The event loop for the jobs of one kind in a round.

    Args:
        store: The opened run.
        round_index: Index of the round (1-based).
        say: Called with a message at each change of a job.
        on_done: Called with each result.
        failures: What failed on which node in this attempt; new jobs keep off the nodes that are left out.
        on_poll: Called with each job and its state in every iteration, to show progress.
        on_failed: Called with a job that cannot go on, its error and its traceback; the others go on. By default they stop.
    """

    def __init__(
        self, store: RunStore, round_index: int, say: Callable[[str], None], on_done: Callable[[JobSpec, JobResult], None],
        failures: NodeFailures, *, on_poll: Callable[[SubmittedJob, JobState | None], None] | None = None,
        on_failed: Callable[[SubmittedJob, WfcError, str], None] | None = None,
    ) -> None:  # fmt: skip
        self._store, self._round, self._say, self._on_done, self._on_poll = store, round_index, say, on_done, on_poll
        self._on_failed = on_failed
        self._cluster, self._failures = store.config.cluster, failures
        self._limits = Limits.of(store.config.cluster)
        self._folder = store.paths.slurm_jobs(round_index).resolve()
        self._watch = Watch()
        self._waiting: list[JobSpec] = []
        self._active: dict[str, SubmittedJob] = {}
        self._stopped: set[str] = set()
        self._budgets: dict[str, Budget] = {}  # by label
        self._blind: set[str] = set()
        self._interruptions: Counter[str] = Counter()
        self._refusals, self._retry_s = 0, 0.0
        self._fatal: WfcError | None = None

    def run(self, specs: Sequence[JobSpec]) -> None:
        """Returns when every job has its result. Raises Interrupted, or the error of a job that cannot go on."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for spec in specs:
            activity.moved()
            self._attach_or_queue(spec)
        while self._waiting or self._active:
            activity.moved()
            if self._store.stop_reason() is not None:
                self._stop_jobs()
                if not self._active:
                    break
            else:
                self._submit_waiting()
            self._watch.poll([(job.record.name, job.job_id) for job in self._active.values()])
            for job in list(self._active.values()):
                self._settle(job)
            if self._active or self._waiting:
                time.sleep(POLL_S)
        if self._fatal:
            raise self._fatal
        if self._waiting or self._stopped:
            raise Interrupted(
                f"{self._store.stop_reason()}: every job has checkpointed or left the queue; the same command goes on"
            )

    # --- submitting, or finding again

    def _attach_or_queue(self, spec: JobSpec) -> None:
        record = submission.find(self._folder, spec.label)
        if record is None or record.key != spec.key or not self._attach(SubmittedJob(spec, submission.adopt(record))):
            self._waiting.append(spec)

    def _attach(self, job: SubmittedJob) -> bool:
        """Takes over the job of an earlier coordinator, finished or not. Returns whether this was possible."""
        record = job.record
        lines = self._store.ledger.lines()
        job.num_recorded = sum(line["event"] == "requeue" and line.get("slurm_job") == record.job_id for line in lines)
        if self._finish(job):
            return True
        if (result := read_result(record.folder)) is not None and result["state"] == "done":
            return False  # what it made is taken or gone, whether Slurm still lists the job or not
        state = client.states([record.name]).get(record.name) if record.job_id else None
        if state is None or (state.ended and state.state not in SETTLE_S):
            return False
        if state.state == "PENDING" and record.schema != submission.SCHEMA_VERSION:
            self._tell(job, "queued by another version of wfc_dist, cannot start with this one; cancelled, a new job goes on")
            client.cancel(job.job_id)
            return False
        self._active[job.spec.label] = job
        self._tell(job, f"goes on with job {state.job_id}")
        return True

    def _submit_waiting(self) -> None:
        room = (self._cluster.max_trainers or 10**6) - len(self._active)
        while self._waiting and room > 0 and time.monotonic() >= self._retry_s:
            activity.moved()
            spec, room = self._waiting[0], room - 1
            prepared = submission.prepare(self._folder, spec.label, spec.key, self._store.config.run.name)
            stop_file, slurm = str(self._store.paths.stop_file.resolve()), self._cluster.slurm
            process = JobProcess(
                str(prepared.folder), stop_file, spec.make_payload(), slurm.max_requeues, spec.checkpoints, self._limits
            )
            try:
                keep_off = excluded(self._failures, self._cluster)
                record = submission.submit(prepared, process, self._cluster, spec.resources, keep_off)
            except SlurmError as error:
                self._refused(prepared, error)
                return
            except (GangFailedError, Interrupted) as error:
                self._stop_for(error, f"round {self._round}: no node is left")
                return
            self._waiting.pop(0)
            self._refusals = 0
            self._active[spec.label] = SubmittedJob(spec, record)
            self._watch.hurry()

    def _refused(self, prepared: JobRecord, error: SlurmError) -> None:
        """Schedules another try after a refusal: Slurm may be busy or restarting, or the user may be at a limit."""
        self._refusals += not self._active  # a limit on queued jobs lasts as long as our jobs are in the queue
        if self._refusals > MAX_REFUSALS:
            raise error
        self._say(f"round {self._round}: {error.message}; trying again in {RETRY_S:.0f} s")
        self._retry_s = time.monotonic() + RETRY_S
        try:
            submission.adopt(prepared)  # cancels the job if Slurm created it all the same
        except SlurmError:
            logger.warning("%s may be in the queue; its pickle is not there, so it will end by itself", prepared.name)

    def _stop_jobs(self) -> None:
        """Cancels all jobs except running trainings, which poll the stop file and checkpoint."""
        for job in self._active.values():
            if time.monotonic() - job.cancelled_s > SETTLE_ELSE_S:
                client.cancel(job.job_id, pending_only=job.spec.checkpoints)
                job.cancelled_s = time.monotonic()
                self._watch.hurry()

    # --- watching

    def _settle(self, job: SubmittedJob) -> None:
        state = self._watch.state(job.record.name)
        self._note_starts(job)
        if state is not None and not state.ended:
            where = f"running on {job.host or state.nodes}"
            self._tell(job, where if state.state == "RUNNING" else f"{state.state.lower()} {state.reason}".strip())
        if self._on_poll:
            self._on_poll(job, state)
        self._end_hung(job, state)
        if self._finish(job) or state is None or not (state.ended or state.state == "UNKNOWN"):
            return
        if self._watch.age_s(job.record.name) >= SETTLE_S.get(state.state, SETTLE_ELSE_S):
            self._ended(job, state)

    def _end_hung(self, job: SubmittedJob, state: JobState | None) -> None:
        """Cancels a job a rank of which says nothing any more; a new one goes on once Slurm has ended it."""
        job.heartbeats = job.heartbeats or Heartbeats(job.record.folder, self._limits)
        found = job.heartbeats.look(is_running=state is not None and state.state == "RUNNING")
        if found is None or job.hung is not None or self._store.stop_reason() is not None:
            return
        hang, host = found
        error = hang.error(f"round {self._round}, {job.spec.title}", host)
        node = state.nodes if state and not set("[,") & set(state.nodes) else ""
        job.hung = {"refused": False, "error": type(error).__name__, "message": error.message, "host": host, "node": node}
        self._tell(job, error.message)
        logger.warning("%s", error)
        client.cancel(job.job_id)
        self._watch.hurry()

    def _finish(self, job: SubmittedJob) -> bool:
        """Passes the result of a job to `on_done` if there is one, even after a crash. Returns whether there was one."""
        result = read_result(job.record.folder)
        if result is None or result["state"] != "done":
            return False
        if not all(any(Path(folder).glob("*")) for folder in result["value"]["folders"]):
            return False  # an earlier coordinator has committed or removed the folders
        self._note_starts(job)
        self._active.pop(job.spec.label, None)
        self._failures.worked([state.nodes] if (state := self._watch.state(job.record.name)) else [])
        self._on_done(job.spec, JobResult(result["value"], result["host"], job.job_id, job.num_requeues))
        self._tell(job, f"done on {result['host']}")
        return True

    def _note_starts(self, job: SubmittedJob) -> None:
        """Writes each requeue that the job has recorded into the ledger, once."""
        reason, num_requeues = "", 0
        for line in job.record.starts():
            if "requeue" in line:
                reason = line["reason"]
                continue
            if line["start"] > 0:
                num_requeues += 1
                if num_requeues > job.num_recorded:
                    self._record("requeue", job, host=job.host, reason=reason or "ended without a warning, requeued by Slurm")
                    job.num_recorded = num_requeues
            job.host, reason = line["host"], ""
        job.num_requeues = num_requeues

    def _tell(self, job: SubmittedJob, text: str) -> None:
        if text != job.told:
            job.told = text
            self._say(f"round {self._round} {job.spec.title}: {text} (job {job.job_id})")

    def _record(self, event: str, job: SubmittedJob, **facts: Any) -> None:
        self._store.ledger.record(event, round=self._round, **job.spec.facts, slurm_job=job.job_id, **facts)

    # --- after a job ended without a result

    def _ended(self, job: SubmittedJob, state: JobState) -> None:
        label = job.spec.label
        del self._active[label]
        if state.state in SETTLE_S:
            client.cancel(job.job_id)  # so that Slurm cannot requeue it beside its successor
        if self._store.stop_reason() is not None:
            self._stopped.add(label)
            return
        failure, result = job.hung or read_failure(job.record.folder), read_result(job.record.folder)
        host = job.host or state.nodes
        if failure is not None or not (state.state in INTERRUPTED or (result and state.state != "CANCELLED")):
            self._failed(job, state, failure, host)
            return
        reason = result["reason"] if result and "reason" in result else f"the job ended: {state.state}"
        self._interruptions[label] += 1
        self._record("requeue", job, host=host, reason=reason)
        if self._interruptions[label] > self._cluster.slurm.max_requeues:
            allowed = "cluster.slurm.max_requeues allows; raise this limit, or set a longer cluster.slurm.time_min"
            self._give_up(job, GangFailedError(f"{job.spec.title}: interrupted more often than {allowed}"))
            return
        self._tell(job, f"{state.state.lower()}; a new job goes on")
        self._waiting.insert(0, job.spec)

    def _failed(self, job: SubmittedJob, state: JobState, failure: dict[str, Any] | None, host: str) -> None:
        label = job.spec.label
        where = f"round {self._round}, {job.spec.title}: job {job.job_id}"
        ending = judge(where, job.record, state, failure, host)
        kind, at_once = ending.kind, ending.is_blind and self._is_alone_blind(ending.node)
        kind = Failure.EARLY if at_once else kind
        decision = self._budgets.setdefault(label, Budget(self._cluster.max_failures)).decide(kind, ending.node)
        reason = f"{type(ending.cause).__name__}: {ending.cause}"[:300]
        self._record("failure", job, host=host, kind=kind.value, reason=reason, decision=decision.value)
        if decision is Decision.RESTART:
            logger.warning("%s: job %s on %s failed (%s); a new one goes on", label, job.job_id, host, ending.cause)
            self._tell(job, f"failed on {host}: {reason}; a new job goes on")
            self._failures.failed(ending.node, ending.why, at_start=kind is Failure.EARLY, at_once=at_once)
            self._waiting.insert(0, job.spec)
            return
        self._give_up(job, ending.cause, (failure or {}).get("traceback", ""))

    def _is_alone_blind(self, node: str) -> bool:
        """Whether others see the run directory that `node` does not see, as far as is known: then one bad node costs one."""
        self._blind.add(node)
        return node != "" and (self._failures.has_worked or len(self._blind) < MOST_BLIND)

    def _give_up(self, job: SubmittedJob, cause: WfcError, trace: str = "") -> None:
        if self._on_failed:
            self._on_failed(job, cause, trace)
            return
        self._stop_for(cause, f"round {self._round}, {job.spec.title} failed")

    def _stop_for(self, cause: WfcError, reason: str) -> None:
        """Asks all jobs to stop, which checkpoint, before `run` raises the first such error."""
        self._fatal = self._fatal or cause
        self._store.stop(reason, by_itself=True)
