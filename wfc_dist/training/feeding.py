"""Feeds a trainer: makes the micro-batches of the next steps in threads while the trainer computes.

Threads rather than processes: decoding and features leave the interpreter's lock for most of their time; a thread starts at once,
inherits no lock, socket or signal handler of the trainer, and ends with it.
"""

import logging
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from wfc_dist.data.batching import Batch, TrainingWindows
from wfc_dist.training.world import World

logger = logging.getLogger(__name__)

_MUCH_WAITING = 0.1  # of the time of a training


def feed(
    windows: TrainingWindows, first_step: int, num_steps: int, world: World, num_threads: int
) -> Generator[tuple[int, list[Batch]]]:
    """Yields (step, micro-batches of this rank) for `num_steps` steps. Close it to end its threads.

    Neither the batches nor the state of torch's random generators depend on `num_threads`. At least one step is made ahead, and
    more where a step has too few micro-batches to keep all threads at work.

    Args:
        windows: The training windows; the calling thread plans them, only `batch_of` runs in threads.
        first_step: The first step, from 0.
        num_steps: How many steps there are at most.
        world: This rank.
        num_threads: Threads that work ahead; 0 makes the micro-batches of a step when the step is asked for.

    Raises:
        InputError: A clip's audio is missing or unreadable; raised at the step that needs the clip.
    """
    steps = iter(range(first_step, first_step + num_steps))
    if not num_threads:
        for step in steps:
            yield step, windows.micro_batches(step, world.world_rank, world.world_size)
        return
    num_ahead = max(1, -(-2 * num_threads // windows.num_micro_batches))
    waiting: deque[tuple[int, list[Future[Batch]]]] = deque()
    pool = ThreadPoolExecutor(num_threads, "loader", initializer=torch.set_num_threads, initargs=(1,))
    try:
        while True:
            for step in steps:
                rows = [
                    windows.rows(step, micro, world.world_rank, world.world_size) for micro in range(windows.num_micro_batches)
                ]
                waiting.append((step, [pool.submit(windows.batch_of, of_micro) for of_micro in rows]))
                if len(waiting) > num_ahead:
                    break
            if not waiting:
                return
            step, futures = waiting.popleft()
            yield step, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def log_waiting(num_steps: int, step_s: float, data_wait_s: float) -> None:
    """Logs the share of a training that was spent waiting for data, with advice where that is much."""
    whole_s = max(step_s + data_wait_s, 1e-9)
    much = data_wait_s > _MUCH_WAITING * whole_s
    advice = "; let more threads make them ahead: raise train.loader_workers" if much else ""
    level = logging.WARNING if much else logging.INFO
    logger.log(
        level, "%d steps in %.1f s, %.0f %% of it waiting for data%s", num_steps, whole_s, 100 * data_wait_s / whole_s, advice
    )
