"""The gate that a merge must pass before its base is committed (`centralize.gate`): its size, and what it does to canary sets.

A verdict follows from the base, the adapters and the configuration alone: an attempt that begins again comes to the same one.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.config.centralize import GateConfig
from wfc_dist.errors import GateError, NotFiniteError
from wfc_dist.evaluation.intervals import Estimated
from wfc_dist.evaluation.scoring import RunScorer
from wfc_dist.merging.factors import ratio_of_norms
from wfc_dist.rounds import Adapter, Base, Centralizer, StagedBase
from wfc_dist.runs.store import RunStore
from wfc_dist.weights import base_chain

logger = logging.getLogger(__name__)
SMALLER = (0.5, 0.25, 0.125)
"""Factors of the scale that the action `scale` tries, in order."""


@dataclass(frozen=True)
class Trial:
    """One merge, and what is wrong with it.

    Attributes:
        what: "all adapters", "scale x 0.5" or "without c".
        findings: What is wrong, in sentences; none if the merge passes.
        update_ratio: ||update|| / ||W|| over the weights that it changes; None if the update is not finite.
        canaries: Canary set -> rate after - rate before, with its interval.
    """

    what: str
    findings: tuple[str, ...] = ()
    update_ratio: float | None = None
    canaries: Mapping[str, Estimated] = field(default_factory=dict)

    @property
    def badness(self) -> tuple[float, float]:
        """Returns what a better trial has less of: the sum of the changes of the canaries, then the size of the update."""
        return sum(change.value for change in self.canaries.values()), self.update_ratio or 0.0

    def facts(self) -> dict[str, Any]:
        """Returns the trial as JSON, for the manifest of the base."""
        canaries = {name: [change.value, change.low, change.high] for name, change in self.canaries.items()}
        return {"what": self.what, "findings": list(self.findings), "update_ratio": self.update_ratio, "canaries": canaries}


class GatedCentralizer:
    """A centralizer whose merges must pass the gate (see `rounds.Centralizer`).

    Args:
        store: The opened run.
        centralizer: Averages and merges.
        scorer: Decodes and scores the canary sets.
        say: Gets a line for each merge that does not pass, and for what is done about it.
    """

    def __init__(self, store: RunStore, centralizer: Centralizer, scorer: RunScorer, say: Callable[[str], None]) -> None:
        self._store, self._centralizer, self._scorer, self._say = store, centralizer, scorer, say
        self._gate: GateConfig = store.config.centralize.gate

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `rounds.Centralizer`.

        Raises:
            GateError: The merge does not pass, nor does what the action tries. Nothing is committed.
        """
        trials: list[Trial] = []
        staged = self._tried(base, adapters, "all adapters", trials)
        if staged is None and self._gate.action == "scale":
            staged = self._smaller(base, adapters, trials)
        elif staged is None and self._gate.action == "leave_one_out" and len(adapters) > 1:
            staged = self._without_one(base, adapters, trials)
        if staged is None:
            raise self._refusal(base, trials)
        if len(trials) > 1:
            self._say(f"round {base.index + 1}: the gate passes the merge, {trials[-1].what}")
        return replace(staged, facts={**staged.facts, "gate": {"passed": trials[-1].what, "trials": [t.facts() for t in trials]}})

    def _smaller(self, base: Base, adapters: Sequence[Adapter], trials: list[Trial]) -> StagedBase | None:
        try:
            for factor in SMALLER:
                self._store.scale_factor = factor
                if (staged := self._tried(base, adapters, f"scale x {factor:g}", trials)) is not None:
                    return staged
        finally:
            self._store.scale_factor = 1.0
        return None

    def _without_one(self, base: Base, adapters: Sequence[Adapter], trials: list[Trial]) -> StagedBase | None:
        """Returns the best merge without one adapter that passes; the data set is recorded as missing."""
        passed: list[tuple[tuple[float, float], int]] = []
        for place, left_out in enumerate(adapters):
            others = [adapter for adapter in adapters if adapter is not left_out]
            if (staged := self._tried(base, others, f"without {left_out.dataset}", trials)) is not None:
                passed.append((trials[-1].badness, place))
                _remove(staged)
        if not passed:
            return None
        culprit = adapters[min(passed)[1]]
        others = [adapter for adapter in adapters if adapter is not culprit]
        staged = self._tried(base, others, f"without {culprit.dataset}", trials)
        assert staged is not None, "the same merge has passed before"
        why = f"GateError: with it, {'; '.join(trials[0].findings)}"[:300]
        return replace(staged, facts={**staged.facts, "missing": {culprit.dataset: why}})

    def _tried(self, base: Base, adapters: Sequence[Adapter], what: str, trials: list[Trial]) -> StagedBase | None:
        """Merges, judges and notes the trial. Returns the staged base if it passes; else it is removed."""
        staged, trial = None, Trial(what)
        try:
            staged = self._centralizer.centralize(base, adapters)
            with log.span("gate", phase="scoring", round=base.index + 1):
                trial = self._judged(base, staged, what)
        except NotFiniteError as error:
            trial = Trial(what, (error.message,))
        trials.append(trial)
        if not trial.findings:
            return staged
        if staged is not None:
            _remove(staged)
        self._store.ledger.record("gate", round=base.index + 1, action=self._gate.action, **trial.facts())
        self._say(f"round {base.index + 1}: the gate refuses the merge, {what}: {'; '.join(trial.findings)}")
        return None

    def _judged(self, base: Base, staged: StagedBase, what: str) -> Trial:
        norm = float(staged.facts["update_norm"])
        ratio = ratio_of_norms(norm**2, base_chain.squared_norm_of(Path(base.path), staged.facts["changed"]))
        earlier = max((float(self._store.manifest(index)["update_norm"]) for index in range(1, base.index + 1)), default=0.0)
        findings = _of_size(self._gate, ratio, norm / earlier if earlier else 0.0)
        canaries = {} if findings or not self._gate.canaries else self._changes(base, staged)
        return Trial(what, (*findings, *_of_canaries(self._gate, canaries)), ratio, canaries)

    def _changes(self, base: Base, staged: StagedBase) -> dict[str, Estimated]:
        self._store.staged = staged
        try:
            return self._scorer.changes(base, Base(staged.index, staged.path, staged.sha256), self._gate.canaries)
        finally:
            self._store.staged = None

    def _refusal(self, base: Base, trials: Sequence[Trial]) -> GateError:
        said = [f"{trial.what}: {'; '.join(trial.findings)}" for trial in trials]
        return GateError(
            f"round {base.index + 1}: centralize.gate refuses the merge. {'. '.join(said)}. Nothing was committed, the adapters "
            "are kept: lower centralize.scale, choose another centralize.gate.action, or raise the limit, then run again"
        )


