"""Ray as the coordinator sees it, in one process and on a clock of its own: nodes, actors and references without machines.

Fake: Ray's calls (`wait`, `get`, `kill`, `remote`, placement groups, the list of nodes), what runs behind an actor's method
(an adapter is two small files), the average (see `SimulatedCentralizer`) and the clock, which jumps to what comes next.
Real: all of the coordinator, `gangs.Gang` included, and the run directory. The time the fakes take is counted apart.
"""

import contextlib
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from wfc_dist.activity import Activity
from wfc_dist.backends import node_failures
from wfc_dist.backends.jobs import centralize_job
from wfc_dist.backends.ray import admission, factorization, fleet, gangs, liveness, nodes, trainers
from wfc_dist.backends.ray.placement import Node
from wfc_dist.backends.worker import Report
from wfc_dist.errors import Interrupted
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs.store import RunStore
from wfc_dist.training.job import Progress, TrainingJob, TrainingResult
from wfc_dist.weights import peft_folder
from wfc_dist.weights.hashing import content_sha256

START_S = 20.0
LISTED_S = 60.0


@dataclass(eq=False)
class Ref:
    """What a call will return: known at `due_s`, made by `make`, which may raise a RayError."""

    due_s: float
    make: Callable[[], Any]
    done: bool = False
    value: Any = None
    error: RayError | None = None


