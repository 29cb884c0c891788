"""A centralizer whose bases are read back from the disk before anybody commits them."""

import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from wfc_dist import log
from wfc_dist.backends import memory
from wfc_dist.backends.failure_policy import Decision
from wfc_dist.centralize.readback import Sources, require_as_computed
from wfc_dist.errors import IntegrityError
from wfc_dist.rounds import Adapter, Base, Centralizer, StagedBase
from wfc_dist.runs.store import RunStore
from wfc_dist.stream import StreamCentralizer

logger = logging.getLogger(__name__)


def sources_of(store: RunStore, index: int) -> Sources:
    """Returns what base `index` of an opened run is made of, beside its own delta."""
    root = store.manifest(0)
    past = tuple(store.paths.delta(past) for past in range(1, index))
    return Sources(Path(root["root"]), Path(root["model_path"]), past, store.config.base.dtype)


class CheckedCentralizer:
    """Reads each staged base back. A merge whose files are not what was computed is repeated once (see `rounds.Centralizer`).

    Args:
        store: The opened run.
        centralizer: Averages and merges.
        say: Gets a line if a merge is repeated.
    """

    def __init__(self, store: RunStore, centralizer: Centralizer, say: Callable[[str], None]) -> None:
        self._store, self._centralizer, self._say = store, centralizer, say

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `rounds.Centralizer`. Raises IntegrityError if the merge is wrong on the disk twice; nothing is committed."""
        return self._checked(base, partial(self._centralizer.centralize, base, adapters))

    def centralize_interim(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `stream.StreamCentralizer`. Raises as `centralize` does."""
        assert isinstance(self._centralizer, StreamCentralizer), "the configuration was checked"
        return self._checked(base, partial(self._centralizer.centralize_interim, base, adapters))

    def _checked(self, base: Base, merge: Callable[[], StagedBase]) -> StagedBase:
        staged, index = merge(), base.index + 1
        try:
            return self._read_back(base, staged)
        except IntegrityError as error:
            self._note(index, error, Decision.RESTART)
            self._say(f"round {index}: {error.message}; the merge is repeated")
        staged = merge()
        try:
            return self._read_back(base, staged)
        except IntegrityError as error:
            self._note(index, error, Decision.GIVE_UP)
            raise IntegrityError(
                f"round {index}: {error.message}, for the second time; nothing was committed. Check disk and memory of this "
                "machine, or run on another one; the adapters are kept, and the same command goes on"
            ) from error

    def _read_back(self, base: Base, staged: StagedBase) -> StagedBase:
        try:
            with log.span("read_back", phase="merging", round=base.index + 1):
                require_as_computed(staged, sources_of(self._store, base.index + 1), self._store.tensor_hashes(base))
        except IntegrityError:
            for folder in (staged.path, staged.delta_path):  # a job that is found again must not be taken for done
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            memory.trim()
        return staged

    def _note(self, round_index: int, error: IntegrityError, decision: Decision) -> None:
        logger.error("round %d: %s", round_index, error.message)
        self._store.ledger.record(
            "failure", round=round_index, work="read_back", reason=error.message[:300], decision=decision.value
        )
