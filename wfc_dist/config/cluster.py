"""Who trains where: the block `cluster`. Loads neither torch nor ray."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wfc_dist.config.training import RESUME, Strict

MAX_MERGE_THREADS = 4
"""Cores that one rank of the average makes use of; each thread holds three matrices in float64."""
MOST_LOADER_THREADS = 4
"""Loader threads that `auto` takes beside a GPU: each makes some 25 windows a second (docs/performance.md)."""


class SlurmConfig(Strict):
    """What the site wants to know of the small jobs of `backend: slurm`; None leaves it to the site's defaults."""

    partition: str | None = None
    """The partition of the jobs; by default that of SBATCH_PARTITION, as SBATCH_ACCOUNT and SBATCH_QOS for the next two keys."""
    account: str | None = None
    """The account that is charged."""
    qos: str | None = None
    """The quality of service."""
    time_min: int = Field(240, ge=1)
    """Time limit of one job in minutes; an adapter that needs longer checkpoints and is requeued."""
    mem_gb: float | None = Field(None, gt=0)
    """Memory of one node of a job, in GB."""
    max_requeues: int = Field(20, ge=0)
    """Preemptions and time-outs of one job that are made good."""
    parameters: dict[str, str | int | bool] = Field(default_factory=dict)
    """Other sbatch options by their long name, such as {constraint: a100}."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines before the program starts, such as `module load cuda`."""


class ClusterConfig(Strict):
    """Who trains where. Threads are part of the result's bytes; cores, nodes and addresses are not."""

    backend: Annotated[Literal["ray", "slurm", "in_process"], RESUME] = "ray"
    """`slurm` submits one small job per adapter instead of holding all nodes at once."""
    address: Annotated[str | None, RESUME] = None
    """A running Ray cluster; none starts one on this machine, for this run, on loopback."""
    wait_for_nodes: Annotated[int | list[str], RESUME] = 1
    """Nodes, by number or host name, that must have joined before anything starts."""
    node_labels: Annotated[dict[str, str], RESUME] = Field(default_factory=dict)
    """Only nodes with these Ray labels get trainers, such as {ray.io/accelerator-type: H100}."""
    on_drain: Annotated[Literal["stop", "move"], RESUME] = "stop"
    """A node's drain notice: checkpoint everything and exit 75, or checkpoint and move only that node's trainers."""
    cache_dir: Annotated[str | None, RESUME] = None
    """Folder on each node for a run on object storage; by default below ~/.cache/wfc_dist."""
    slurm: Annotated[SlurmConfig, RESUME] = SlurmConfig()
    workers_per_trainer: int = Field(1, ge=1)
    """Processes that train one adapter together. The batch of a step grows with them."""
    gpus_per_worker: Annotated[float, RESUME] = Field(0, ge=0)
    """GPUs of each process: 0 for CPUs, 1, or a fraction where several processes share a GPU."""
    cpus_per_worker: Annotated[float, RESUME] = Field(1, gt=0)
    """Cores that are reserved for each process."""
    threads_per_worker: int = Field(1, ge=1, le=4096)
    """Threads that one process calculates with. They are part of the result's bytes."""
    max_trainers: Annotated[int | None, RESUME] = Field(None, ge=1)
    """Adapters that are trained at a time; by default as many as the cluster holds."""
    max_failures: Annotated[int, RESUME] = Field(3, ge=0)
    """Failures of an adapter's own that are made good; those of nodes are counted apart, by node."""
    node_failures: Annotated[int, RESUME] = Field(2, ge=1)
    """Failures in a row after which a node gets no process for `node_rest_s`, while other nodes go on."""
    node_rest_s: Annotated[float, RESUME] = Field(1800, gt=0, le=1e9)
    """Seconds for which a node that fails is left out; then it is tried once, and the next rest is twice as long."""
    centralizer_ranks: Annotated[int | None, RESUME] = Field(None, ge=1)
    """Processes of the average; one per node by default. Does not change a byte."""
    start_timeout_s: Annotated[float, RESUME] = Field(300, gt=0, le=1e9)
    """Seconds until the cluster, and what runs on it, must have started."""

    hang_timeout_s: Annotated[Annotated[float, Field(gt=0, le=1e9)] | Literal["auto"], RESUME] = "auto"
    """Seconds without a step, a batch or a file after which work counts as hung, its processes are ended and it goes on from its
    last checkpoint. `auto`: 600, or ten times the longest time between two of them in the same work, if that is more."""

    def loader_threads(self) -> int:
        """Returns what `train.loader_workers: auto` is: as many as a GPU needs, or one where a CPU trainer leaves a core free."""
        cores = int(self.cpus_per_worker)
        if self.gpus_per_worker:
            return min(max(cores - 1, 1), MOST_LOADER_THREADS)
        return int(cores > self.threads_per_worker)

    @model_validator(mode="after")
    def _one_gpu_a_worker(self) -> "ClusterConfig":
        if self.gpus_per_worker > 1:
            raise ValueError("gpus_per_worker: a worker uses one GPU at most; set workers_per_trainer to the GPUs of a trainer")
        if 0 < self.gpus_per_worker < 1 and self.workers_per_trainer > 1:
            raise ValueError("gpus_per_worker: workers of one trainer cannot share a GPU (NCCL); use 1, or one worker")
        return self
