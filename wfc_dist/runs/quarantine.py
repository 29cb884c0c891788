"""Data sets whose adapter could not be trained in this attempt, and whether a round may do without them.

A quarantine lasts for one attempt: the next one tries again, as long as the base of the round is not committed. The manifest of a
base says who was missing, for good.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence

from wfc_dist.errors import GangFailedError, WfcError
from wfc_dist.rounds import Adapter
from wfc_dist.runs.records import Ledger

logger = logging.getLogger(__name__)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST_TRACE = 6000  # letters of a traceback that the ledger keeps, the last ones


def num_needed(quorum: float | None, num_datasets: int) -> int:
    """Returns how many adapters a round of `num_datasets` needs: all of them, a number, or a share below 1, rounded up."""
    if quorum is None:
        return num_datasets
    wanted = math.ceil(quorum * num_datasets - 1e-9) if quorum < 1 else int(quorum)
    return max(1, min(wanted, num_datasets))


class Quarantine:
    """The data sets that are set aside in this attempt.

    Args:
        ledger: Records each of them, with the traceback.
        quorum: The value of `centralize.quorum`.
    """

    def __init__(self, ledger: Ledger, quorum: float | None) -> None:
        self._ledger, self._quorum = ledger, quorum
        self._errors: dict[tuple[int, str], WfcError] = {}

    def add(self, round_index: int, dataset: str, error: WfcError, trace: str, host: str) -> None:
        """Sets a data set aside; the others of its round train on.

        Args:
            round_index: Its round (1-based).
            dataset: Its name.
            error: Why it has no adapter.
            trace: The traceback of the process that failed.
            host: Where that process ran.
        """
        self._errors[round_index, dataset] = error
        facts = {"host": host, "reason": _reason(error), "traceback": _COLOURS.sub("", trace)[-_LONGEST_TRACE:]}
        self._ledger.record("quarantined", round=round_index, dataset=dataset, **facts)
        logger.error("round %d: %s is quarantined, the others go on: %s", round_index, dataset, error)

    def holds(self, round_index: int, dataset: str) -> bool:
        """Returns whether a data set is set aside."""
        return (round_index, dataset) in self._errors

    def may_retry(self, round_index: int, dataset: str) -> bool:
        """Returns whether training a late data set may help in this attempt: it has not failed, or its trainers were lost."""
        return isinstance(self._errors.get((round_index, dataset)), GangFailedError | None)

    def present(self, round_index: int, datasets: Sequence[str], adapters: Mapping[str, Adapter]) -> list[Adapter]:
        """Returns the adapters of a round's data sets, in their order.

        Raises:
            WfcError: Fewer than `centralize.quorum` are there. It is the error of the data set that is missing; of several, one
                of the class of the first that names them all.
        """
        found = [adapters[name] for name in datasets if name in adapters]
        if len(found) >= num_needed(self._quorum, len(datasets)):
            return found
        errors = [self._errors[round_index, name] for name in datasets if name not in adapters]
        if len(errors) == 1:
            raise errors[0]
        raise type(errors[0])("; ".join(error.message for error in errors))

    def missing(self, round_index: int, datasets: Sequence[str], merged: Mapping[str, str]) -> dict[str, str]:
        """Returns data set -> why its adapter is not among those that were merged, in the order of the round."""
        errors = {name: self._errors.get((round_index, name)) for name in datasets if name not in merged}
        return {name: _reason(error) if error else "left out" for name, error in errors.items()}


def _reason(error: WfcError) -> str:
    return f"{type(error).__name__}: {error.message}"[:300]
