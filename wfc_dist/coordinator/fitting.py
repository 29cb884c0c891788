"""Weights and scale of a round's mean fitted on dev error (`centralize.weights: fitted`, `centralize.scale: fitted`).

Every mixture that is tried becomes an adapter that stacks the round's adapters, and the trainers decode with it as with any
adapter. RUN/round-NNNN/fit keeps the trials, so that an interrupted fit goes on, and the result.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.centralize.rank import load_adapters
from wfc_dist.centralize.weights import asked_for
from wfc_dist.errors import InputError
from wfc_dist.evaluation.hypotheses import count_hypotheses
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.evaluation.scoring import Decoders, HypothesesBySet, ScoreTask
from wfc_dist.merging.factors import Factors, normalized
from wfc_dist.merging.mixtures import Mixture, least_error
from wfc_dist.rounds import Adapter, Base, Centralizer, StagedBase
from wfc_dist.runs.shapes import MIXTURE_TRIED
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.weights import peft_folder as peft_folders

_MIXTURE = "mixture-"


class FittedCentralizer:
    """A centralizer that fits weights and scale before it averages (see `rounds.Centralizer`).

    Args:
        store: The opened run; its configuration asks for a fit.
        centralizer: Averages and merges, with the weights and the scale that `store.fits` has by then.
        decoders: Decode the dev splits.
        say: Gets a line for every batch of mixtures, and for the result.
    """

    def __init__(self, store: RunStore, centralizer: Centralizer, decoders: Decoders, say: Callable[[str], None]) -> None:
        self._store, self._centralizer, self._decoders, self._say = store, centralizer, decoders, say

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `rounds.Centralizer`."""
        if self._store.fits.find(base.index + 1, adapters) is None:
            with log.span("fit", phase="fitting", round=base.index + 1):
                _Fit(self._store, self._decoders, self._say, base, adapters).run()
        return self._centralizer.centralize(base, adapters)


class _Fit:
    """The search for weights and scale of one round."""

    def __init__(
        self, store: RunStore, decoders: Decoders, say: Callable[[str], None], base: Base, adapters: Sequence[Adapter]
    ) -> None:
        self._store, self._decoders, self._say, self._base, self._adapters = store, decoders, say, base, adapters
        self._folder = store.paths.fit(base.index + 1)
        self._trials = store.paths.fit_trials(base.index + 1)
        self._sets = {adapter.dataset: store.config.datasets[adapter.dataset] for adapter in adapters}
        self._factors: list[dict[str, Factors]] = []
        self._rates = self._tried_before()

    def _tried_before(self) -> dict[Mixture, dict[str, float]]:
        self._store.mirror.fetch_file(self._trials)
        mine, tried = [adapter.sha256 for adapter in self._adapters], {}
        for line in durable.read_json_lines(self._trials, repair=True, sealed=True, fits=MIXTURE_TRIED.fits):
            if line["adapters"] == mine:
                tried[Mixture(tuple(line["weights"]), line["scale"])] = line["rates"]
        return tried

    def run(self) -> None:
        """Searches, and records the best mixture."""
        settings, index = self._store.config.centralize, self._base.index + 1
        asked = asked_for(settings, index, self._adapters)
        start = Mixture(tuple(normalized(asked.weights)), asked.scale)
        best, error, before = least_error(
            start, self._errors, weights=settings.weights == "fitted", scale=settings.scale == "fitted"
        )
        weights = {adapter.dataset: weight for adapter, weight in zip(self._adapters, best.weights, strict=True)}
        facts = {"weights": weights, "scale": best.scale, "dev_error": error, "dev_error_at_start": before}
        self._store.fits.commit(index, self._adapters, {**facts, "rates": self._rates[best], "num_tried": len(self._rates)})
        shares = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
        self._say(f"round {index}: dev error {100 * before:.1f} -> {100 * error:.1f} % with scale {best.scale:.3g}, {shares}")

    def _errors(self, mixtures: Sequence[Mixture]) -> list[float]:
        """Returns the mean over the round's data sets of the dev error of each mixture."""
        new = [mixture for mixture in mixtures if mixture not in self._rates]
        if new:
            self._say(f"round {self._base.index + 1}: trying {len(new)} mixtures on {len(self._sets)} dev splits")
            self._try(new)
        return [math.fsum(self._rates[mixture].values()) / len(self._sets) for mixture in mixtures]

    def _try(self, mixtures: Sequence[Mixture]) -> None:
        evaluate = self._store.config.evaluate
        self._remove_mixtures()  # those of an interrupted attempt
        names = {f"{_MIXTURE}{len(self._rates) + place}": mixture for place, mixture in enumerate(mixtures)}
        tasks = [
            ScoreTask(self._base, self._stacked(name, mixture), self._sets, evaluate, "dev") for name, mixture in names.items()
        ]
        rates: dict[str, dict[str, float]] = {name: {} for name in names}
        num_each = math.ceil(self._decoders.num_decoders() / len(tasks))

        def note(task: ScoreTask, hypotheses: HypothesesBySet) -> None:
            assert task.adapter is not None
            by_set = rates[task.adapter.dataset]
            by_set |= {name: self._rate(name, hypotheses) for name in task.sets}
            if by_set.keys() == self._sets.keys():
                self._keep(names[task.adapter.dataset], {name: by_set[name] for name in self._sets})

        self._decoders.decode([part for task in tasks for part in task.split(num_each, {})], note)
        self._remove_mixtures()

    def _remove_mixtures(self) -> None:
        here = [path.name for path in self._folder.glob(f"{_MIXTURE}*")]
        for name in {*here, *self._store.mirror.folders(self._folder)}:
            self._store.mirror.remove(self._folder / name)
            durable.remove_folder(self._folder / name)

    def _rate(self, name: str, hypotheses: HypothesesBySet) -> float:
        try:
            evaluate = self._store.config.evaluate.of(self._sets[name])
            counts = count_hypotheses(hypotheses[name], evaluate, spelling_table(Path(self._base.path)))
        except InputError as error:
            raise InputError(f"{name}/dev: {error}; a fit needs dev splits with words") from error
        return counts.rate

    def _keep(self, mixture: Mixture, rates: Mapping[str, float]) -> None:
        self._rates[mixture] = dict(rates)
        line: dict[str, Any] = {"adapters": [adapter.sha256 for adapter in self._adapters]}
        line |= {"weights": mixture.weights, "scale": mixture.scale, "rates": rates}
        self._folder.mkdir(parents=True, exist_ok=True)
        durable.append_line(self._trials, json.dumps(durable.seal(line)))
        self._store.mirror.publish_file(self._trials)

    def _stacked(self, name: str, mixture: Mixture) -> Adapter:
        """Returns a mixture as an adapter."""
        if not self._factors:
            loaded = load_adapters(self._adapters, self._base)
            self._factors = [loaded[adapter.dataset] for adapter in self._adapters]
        final = self._folder / name
        staged = durable.staging_path(final, self._store.attempt)
        sha256 = peft_folders.write_stacked(staged, self._factors, mixture.coefficients(), Path(self._adapters[0].path))
        durable.commit_folder(staged, final, {"base_sha256": self._base.sha256})
        self._store.mirror.publish(final)
        return Adapter(name, str(final), sha256, self._base.sha256, 0.0)
