"""A trainer gang, which is a worker group: the Ray actors of one trainer, in one placement group, warm for the whole run."""

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from wfc_dist.backends import memory, net
from wfc_dist.backends.ray.metrics import TrainerMetrics
from wfc_dist.backends.ray.placement import Need
from wfc_dist.backends.worker import Worker, WorkerSetup
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.training import TrainConfig
from wfc_dist.rounds import Base
from wfc_dist.storage.mirror import AnyMirror
from wfc_dist.training.job import TrainingJob, TrainingResult

NODE_ID = "ray.io/node-id"  # the label that Ray gives every node


@dataclass(frozen=True)
class WorkerLocation:
    """Where a worker runs: host name, IP, network interface of its process group, and Ray's node id."""

    host: str
    address: str
    interface: str
    node_id: str


class WorkerActor(Worker):
    """A `Worker` in a process of its own. Its calls run one after the other, apart from those of the group `status`."""

    _metrics: TrainerMetrics | None = None
    report: Any = ray.method(concurrency_group="status")(Worker.report)
    request_stop: Any = ray.method(concurrency_group="status")(Worker.request_stop)

    def endpoint(self) -> tuple[str, int]:
        """Returns host and a free port for the gang's process group; called on world_rank 0."""
        host = ray.util.get_node_ip_address()
        return host, net.free_port(host)

    def train(self, job: TrainingJob) -> TrainingResult:
        """Trains one adapter, and tells Ray's metrics of it on world_rank 0."""
        if self.setup.world_rank == 0:
            metrics = self._metrics = self._metrics or TrainerMetrics(self.setup.run_name)
            self.on_progress = lambda progress: metrics.update(job.dataset, progress)
        return super().train(job)

    def join_here(self, endpoint: tuple[str, int]) -> WorkerLocation:
        """Joins the gang's process group over the interface of this node's address (see `join`), and says where it runs."""
        address = ray.util.get_node_ip_address()
        interface = net.choose_interface(address)
        self.join(endpoint)
        return WorkerLocation(socket.gethostname(), address, interface, ray.get_runtime_context().get_node_id())


_REMOTE_WORKER: Any = ray.remote(concurrency_groups={"status": 1}, max_restarts=0)(WorkerActor)  # type: ignore[call-overload]


