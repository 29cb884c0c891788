"""The only file that talks to torch.distributed outside the trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
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
        handle: The gloo process group; None for a world of 1.
    """

    world_rank: int = 0
    world_size: int = 1
    handle: dist.ProcessGroup | None = None


def join(world_rank: int, world_size: int, address: str, port: int) -> Group:
    """Joins the group of `world_size` processes that meets at a free TCP port of rank 0's host. Every rank must call it."""
    if world_size == 1:
        return Group()
    meets_at, timeout = f"tcp://{address}:{port}", timedelta(seconds=TIMEOUT_S)
    dist.init_process_group("gloo", init_method=meets_at, rank=world_rank, world_size=world_size, timeout=timeout)
    return Group(world_rank, world_size, dist.group.WORLD)


def leave(group: Group) -> None:
    """Ends the group. Every rank must call it."""
    if group.handle is not None:
        dist.destroy_process_group()


def exchange_bytes(payloads: Sequence[bytes], group: Group) -> list[bytes]:
    """Sends payloads[i] to rank i and returns what each rank sent here, in rank order. Every rank calls it, in the same order.

    Bytes, not sums, travel: what adds them up decides the order, so the result does not depend on the number of ranks.
    """
    if group.world_size == 1:
        return list(payloads)
    sizes = torch.tensor([len(payload) for payload in payloads], dtype=torch.int64)
    incoming = torch.empty_like(sizes)
    dist.all_to_all_single(incoming, sizes, group=group.handle)
    out, into = sizes.tolist(), incoming.tolist()
    # One byte more than is sent: an empty buffer has no address.
    sent = torch.frombuffer(bytearray(b"".join(payloads) + b"\0"), dtype=torch.uint8)[:-1]
    received = torch.empty(sum(into), dtype=torch.uint8)
    dist.all_to_all_single(received, sent, into, out, group=group.handle)
    return [part.numpy().tobytes() for part in received.split(into)]


def all_gather_bytes(payload: bytes, group: Group) -> list[bytes]:
    """Returns every rank's bytes, in rank order, on every rank. Every rank calls it, in the same order."""
    return exchange_bytes([payload] * group.world_size, group)


def gather_bytes(payload: bytes, group: Group) -> list[bytes] | None:
    """Returns every rank's bytes, in rank order, on rank 0, None elsewhere. Every rank calls it, in the same order."""
    received = exchange_bytes([payload] + [b""] * (group.world_size - 1), group)
    return received if group.world_rank == 0 else None
