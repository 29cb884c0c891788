"""Settles `precision: auto` when a run starts, and says where a run has to emulate the precision that it has."""

import logging
from collections.abc import Callable, Mapping

from wfc_dist.errors import ConfigError
from wfc_dist.runs.opening import settle_precision
from wfc_dist.runs.precision import decided
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)


def settle(store: RunStore, find_out: Callable[[], Mapping[str, bool]], say: Callable[[str], None]) -> None:
    """Decides what `auto` is, in the first attempt, before anything is scored or trained. Does nothing for fp32 and fp16.

    A later attempt keeps the decision. On CPUs without bf16 it goes on slowly, which is said here, apart from the nodes of Slurm,
    which are not known yet. Trainers refuse a GPU without it.

    Args:
        store: The opened run, whose configuration gets the decision.
        find_out: Returns host -> whether its processors calculate in bfloat16, for the hosts that may train.
        say: Called with what is decided.

    Raises:
        ConfigError: No host that may train has answered.
    """
    precisions, cluster = store.config.precisions, store.config.cluster
    is_seen_later = cluster.gpus_per_worker > 0 or cluster.backend == "slurm"
    if "auto" not in precisions and ("bf16" not in precisions or is_seen_later):
        return
    found = find_out()
    if "auto" in precisions:
        if not found:
            raise ConfigError("precision auto: no node that could train has answered; set the key precision to bf16 or fp32")
        chosen, why = decided(found)
        settle_precision(store, chosen)
        store.ledger.record("precision", round=store.current_round(), precision=chosen, reason=why)
        say(f"precision auto is {chosen}: {why}")
    elif lacking := sorted(host for host, has in found.items() if not has):
        say(f"warning: {', '.join(lacking)} has no bf16, in which this run calculates: it is emulated, which is slow")
