"""One rank of the average, in a module of its own: a spawned process imports what it needs and no more."""

from collections.abc import Sequence
from typing import Any

from wfc_dist.centralize import collectives
from wfc_dist.centralize.rank import CentralizeJob, centralize_rank


def run_rank(rank: int, size: int, port: int, jobs: Sequence[CentralizeJob], results: Any) -> None:
    group = collectives.join(rank, size, "127.0.0.1", port)
    try:
        staged = [centralize_rank(job, group) for job in jobs]
        if rank == 0:
            results.put(staged)
    finally:
        collectives.leave(group)
