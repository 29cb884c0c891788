"""Collective operations on bytes. Only this file and the trainer use torch.distributed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from wfc_dist import activity

TIMEOUT_S = 600


@dataclass(frozen=True)
class Group:
    """A process group for averaging.

    Attributes:
        world_rank: Rank of this process.
        world_size: Number of processes. 1 needs no network.
        handle: The gloo process group; None for a world of 1.
    """

    world_rank: int = 0
    world_size: int = 1
    handle: dist.ProcessGroup | None = None


def join(world_rank: int, world_size: int, address: str, port: int) -> Group:
    """Joins a group of `world_size` processes. They meet at a free TCP port on the host of rank 0. Every rank must call it."""
    if world_size == 1:
        return Group()
    endpoint, timeout = f"tcp://{address}:{port}", timedelta(seconds=TIMEOUT_S)
    dist.init_process_group("gloo", init_method=endpoint, rank=world_rank, world_size=world_size, timeout=timeout)
    return Group(world_rank, world_size, dist.group.WORLD)


def leave(group: Group) -> None:
    """Leaves the group. Every rank must call it."""
    if group.handle is not None:
        dist.destroy_process_group()


def exchange_bytes(payloads: Sequence[bytes], group: Group) -> list[bytes]:
    """Sends payloads[i] to rank i and returns the bytes received from each rank, in rank order.

    Every rank must call it, in the same order. Ranks exchange bytes and not sums, so the receiver decides the order of summation,
    and the result does not depend on the number of ranks.
    """
    activity.moved()
    if group.world_size == 1:
        return list(payloads)
    sizes = torch.tensor([len(payload) for payload in payloads], dtype=torch.int64)
    incoming = torch.empty_like(sizes)
    dist.all_to_all_single(incoming, sizes, group=group.handle)
    sizes_out, sizes_in = sizes.tolist(), incoming.tolist()
    # The buffer has one byte more than is sent, because an empty buffer has no address.
    sent = torch.frombuffer(bytearray(b"".join(payloads) + b"\0"), dtype=torch.uint8)[:-1]
    received = torch.empty(sum(sizes_in), dtype=torch.uint8)
    dist.all_to_all_single(received, sent, sizes_in, sizes_out, group=group.handle)
    return [part.numpy().tobytes() for part in received.split(sizes_in)]


def all_gather_bytes(payload: bytes, group: Group) -> list[bytes]:
    """Returns the bytes of all ranks, in rank order, on every rank. Every rank must call it, in the same order."""
    return exchange_bytes([payload] * group.world_size, group)


def gather_bytes(payload: bytes, group: Group) -> list[bytes] | None:
    """Returns the bytes of all ranks, in rank order, on rank 0; else None. Every rank must call it, in the same order."""
    received = exchange_bytes([payload] + [b""] * (group.world_size - 1), group)
    return received if group.world_rank == 0 else None
