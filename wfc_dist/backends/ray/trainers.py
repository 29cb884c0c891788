"""`rounds.Trainers` and `scoring.Decoders` on a fleet of gangs; runs in the coordinator."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from wfc_dist import activity, log
from wfc_dist.backends.ray.centralizer import RayCentralizer
from wfc_dist.backends.ray.decoding import Decoding
from wfc_dist.backends.ray.factorization import Factorization
from wfc_dist.backends.ray.failures import one_line
from wfc_dist.backends.ray.fleet import POLL_S, Fleet, Loss, first_silent
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask, num_sets, work_of
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)


class RayTrainers:
    """K trainer gangs on Ray (see `rounds.Trainers`), which also decode test sets between trainings.

    Args:
        store: The opened run.
        display: Shows the progress of every trainer.
        hours: Hours of speech in each data set's training split; the longest is trained first.
        centralizer: Is started while the trainers train, and sends the changed tensors of a new base.
        fleet: The gangs.
    """

    def __init__(
        self, store: RunStore, display: Display, hours: Mapping[str, float], centralizer: RayCentralizer, fleet: Fleet
    ) -> None:
        self._store, self._display, self._hours, self._centralizer, self._fleet = store, display, hours, centralizer, fleet
        self._broadcast: tuple[Base, Any] | None = None
        self._hashes: tuple[Base, dict[str, str]] | None = None

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`. Gangs that are not ready yet read `base` from its folder later."""
        gangs = self._fleet.ready()
        if not gangs:
            return
        with log.span("broadcast", phase="loading", base_index=base.index):
            self._broadcast = (base, self._centralizer.changed(base))
            sent = [(gang, self._load_base(gang, base)) for gang in gangs]
            hosts = [rank.host for gang, refs in sent if self._received(gang, refs) for rank in gang.locations]
        self._broadcast = None  # frees its bytes in the object store; gangs that come later read the folder
        self._store.ledger.record("broadcast", round=base.index, sha256=base.sha256, hosts=hosts)
        logger.info("base %d is on %s, every hash verified", base.index, ", ".join(hosts))

    def _received(self, gang: Gang, refs: list[Any]) -> bool:
        limit_s = self._store.config.cluster.start_timeout_s
        end = time.monotonic() + limit_s
        try:
            while time.monotonic() < end:
                activity.moved()
                self._store.raise_if_stopped("during the broadcast")
                _, waiting = ray.wait(refs, num_returns=len(refs), timeout=POLL_S) if refs else ([], [])
                if not waiting:
                    ray.get(refs)
                    return True
            reason = f"did not load the base within cluster.start_timeout_s = {limit_s:g} s"
            self._fleet.fail_start(gang, reason, first_silent(refs), hangs=True)
        except RayError as error:
            if self._is_sender_lost():
                logger.warning("the base was not sent (%s); trainer %d reads it from its folder", one_line(error), gang.index)
                gang.base, gang.loading = None, []
            else:
                self._fleet.lose(gang, {}, lambda loss: _say_replaced(gang, loss))
        return False

    def _is_sender_lost(self) -> bool:
        """Whether the rank of the centralizer that sends the base has failed, which is no failure of those that receive it."""
        if self._broadcast is None or self._broadcast[1] is None:
            return False
        try:
            ray.wait([self._broadcast[1]], timeout=0)[0] and ray.get(self._broadcast[1])
        except RayError:
            return True
        return False

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`."""
        if not datasets:
            return {}
        self._fleet.open()
        num_adapters = len(self._store.config.round_list()[base.index])
        queue = sorted(datasets, key=lambda name: -self._hours.get(name, 0.0))  # stable: configured order among equals
        with (
            log.span("factorize", phase="waiting for trainers", round=base.index + 1),
            self._display.training(base.index + 1, datasets),
        ):
            return Factorization(
                self._store, self._fleet, self._display, self._load_base, lambda: self._centralizer.prepare(num_adapters),
                base=base, queue=queue,
            ).run()  # fmt: skip

    def num_decoders(self) -> int:
        """See `scoring.Decoders`. Starts the gangs, since their number depends on the room in the cluster."""
        self._fleet.open()
        return sum(len(gang.workers) for gang in self._fleet.gangs)

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, HypothesesBySet], None]) -> None:
        """See `scoring.Decoders`: `tasks` are spread over all workers of all gangs."""
        self._fleet.open()
        with self._display.working(work_of(tasks), num_sets(tasks), "sets") as told:
            Decoding(self._store, self._fleet, self._load_base, tasks, on_done, told=told).run()

    def _load_base(self, gang: Gang, base: Base) -> list[Any]:
        if gang.base == base:
            return []
        if self._hashes is None or self._hashes[0] != base:  # a long list, the same for every gang
            self._hashes = (base, self._store.tensor_hashes(base))
        offered = self._broadcast[1] if self._broadcast and self._broadcast[0] == base else None
        return gang.load_base(base, self._hashes[1], self._store.config.train, offered)


def _say_replaced(gang: Gang, loss: Loss) -> None:
    why = one_line(loss.cause)
    logger.warning("trainer %d on %s: %s; it is replaced, the new one reads the base", gang.index, loss.host, why)