class SimulatedRay:
    """Stands where the coordinator's modules have `ray` and `time`.

    Args:
        num_nodes: Nodes of 8 CPUs and 1 GPU.
        train_s: Data set -> seconds on the simulated clock.
        lose_every: Every so-many-th training ends with its process, without a word; 0 for none.
        broken: Host names of nodes on which no worker can start.
        silent: Host name -> when the node loses its plug; Ray lists it for LISTED_S more.

    Attributes:
        calls: Messages to workers by method, and calls of Ray itself (`wait`, `refs waited for`, `get`).
        cpu_s: Processor seconds spent in here, which no coordinator would spend.
        trained: Data set -> how often its training came to an end.
        starts: Host name -> how often a worker was started there.
    """

    def __init__(
        self, num_nodes: int, train_s: Callable[[str], float], lose_every: int = 0, *, broken: Sequence[str] = (),
        silent: Mapping[str, float] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        self._broken, self._silent = broken, silent
        self.starts: Counter[str] = Counter()
        self.nodes = [Node(f"{i:056x}", f"node{i:05d}", 8, 1, f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}") for i in range(num_nodes)]
        self.calls: Counter[str] = Counter()
        self.trained: Counter[str] = Counter()
        self.cpu_s = self.now_s = 0.0
        self._train_s, self._lose_every = train_s, lose_every
        self._num_trainings = self._num_pending = 0
        self._pending: list[tuple[float, int, Ref]] = []

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.cpu_s += time.process_time() - start

    def later(self, after_s: float, make: Callable[[], Any]) -> Ref:
        """Returns a reference to what `make` returns `after_s` from now."""
        ref = Ref(self.now_s + after_s, make)
        self._num_pending += 1
        heapq.heappush(self._pending, (ref.due_s, self._num_pending, ref))
        return ref

    def _advance(self, to_s: float) -> None:
        """Moves the clock and makes what is due."""
        self.now_s = max(self.now_s, to_s)
        while self._pending and self._pending[0][0] <= self.now_s:
            ref = heapq.heappop(self._pending)[2]
            ref.done = True
            try:
                ref.value = ref.make()
            except RayError as error:
                ref.error = error

    def _settle(self, refs: Sequence[Ref], num_returns: int, timeout_s: float | None) -> None:
        end_s = float("inf") if timeout_s is None else self.now_s + timeout_s
        self._advance(self.now_s)
        while sum(ref.done for ref in refs) < num_returns and self.now_s < end_s:
            assert self._pending or end_s < float("inf"), "someone waits for what never comes"
            self._advance(min(self._pending[0][0], end_s) if self._pending else end_s)

    # What the coordinator calls.

    def wait(self, refs: Sequence[Ref], *, num_returns: int = 1, timeout: float | None = None) -> tuple[list[Ref], list[Ref]]:
        """See `ray.wait`."""
        with self._apart():
            self.calls["wait"] += 1
            self.calls["refs waited for"] += len(refs)
            self._settle(refs, num_returns, timeout)
            done = [ref for ref in refs if ref.done][:num_returns]
            chosen = set(map(id, done))
            return done, [ref for ref in refs if id(ref) not in chosen]

    def get(self, refs: Any, *, timeout: float | None = None) -> Any:
        """See `ray.get`."""
        with self._apart():
            self.calls["get"] += 1
            wanted = refs if isinstance(refs, list) else [refs]
            self._settle(wanted, len(wanted), timeout)
            for ref in wanted:
                if ref.error is not None:
                    raise ref.error
                if not ref.done:
                    raise GetTimeoutError
            return [ref.value for ref in wanted] if isinstance(refs, list) else refs.value

    def kill(self, worker: "_Worker") -> None:
        """See `ray.kill`."""
        self.calls["kill"] += 1
        worker.alive = False

    def remote(self, **_options: Any) -> Callable[[Any], Any]:
        """See `ray.remote`; runs `admission.node_facts`, the only plain function that the coordinator sends out."""
        return lambda _function: _NodeFactsTask(self)

    def get_runtime_context(self) -> Any:
        """See `ray.get_runtime_context`."""
        return self

    def get_node_id(self) -> str:
        """Returns the coordinator's node, which is none of the trainers'."""
        return "head"

    def monotonic(self) -> float:
        """See `time.monotonic`."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """See `time.sleep`."""
        with self._apart():
            self._advance(self.now_s + seconds)

    # What runs elsewhere.

    def start_worker(self, node_id: str) -> "_Worker":
        """Returns a worker on a node."""
        self.starts[self.name(node_id)] += 1
        return _Worker(self, node_id)

    def name(self, node_id: str) -> str:
        """Returns a node's host name."""
        return f"node{int(node_id, 16):05d}"

    def silent_since_s(self, node_id: str) -> float:
        """Returns when a node loses its plug; infinity where it does not."""
        return self._silent.get(self.name(node_id), float("inf"))

    def is_broken(self, node_id: str) -> bool:
        """Whether no worker can start on a node."""
        return self.name(node_id) in self._broken

    def listed(self) -> list[Node]:
        """Returns the nodes that Ray lists: one without a plug for a while longer."""
        return [node for node in self.nodes if self.now_s < self.silent_since_s(node.node_id) + LISTED_S]

    def train(self, worker: "_Worker", job: TrainingJob) -> Ref:
        """Trains one adapter on the simulated clock."""
        self._num_trainings += 1
        is_lost = bool(self._lose_every) and self._num_trainings % self._lose_every == 0

        def make() -> TrainingResult:
            if is_lost or not worker.alive:
                raise RayActorError
            if worker.stopped:
                raise RayTaskError("train", "", Interrupted(f"{job.dataset}: checkpointed", step=7)).as_instanceof_cause()
            self.trained[job.dataset] += 1
            return _write_adapter(job)

        end_s = self.silent_since_s(worker.node_id) - self.now_s
        if end_s < self._train_s(job.dataset):
            worker.alive = False
            return self.later(end_s, make)
        return self.later(self._train_s(job.dataset), make)

    @contextlib.contextmanager
    def installed(self) -> Iterator["SimulatedRay"]:
        """Puts itself in the place of Ray and of the clock in the coordinator's modules."""
        places = [
            (module, name)
            for module in (factorization, fleet, liveness, nodes, node_failures, trainers, admission)
            for name in ("ray", "time")
        ]
        with contextlib.ExitStack() as stack:
            for module, name in [*places, (gangs, "ray")]:
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, self))
            stack.enter_context(mock.patch.object(nodes, "alive_nodes", self.listed))
            stack.enter_context(mock.patch.object(gangs, "_REMOTE_WORKER", _Actor(self)))
            stack.enter_context(mock.patch.object(gangs, "placement_group", self._placement_group))
            stack.enter_context(mock.patch.object(gangs, "remove_placement_group", lambda group: None))
            table = lambda group: {"bundles_to_node_id": {0: group}}  # noqa: E731
            stack.enter_context(mock.patch.object(gangs, "placement_group_table", table))
            yield self

    def _placement_group(self, bundles: Sequence[object], *, _soft_target_node_id: str | None, **_options: Any) -> Any:
        self.calls["placement_group"] += 1
        assert _soft_target_node_id is not None, "a simulated gang stays on one node"
        return _soft_target_node_id


@dataclass
class _NodeFactsTask:
    """`admission.node_facts` on a node."""

    ray: SimulatedRay
    node_id: str = ""

    def options(self, *, scheduling_strategy: Any) -> "_NodeFactsTask":
        return replace(self, node_id=scheduling_strategy.node_id)

    def remote(self, marker_file: str, _root: str, _try_imports: bool) -> Ref:
        self.ray.calls["node_facts"] += 1
        marker = Path(marker_file).read_text() if marker_file else None
        facts = admission.NodeFacts("node", "10.0.0.1", "eth0", VERSIONS, marker, True)
        if self.ray.now_s >= self.ray.silent_since_s(self.node_id):
            return self.ray.later(float("inf"), lambda: None)
        return self.ray.later(0.1, lambda: facts)


VERSIONS = admission.versions()


@dataclass
class _Actor:
    """The class of the workers."""

    ray: SimulatedRay
    node_id: str = ""

    def options(self, *, scheduling_strategy: Any, **_options: Any) -> "_Actor":
        return replace(self, node_id=scheduling_strategy.placement_group)

    def remote(self, _setup: object) -> "_Worker":
        return self.ray.start_worker(self.node_id)


