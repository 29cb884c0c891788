"""The processes that train one adapter together, and their collectives besides those of the gradients."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from wfc_dist.errors import ConfigError

TIMEOUT_S = 1800
"""A rank that waits longer than this for another one raises an error. Must exceed one dev evaluation."""
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class World:
    """One process among those that train an adapter.

    Attributes:
        world_size: Number of processes.
        world_rank: Rank of this process; only rank 0 writes files.
        device: Where its tensors lie.
        made_group: Whether this process had no default torch.distributed group before.
    """

    world_size: int = 1
    world_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    made_group: bool = False

    def sum_(self, values: torch.Tensor) -> torch.Tensor:
        """Sums `values` over all ranks, in place, and returns them. Every rank must call it, in the same order."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, values: Sequence[float]) -> list[float]:
        """Returns rank 0's `values` on every rank. Every rank must call it, with the same number of values."""
        sent = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world_size > 1:
            dist.broadcast(sent, src=0)
        return sent.tolist()

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Returns the `values` of every rank, in rank order, on the CPU. Every rank must call it, with one shape and dtype."""
        if self.world_size == 1:
            return [values.cpu()]
        mine = values.to(self.device)
        received = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(received, mine)
        return [tensor.cpu() for tensor in received]

    def barrier(self) -> None:
        """Waits for every rank."""
        self.sum_(torch.zeros(1, device=self.device)).item()  # NCCL's call returns before it is done; reading the value waits


def join_world(
    world_size: int,
    world_rank: int,
    local_rank: int,
    master_addr: str,
    master_port: int,
    *,
    device: torch.device | str = "cpu",
    threads: int = 1,
) -> World:
    """Makes this process one of `world_size`. A warm process joins once and trains many adapters.

    Sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT and OMP_NUM_THREADS, which Accelerate
    and DeepSpeed read, and the default torch.distributed group: NCCL on GPUs, gloo on CPUs. Every rank must call it.

    Args:
        world_size: Number of processes; one alone needs no network, address or port.
        world_rank: This process, 0 to world_size - 1.
        local_rank: This process on its node. Where Ray shows a process only one GPU, that GPU has number 0.
        master_addr: Host of rank 0.
        master_port: A free TCP port there.
        device: "cpu" or "cuda"; one GPU per process.
        threads: CPU threads of this process.

    Raises:
        ConfigError: A GPU is asked for, and torch finds none.
    """
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"cluster.gpus_per_worker asks for a GPU on {socket.gethostname()}, where torch {torch.__version__} finds none; "
            "set cluster.gpus_per_worker to 0 to train on CPUs, or install the driver and a torch that is built for it"
        )
    index = local_rank % torch.cuda.device_count() if kind == "cuda" else local_rank
    # Accelerate and DeepSpeed take LOCAL_RANK for the number of the device.
    values = (world_rank, world_size, index, world_size, master_addr, master_port, threads)
    os.environ |= {name: str(value) for name, value in zip(_ENVIRONMENT, values, strict=True)}
    if kind == "cuda":
        torch.cuda.set_device(index)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"  # read when anything imports DeepSpeed
    makes_group = not dist.is_initialized()
    if makes_group:
        backend, limit = "nccl" if kind == "cuda" else "gloo", timedelta(seconds=TIMEOUT_S)
        if world_size == 1:  # DeepSpeed needs a group even for one process; a store in memory needs no port
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
        else:
            address = f"tcp://{master_addr}:{master_port}"
            dist.init_process_group(backend, init_method=address, rank=world_rank, world_size=world_size, timeout=limit)
    torch.set_num_threads(threads)
    where = torch.device(kind, index) if kind == "cuda" else torch.device("cpu")
    return World(world_size, world_rank, where, makes_group)


def leave_world(world: World) -> None:
    """Ends the default torch.distributed group if `join_world` made it. Every rank must call it.

    A process that has used DeepSpeed keeps the group: DeepSpeed holds it in global variables, also for later engines.
    """
    deepspeed = sys.modules.get("deepspeed")
    if world.made_group and dist.is_initialized() and not (deepspeed and deepspeed.comm.is_initialized()):
        dist.destroy_process_group()