@dataclass(eq=False)
class Gang:
    """`workers_per_trainer` actors and their placement group. No method waits.

    Attributes:
        index: The gang's number, also in log names; a replacement gets a new one.
        places: Node ids of the workers: as planned, and once the gang is ready as they are.
        base: The base that its workers have loaded or have been asked to load.
        locations: Where the workers run; empty until the gang is ready.
        stopping: Whether the gang was asked to checkpoint and end.
        lost: Whether a worker has failed; the gang gets no more work.
        proven: Whether it has made a step, or finished any work. A gang that fails before has failed at its start.
        started_s: When the gang was started, `time.monotonic`.
    """

    index: int
    group: PlacementGroup
    workers: list[Any]
    places: list[str]
    joining: list[Any]
    base: Base | None = None
    locations: list[WorkerLocation] = field(default_factory=list)
    loading: list[Any] = field(default_factory=list)
    stopping: bool = False
    lost: bool = False
    proven: bool = False
    started_s: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> bool:
        """Whether every worker has joined."""
        return bool(self.locations)

    @property
    def host(self) -> str:
        """Host name of world_rank 0."""
        return self.locations[0].host if self.locations else "?"

    @classmethod
    def start(
        cls, index: int, nodes: Sequence[str], cluster: ClusterConfig, log_dir: str, mirror: AnyMirror, *, run_name: str,
        avoid: Sequence[str] = (),
    ) -> "Gang":  # fmt: skip
        """Starts a gang on `nodes` (one id per worker) and returns at once; calls to its workers queue until they are up.

        Ray may choose other nodes where those are taken, but none of `avoid`.
        """
        need = Need(cluster.cpus_per_worker, cluster.gpus_per_worker, cluster.node_labels)
        together = len(set(nodes)) == 1
        labels = dict(need.labels) | ({NODE_ID: f"!in({','.join(avoid)})"} if avoid else {})
        group = placement_group(
            [need.bundle() for _ in nodes],
            strategy="STRICT_PACK" if together else "PACK",
            _soft_target_node_id=nodes[0] if together else None,
            bundle_label_selector=[labels for _ in nodes] if labels else None,
        )
        setups = [
            WorkerSetup(
                world_size=len(nodes),
                world_rank=rank,
                local_rank=list(nodes[:rank]).count(nodes[rank]),
                threads=cluster.threads_per_worker,
                use_gpu=cluster.gpus_per_worker > 0,
                log_dir=log_dir,
                name=f"gang-{index}-rank-{rank}",
                mirror=mirror,
                work_dir=os.getcwd(),
                run_name=run_name,
            )
            for rank in range(len(nodes))
        ]
        workers = [cls._start_worker(setup, cluster, group) for setup in setups]
        endpoint = workers[0].endpoint.remote()
        return cls(index, group, workers, list(nodes), [worker.join_here.remote(endpoint) for worker in workers])

    @staticmethod
    def _start_worker(setup: WorkerSetup, cluster: ClusterConfig, group: PlacementGroup) -> Any:
        threads = str(cluster.threads_per_worker)
        return _REMOTE_WORKER.options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **memory.ENVIRONMENT}},
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=setup.world_rank),
        ).remote(setup)

    def poll(self) -> bool:
        """Returns whether the gang has become ready since the last call. Raises RayError when a worker died or refused."""
        done, waiting = ray.wait(self.joining, num_returns=len(self.joining), timeout=0)
        locations = ray.get(done)
        if self.locations or waiting:
            return False
        self.locations = locations
        self.places = [location.node_id for location in locations]  # Ray may have chosen another node than was asked for
        return True

    def load_base(self, base: Base, hashes: dict[str, str], train: TrainConfig, broadcast: Any = None) -> list[Any]:
        """Queues the loading of `base` on every worker; returns references to the sha256 that each has loaded."""
        if self.base == base:
            return []
        self.base = base
        self.loading = [worker.load_base.remote(base, hashes, train, broadcast) for worker in self.workers]
        return self.loading

    def errors(self, last: Mapping[int, Any] = MappingProxyType({})) -> list[tuple[int, RayError]]:
        """Returns (rank, error) of the workers that failed at their start, at loading the base, or at `last`: rank -> reference.

        Where an earlier call of a rank failed, its later ones fail, too; the first error of a rank is its cause.
        """
        calls = [*enumerate(self.joining), *enumerate(self.loading), *last.items()]
        ready, _ = ray.wait([ref for _, ref in calls], num_returns=len(calls), timeout=0)
        answered, by_rank = set(ready), dict[int, RayError]()
        for rank, ref in calls:
            if ref in answered:
                try:
                    ray.get(ref)
                except RayError as error:
                    by_rank.setdefault(rank, error)
        return list(by_rank.items())

    def placed_on(self) -> list[str]:
        """Returns the node ids of the workers, by rank, as Ray has placed them; [] before it has."""
        if self.locations:
            return self.places
        bundles = placement_group_table(self.group).get("bundles_to_node_id", {})
        return [bundles[rank] for rank in sorted(bundles)] if all(bundles.values()) else []

    def train(self, job: TrainingJob) -> list[Any]:
        """Queues the training of one adapter on every worker."""
        return [worker.train.remote(job) for worker in self.workers]

    def request_stop(self) -> None:
        """Asks the workers to checkpoint and end their training; they answer while they train."""
        if not self.stopping:
            self.stopping = True
            for worker in self.workers:
                worker.request_stop.remote()

    def kill(self) -> None:
        """Ends the processes and gives their resources back."""
        for worker in self.workers:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(worker)
        with contextlib.suppress(RayError, ValueError):
            remove_placement_group(self.group)