@dataclass(eq=False)
class _Method:
    ray: SimulatedRay
    name: str
    run: Callable[..., Ref]

    def remote(self, *arguments: Any) -> Ref:
        with self.ray._apart():
            self.ray.calls[self.name] += 1
            return self.run(*arguments)


@dataclass(eq=False)
class _Worker:
    """One worker: answers at once, but for its start and its trainings."""

    ray: SimulatedRay
    node_id: str
    alive: bool = True
    stopped: bool = False

    def __getattr__(self, name: str) -> _Method:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Method(self.ray, name, getattr(self, f"_{name}"))

    def _endpoint(self) -> Ref:
        return self.ray.later(0, lambda: ("10.0.0.1", 1))

    def _join_here(self, _endpoint: Ref) -> Ref:
        def make() -> gangs.WorkerLocation:
            if self.ray.is_broken(self.node_id):
                raise RayTaskError("join_here", "", ImportError("libcudart.so.12: not found")).as_instanceof_cause()
            return gangs.WorkerLocation(self.ray.name(self.node_id), "10.0.0.1", "eth0", self.node_id)

        never = self.ray.now_s + START_S >= self.ray.silent_since_s(self.node_id)
        return self.ray.later(float("inf") if never else START_S, make)

    def _load_base(self, base: Base, *_rest: Any) -> Ref:
        return self.ray.later(0, lambda: base.sha256)

    def _train(self, job: TrainingJob) -> Ref:
        return self.ray.train(self, job)

    def _report(self) -> Ref:
        return self.ray.later(0, lambda: Report(Activity(doing="train", step=1), Progress(1, 2, 3.0, 1e-3, 50.0, "train")))

    def _request_stop(self) -> Ref:
        self.stopped = True
        return self.ray.later(0, lambda: None)


def _write_adapter(job: TrainingJob) -> TrainingResult:
    out = Path(job.output_dir)
    (out / peft_folder.WEIGHTS).write_bytes(job.dataset.encode() * 8)
    (out / peft_folder.CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 32, "lora_alpha": 64}))
    sha256 = content_sha256({job.dataset: job.base.sha256})
    return TrainingResult(sha256, 1.0, 2000, 2000, None, None, 2.5, 6_553_600, 600.0, 0.0, 90_000.0, 0)


@dataclass
class SimulatedCentralizer:
    """Commits what an average would have: one small file, and a manifest of the real size (see `rounds.Centralizer`).

    Attributes:
        tensors: Names of the base's tensors.
        changed: Those of the adapted matrices.
    """

    store: RunStore
    ray: SimulatedRay
    tensors: Sequence[str]
    changed_names: Sequence[str] = field(default_factory=list)

    def prepare(self, num_adapters: int) -> None:
        """Starts no rank."""

    def changed(self, base: Base) -> None:
        """Offers nothing: the gangs read the folder."""

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """Returns a base whose hash depends on the adapters and their order."""
        job = centralize_job(self.store, base, list(adapters))
        with self.ray._apart():
            for folder in (job.delta_dir, job.base_dir):
                (Path(folder) / "model.safetensors").write_bytes(b"x")
            sha256 = content_sha256({f"{number:06d}": item.sha256 for number, item in enumerate(adapters)})
            norms = dict.fromkeys(self.changed_names, 0.125)
            facts = {
                "exactness_gap": 0.1, "update_loss": 1e-3, "update_norm": 1.0, "gap_per_module": norms,
                "update_norm_per_module": norms, "tensors": dict.fromkeys(self.tensors, sha256), "links": {},
                "changed": list(self.changed_names), "method": job.method, "scale": job.scale,
                "weights": {item.dataset: 1 / len(adapters) for item in adapters},
                "adapters": {item.dataset: item.sha256 for item in adapters}, "parent_sha256": base.sha256,
            }  # fmt: skip
        return StagedBase(base.index + 1, job.base_dir, job.delta_dir, sha256, facts)


class NoScorer:
    """Scores nothing (see `rounds.Scorer`)."""

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        """Does nothing."""


def commit_root(store: RunStore, tensors: Sequence[str]) -> None:
    """Commits base 0 with as many tensors as the real one, without a model."""
    if store.base(0) is None:
        from wfc_dist.storage import durable

        staged = durable.staging_path(store.paths.base(0), store.attempt)
        hashes = dict.fromkeys(tensors, "0" * 64)
        facts = {"model": "simulated", "revision": None, "root": "simulated", "found": "simulated", "root_tensors": hashes,
                 "tensors": hashes, "root_files": {}, "model_path": "simulated"}  # fmt: skip
        store.commit_root(staged, content_sha256(hashes), facts)