def _of_size(gate: GateConfig, ratio: float, growth: float) -> list[str]:
    """Returns what is wrong with the size of an update: its share of the weights, and of the largest update before."""
    found = []
    if gate.max_update_ratio is not None and not ratio <= gate.max_update_ratio:
        found.append(f"the update is {ratio:.3g} times the weights, above max_update_ratio = {gate.max_update_ratio:g}")
    if gate.max_growth is not None and not growth <= gate.max_growth:
        found.append(f"the update is {growth:.3g} times the largest before it, above max_growth = {gate.max_growth:g}")
    return found


def _of_canaries(gate: GateConfig, canaries: Mapping[str, Estimated]) -> list[str]:
    """Returns which canary sets get worse by more than the limit, where the interval of the change lies above zero.

    Every set is judged by itself, with few units as well: a correction for many sets would let more harm pass, the more are
    watched.
    """
    return [
        f"{name} gets worse by {100 * change.value:.1f} points [{100 * change.low:.1f}, {100 * change.high:.1f}], "
        f"above max_worse = {100 * gate.max_worse:g}"
        for name, change in canaries.items()
        if change.low is not None and change.high is not None and change.low > 0 and change.value > gate.max_worse
    ]


def _remove(staged: StagedBase) -> None:
    for folder in (staged.path, staged.delta_path):  # a Slurm job that is found again must not be taken for done
        shutil.rmtree(folder, ignore_errors=True)
