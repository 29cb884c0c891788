"""The Slurm backend's event loop, with Slurm's answers played and jobs written by hand."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny

from wfc_dist.backends.node_failures import NodeFailures
from wfc_dist.backends.slurm import client, job_process, loop, submission
from wfc_dist.backends.slurm.client import JobState, SlurmError
from wfc_dist.backends.slurm.endings import EXIT_NOT_SHARED, root_cause
from wfc_dist.backends.slurm.job_process import JobProcess
from wfc_dist.backends.slurm.jobs import JobResult, JobSpec
from wfc_dist.backends.slurm.loop import JobLoop
from wfc_dist.backends.slurm.submission import JobRecord, Resources
from wfc_dist.config import loading
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import ConfigError, GangFailedError, InputError, Interrupted, TrainingError
from wfc_dist.progress import Display
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.store import RunStore


def nothing(context: object) -> dict:
    """The payload of jobs that nobody runs here."""
    return {}


class Site:
    """Plays Slurm: jobs are numbered, their states set by the test."""

    def __init__(self) -> None:
        self.states: dict[str, JobState] = {}
        self.submitted: list[str] = []
        self.cancelled: list[tuple[str, bool]] = []
        self.refuse = 0
        self.nodes = ["node1", "node2", "node3"]
        self.excluded: list[list[str]] = []

    def submit(self, prepared: JobRecord, process: JobProcess, cluster: ClusterConfig, resources: Resources,
               exclude: Sequence[str] = ()) -> JobRecord:  # fmt: skip
        if self.refuse:
            self.refuse -= 1
            raise SlurmError("sbatch: Unable to contact slurm controller")
        self.submitted.append(prepared.folder.name)
        self.excluded.append(list(exclude))
        job = JobRecord(prepared.folder, prepared.name, prepared.key, str(100 + len(self.submitted)))
        job.write()
        self.play(job, len(self.submitted))
        return job

    def play(self, job: JobRecord, number: int) -> None:
        self.finish(job)

    def set(self, job: JobRecord, state: str, nodes: str = "node1") -> None:
        self.states[job.name] = JobState(str(job.job_id), state, nodes, "")

    def begin(self, job: JobRecord) -> None:
        (job.folder / job_process.BEGAN).touch()

    def start(self, job: JobRecord, host: str = "node1", restarts: int = 0) -> None:
        with open(job.folder / job_process.STARTS, "a", encoding="utf-8") as file:
            file.write(json.dumps({"start": restarts, "host": host}) + "\n")

    def finish(self, job: JobRecord) -> None:
        self.start(job)
        self.set(job, "COMPLETED")
        value = {"folders": [], "said": job.folder.name}
        (job.folder / job_process.RESULT).write_text(json.dumps({"state": "done", "value": value, "host": "node1"}))

    def fail(self, job: JobRecord, error: str, *, refused: bool, state: str = "FAILED", node: str = "node1") -> None:
        self.start(job, node)
        self.set(job, state, node)
        facts = {"refused": refused, "error": error, "message": "what happened", "host": node, "node": node}
        facts["traceback"] = "its traceback"
        (job.folder / "failed-0.json").write_text(json.dumps(facts))


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    monkeypatch.setattr(client, "states", lambda names: {name: site.states[name] for name in names if name in site.states})
    monkeypatch.setattr(client, "remembered", lambda job_id: None)
    monkeypatch.setattr(client, "node_names", lambda partition: site.nodes)
    monkeypatch.setattr(client, "host_names", lambda expression: expression.split(",") if expression else [])
    monkeypatch.setattr(client, "exit_code", lambda job_id: EXIT_NOT_SHARED)
    monkeypatch.setattr(client, "cancel", lambda job_id, pending_only=False: site.cancelled.append((job_id, pending_only)))
    monkeypatch.setattr(submission, "submit", site.submit)
    monkeypatch.setattr(loop, "POLL_S", 0.01)
    monkeypatch.setattr(loop, "RETRY_S", 0.01)
    monkeypatch.setattr(loop, "SETTLE_ELSE_S", 0.0)
    monkeypatch.setattr(loop, "SETTLE_S", {"PREEMPTED": 0.0})
    return site


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    path = tiny.make_config(tmp_path, rounds=[["a", "b"]], cluster={"backend": "slurm", "max_failures": 1})
    config = loading.load_config(path)
    paths = RunPaths(config.run_dir())
    paths.run_dir.mkdir(parents=True)
    return RunStore(paths, config, 1)


def make_spec(name: str, key: str = "key") -> JobSpec:
    return JobSpec(f"train-{name}", name, key, lambda: nothing, Resources(1, 1, 0), {"dataset": name}, True)


def run_loop(store: RunStore, *names: str, key: str = "key", say: Callable[[str], None] = print) -> dict[str, JobResult]:
    results: dict[str, JobResult] = {}
    failures = NodeFailures(store, Display(plain=True))
    jobs = JobLoop(store, 1, say, lambda spec, result: results.update({spec.title: result}), failures)
    jobs.run([make_spec(name, key) for name in names])
    return results


def ledger(store: RunStore) -> list[dict]:
    path = store.paths.ledger
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_piece_gets_a_job_and_its_result(site: Site, store: RunStore) -> None:
    found = run_loop(store, "a", "b")
    assert site.submitted == ["train-a-1", "train-b-1"]
    assert {name: done.value["said"] for name, done in found.items()} == {"a": "train-a-1", "b": "train-b-1"}
    assert ledger(store) == []


def test_a_new_coordinator_takes_what_finished_without_one(site: Site, store: RunStore) -> None:
    run_loop(store, "a")
    assert run_loop(store, "a", "b")["a"].job_id == "101"
    assert site.submitted == ["train-a-1", "train-b-1"], "a was not submitted again"
    run_loop(store, "a", key="another base")
    assert site.submitted[-1] == "train-a-2", "the result of other work is not taken"


@pytest.mark.parametrize("state", ["COMPLETED", "COMPLETING", "RUNNING"])
def test_a_finished_job_whose_result_is_gone_is_submitted_again(site: Site, store: RunStore, tmp_path: Path, state: str) -> None:
    run_loop(store, "a")
    result = store.paths.slurm_jobs(1) / "train-a-1" / job_process.RESULT
    tree = json.loads(result.read_text())
    result.write_text(json.dumps(tree | {"value": {"folders": [str(tmp_path / "gone")], "said": "before"}}))
    site.states = {name: JobState(job.job_id, state, "node1", "") for name, job in site.states.items()}
    assert run_loop(store, "a")["a"].value["said"] == "train-a-2" and site.submitted == ["train-a-1", "train-a-2"]


def test_a_new_coordinator_goes_on_with_a_job_in_the_queue(site: Site, store: RunStore) -> None:
    folder = store.paths.run_dir / "slurm" / "round-0001"
    folder.mkdir(parents=True)
    prepared = submission.prepare(folder, "train-a", "key", "tiny")
    job = JobRecord(prepared.folder, prepared.name, prepared.key, "7")
    job.write()
    site.set(job, "RUNNING")
    asked = iter(range(5))

    def states(names: list[str]) -> dict[str, JobState]:
        if next(asked) == 2:
            site.finish(job)
        return {job.name: site.states[job.name]}

    client.states = states
    assert run_loop(store, "a")["a"].job_id == "7" and site.submitted == []


@pytest.mark.parametrize(("state", "taken"), [("PENDING", "101"), ("RUNNING", "7")])
def test_a_job_queued_by_another_version_is_submitted_again(site: Site, store: RunStore, state: str, taken: str) -> None:
    folder = store.paths.run_dir / "slurm" / "round-0001"
    folder.mkdir(parents=True)
    prepared = submission.prepare(folder, "train-a", "key", "tiny")
    job = replace(prepared, job_id="7", schema=1)  # its pickle names classes of that version; one that runs has loaded them
    job.write()
    site.set(job, state)
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if state == "RUNNING":
            site.finish(job)

    assert run_loop(store, "a", say=say)["a"].job_id == taken
    assert site.cancelled == ([("7", False)] if state == "PENDING" else [])
    assert ("queued by another version of wfc_dist" in lines[0]) == (state == "PENDING") and ledger(store) == []


def test_a_job_whose_id_was_never_written_down_is_found_or_cancelled(site: Site, tmp_path: Path) -> None:
    whole, orphan = (submission.prepare(tmp_path, f"train-{name}", "key", "run") for name in "ab")
    for job, number in ((whole, "7"), (orphan, "8")):
        site.states[job.name] = JobState(number, "PENDING", "", "Priority")
    (whole.folder / "submitit").mkdir(exist_ok=True)
    (whole.folder / "submitit" / "7_submitted.pkl").touch()

    assert submission.adopt(whole).job_id == "7"
    assert submission.find(tmp_path, "train-a") == submission.adopt(whole)
    assert submission.adopt(orphan).job_id is None and site.cancelled == [("8", False)]


def test_a_lost_job_is_replaced_and_written_down(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.fail(job, "RuntimeError", refused=False) if number == 1 else site.finish(job)

    site.play = play  # type: ignore[method-assign]
    run_loop(store, "a")
    (failure,) = ledger(store)
    assert site.submitted == ["train-a-1", "train-a-2"]
    assert (failure["event"], failure["dataset"], failure["host"], failure["decision"]) == ("failure", "a", "node1", "restart")


@pytest.mark.parametrize(
    ("error", "raised", "num_jobs"), [("TrainingError", TrainingError, 1), ("RuntimeError", GangFailedError, 2)]
)
def test_what_cannot_be_made_good_stops_the_others(site: Site, store: RunStore, error: str, raised: type, num_jobs: int) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.begin(job)
        site.fail(job, error, refused=error == "TrainingError")

    site.play = play  # type: ignore[method-assign]
    with pytest.raises(raised, match="what happened"):
        run_loop(store, "a")
    assert len(site.submitted) == num_jobs and store.stop_reason() == "round 1, a failed"
    assert ledger(store)[-1]["decision"] == "give up"


def test_a_failed_training_lets_the_others_go_on(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        if job.folder.name.startswith("train-a"):
            site.fail(job, "TrainingError", refused=True)
        else:
            site.finish(job)

    site.play = play  # type: ignore[method-assign]
    failed, done = [], []
    loop = JobLoop(
        store, 1, print, lambda spec, _: done.append(spec.title), NodeFailures(store, Display(plain=True)),
        on_failed=lambda job, error, trace: failed.append((job.spec.title, error.message, trace)),
    )  # fmt: skip
    loop.run([make_spec("a", "key"), make_spec("b", "key")])
    assert failed == [("a", "what happened", "its traceback")] and done == ["b"] and store.stop_reason() is None


def test_an_interruption_is_no_failure(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.start(job)
        site.set(job, "TIMEOUT") if number < 4 else site.finish(job)

    site.play = play  # type: ignore[method-assign]
    run_loop(store, "a")
    assert len(site.submitted) == 4, "max_failures is 1, but these are time limits"
    assert [(line["event"], line["reason"]) for line in ledger(store)] == [("requeue", "the job ended: TIMEOUT")] * 3


def test_a_cancelled_job_counts_as_lost(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.start(job)
        site.set(job, "CANCELLED")

    site.play = play  # type: ignore[method-assign]
    with pytest.raises(GangFailedError, match="ended CANCELLED without saying why"):
        run_loop(store, "a")
    assert len(site.submitted) == 2


def test_a_requeue_by_slurm_is_written_down_once(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.start(job, "node3")
        site.finish(job)
        site.start(job, "node2", restarts=1)

    site.play = play  # type: ignore[method-assign]
    assert run_loop(store, "a")["a"].num_requeues == 1
    run_loop(store, "a")  # a coordinator that died before the commit
    (line,) = ledger(store)
    assert (line["event"], line["host"], line["slurm_job"]) == ("requeue", "node1", "101")


def test_a_stop_empties_the_queue_and_waits_for_checkpoints(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.set(job, "RUNNING" if number == 1 else "PENDING")
        if number == 2:
            store.stop("SIGTERM")

    def cancel(job_id: str, pending_only: bool = False) -> None:
        site.cancelled.append((job_id, pending_only))
        for name, state in site.states.items():
            after = {"PENDING": "CANCELLED", "RUNNING": "COMPLETED"}.get(state.state, state.state)
            site.states[name] = JobState(state.job_id, after, "node1", "")

    site.play, client.cancel = play, cancel  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="SIGTERM"):
        run_loop(store, "a", "b")
    assert ("101", True) in site.cancelled and ledger(store) == []


def test_a_busy_slurm_is_asked_again(site: Site, store: RunStore) -> None:
    site.refuse = 3
    run_loop(store, "a")
    assert site.submitted == ["train-a-4"]


def test_a_node_that_does_not_see_the_run_directory_is_named(site: Site, tmp_path: Path) -> None:
    job = submission.prepare(tmp_path, "train-a", "key", "run")
    cause = root_cause("round 1, a: job 7", job, JobState("7", "FAILED", "node3", ""), None, "node3")
    assert isinstance(cause, InputError) and "not visible on node3" in cause.message and str(job.folder) in cause.message


def test_a_node_on_which_every_start_fails_is_excluded_and_the_others_go_on(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        if "node1" in site.excluded[-1]:
            site.finish(job)
        else:
            site.fail(job, "ImportError", refused=False)

    site.play = play  # type: ignore[method-assign]
    run_loop(store, "a", "b")
    assert [nodes for nodes in site.excluded if nodes] == [["node1"]] * 2
    kinds = {line["kind"] for line in ledger(store) if line["event"] == "failure"}
    (left_out,) = [line for line in ledger(store) if line["event"] == "node_left_out"]
    assert kinds == {"failed at its start"}, "max_failures is 1, but these are the node's"
    assert (left_out["node"], left_out["reason"]) == ("node1", "ImportError: what happened") and left_out["until"]


def test_when_no_node_is_left_each_is_named_with_the_last_line_of_its_log(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        node = next(node for node in site.nodes if node not in site.excluded[-1])
        (job.folder / "batch.log").write_text(f"module load cuda\nno module on {node}\n\n")
        site.set(job, "FAILED", node)
        site.start(job, node)

    site.play, site.nodes = play, ["node1"]  # type: ignore[method-assign]
    with pytest.raises(GangFailedError, match=r"no node is left .*: node1: no module on node1. Repair a node"):
        run_loop(store, "a")
    assert site.submitted == ["train-a-1", "train-a-2"] and store.stop_reason() is not None


def test_one_node_that_does_not_see_the_run_directory_costs_one_node(site: Site, store: RunStore) -> None:
    def play(job: JobRecord, number: int) -> None:
        site.set(job, "FAILED", f"node{number}") if number <= num_blind else site.finish(job)

    site.play, num_blind = play, 1  # type: ignore[method-assign]
    run_loop(store, "a")
    assert site.excluded == [[], ["node1"]]
    num_blind = 9
    site.submitted, site.excluded = [], []
    with pytest.raises(InputError, match="not visible on node2"):
        run_loop(store, "b")
    assert site.submitted == ["train-b-1", "train-b-2"]


def test_a_job_that_somebody_cancels_again_and_again_is_no_failure_of_a_node(site: Site, store: RunStore) -> None:
    site.play = lambda job, number: site.set(job, "CANCELLED")  # type: ignore[method-assign]
    monkey = client.exit_code
    client.exit_code = lambda job_id: None  # type: ignore[assignment]
    try:
        with pytest.raises(GangFailedError, match="ended CANCELLED"):
            run_loop(store, "a")
    finally:
        client.exit_code = monkey
    assert {line["kind"] for line in ledger(store)} == {"crashed"} and len(site.submitted) == 2


def test_a_folder_of_pickles_that_others_may_write_is_named(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "exit_code", lambda job_id: submission.EXIT_NOT_PRIVATE)
    job = submission.prepare(tmp_path, "train-a", "key", "run")
    cause = root_cause("round 1, a: job 7", job, JobState("7", "FAILED", "node3", ""), None, "node3")
    assert isinstance(cause, ConfigError)
    assert f"{job.folder}/submitit, whose pickles a job loads, belongs to another user, or others may write it" in cause.message


def test_a_job_that_says_nothing_any_more_is_cancelled_and_a_new_one_goes_on(
    site: Site, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.config = store.config.model_copy(update={"cluster": store.config.cluster.model_copy(update={"hang_timeout_s": 0.2})})

    def play(job: JobRecord, number: int) -> None:
        if number > 1:
            site.finish(job)
            return
        site.start(job)
        site.set(job, "RUNNING")
        beat = {"beat": 1, "host": "node1", "doing": "train", "step": 7}
        job_process.heartbeat_file(job.folder, 0).write_text(json.dumps(beat))

    def cancel(job_id: str, pending_only: bool = False) -> None:
        site.cancelled.append((job_id, pending_only))
        for name, state in site.states.items():
            if state.job_id == job_id:
                site.states[name] = JobState(job_id, "CANCELLED", "node1", "")

    site.play = play  # type: ignore[method-assign]
    monkeypatch.setattr(client, "cancel", cancel)
    assert list(run_loop(store, "a")) == ["a"]
    assert site.cancelled == [("101", False)]
    (failure,) = [line for line in ledger(store) if line["event"] == "failure"]
    assert (failure["kind"], failure["decision"], failure["host"]) == ("hung", "restart", "node1")
    assert "a: rank 0 on node1 has not answered for" in failure["reason"] and "in train after step 7" in failure["reason"]
