"""The only file that talks to torch.distributed outside the trainer."""

from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

TIMEOUT_S = 600


@dataclass(frozen=True)
class Group:
    """A process group that is no process's default, so that it meets no trainer's.

    Attributes:
        world_rank: This process.
        world_size: How many take part; 1 needs no network.
        handle: The gloo or NCCL process group; None for a world of 1.
        device: Where tensors must lie to be sent.
    """

    world_rank: int = 0
    world_size: int = 1
    handle: dist.ProcessGroup | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def join(world_rank: int, world_size: int, address: str, port: int, *, backend: str = "gloo") -> Group:
    """Joins the group of `world_size` processes that meets at address:port. Every rank must call it.

    Args:
        world_rank: This process, 0 to world_size - 1; rank 0 must run on the host `address`.
        world_size: Number of processes.
        address: Host name or IP of rank 0.
        port: A free TCP port there.
        backend: "gloo", or "nccl" where every rank has a GPU of its own.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if backend == "nccl" else torch.device("cpu")
    if world_size == 1:
        return Group(device=device)
    dist.init_process_group(
        backend,
        init_method=f"tcp://{address}:{port}",
        rank=world_rank,
        world_size=world_size,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    return Group(world_rank, world_size, dist.group.WORLD, device)


def leave(group: Group) -> None:
    """Ends the group. Every rank must call it."""
    if group.handle is not None:
        dist.destroy_process_group()


def gather_bytes(payload: bytes, group: Group, destination: int) -> list[bytes] | None:
    """Collects one byte string of every rank on rank `destination`. Every rank calls it, in the same order.

    Bytes, not sums, travel: the receiver adds in data-set order, so the result does not depend on the number of ranks.

    Args:
        payload: This rank's bytes; lengths may differ.
        group: The group.
        destination: World rank that gets them.

    Returns:
        The byte strings in rank order on `destination`, None elsewhere.
    """
    if group.world_size == 1:
        return [payload]
    size = torch.tensor([len(payload)], dtype=torch.int64, device=group.device)
    sizes = [torch.zeros_like(size) for _ in range(group.world_size)]
    dist.all_gather(sizes, size, group=group.handle)
    longest = max(int(item) for item in sizes)
    sent = torch.zeros(max(longest, 1), dtype=torch.uint8, device=group.device)
    if payload:
        sent[: len(payload)] = torch.frombuffer(bytearray(payload), dtype=torch.uint8).to(group.device)
    receives = group.world_rank == destination
    received = [torch.empty_like(sent) for _ in range(group.world_size)] if receives else None
    dist.gather(sent, received, dst=destination, group=group.handle)
    if received is None:
        return None
    return [item[: int(size)].cpu().numpy().tobytes() for item, size in zip(received, sizes, strict=True)]
