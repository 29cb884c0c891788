"""The matrix R[t][j] of a run: the error of base t on test set j, with every single adapter beside its base."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from wfc_dist.config.schema import Config
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.metrics import Score
from wfc_dist.runs.handle import ModelScores, Run


@dataclass(frozen=True)
class ScoredModel:
    """One scored model.

    Attributes:
        kind: `base` or `adapter`.
        index: Base index, or the adapter's round.
        dataset: The data set of an adapter; empty for a base.
        folder: Holds scores.json and the hypotheses, `<set>.jsonl`.
        scores: Test set -> score.
    """

    kind: str
    index: int
    dataset: str
    folder: Path
    scores: Mapping[str, Score]

    @property
    def title(self) -> str:
        """Returns `base 1`, or `2:fisher` for the adapter of round 2."""
        return f"base {self.index}" if self.kind == "base" else f"{self.index}:{self.dataset}"

    @property
    def run_dir(self) -> Path:
        """Returns the run directory that the model belongs to."""
        return self.folder.parents[2]

    def hypotheses(self, name: str) -> Path:
        """Returns the file of what the model wrote for a test set; it may be missing."""
        return self.folder / f"{name}.jsonl"


@dataclass(frozen=True)
class ScoreMatrix:
    """Everything that was scored in a run.

    Attributes:
        config: The run's configuration: which set was learned in which round, which are protected, the metric.
        bases: Base index -> its scores.
        adapters: (round, data set) -> its scores, in the order of the rounds.
        missing: Round -> data sets that its base was made without.
        late: Round -> data sets of earlier rounds that its base has learned.
    """

    config: Config
    bases: Mapping[int, ScoredModel]
    adapters: Mapping[tuple[int, str], ScoredModel]
    missing: Mapping[int, Collection[str]] = field(default_factory=dict)
    late: Mapping[int, Collection[str]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Returns T, the index of the last scored base; 0 when there is none."""
        return max(self.bases, default=0)

    @property
    def protected(self) -> list[str]:
        """Returns the names of the protected sets."""
        return list(self.config.evaluate.protected)

    @property
    def learned(self) -> dict[str, int]:
        """Returns test set -> the last round up to T that trained on it, in the order they were learned.

        A round that trains on a mix has learned the mix and every part.
        """
        return self._learned(min(self.last, len(self.config.round_list())))

    def _learned(self, num_rounds: int) -> dict[str, int]:
        rounds = enumerate(self.config.round_list()[:num_rounds], start=1)
        present = {
            index: [*(name for name in names if name not in self.missing.get(index, ())), *self.late.get(index, ())]
            for index, names in rounds
        }
        return {
            name: index for index, names in present.items() for name in self.config.with_parts(names) if name in self._own_sets
        }

    @property
    def _own_sets(self) -> list[str]:
        return [name for name in self.config.test_sets() if name not in self.config.evaluate.protected]

    @property
    def own(self) -> list[str]:
        """Returns the test sets that are not protected, in the order they are learned; those in no round come last."""
        return list(dict.fromkeys([*self._learned(len(self.config.round_list())), *self._own_sets]))

    def trained_on(self, model: ScoredModel, name: str) -> bool:
        """Returns whether a model is an adapter that was trained on a test set, alone or as a part of a mix."""
        dataset = self.config.datasets.get(model.dataset)
        return name == model.dataset or (dataset is not None and name in dataset.parts)

    def models_of(self, round_index: int) -> list[ScoredModel]:
        """Returns the scored models of a round in the order they came to be: the base before, the adapters, the base after."""
        adapters = [model for (of_round, _), model in self.adapters.items() if of_round == round_index]
        models = [self.bases.get(round_index - 1), *adapters, self.bases.get(round_index)]
        return [model for model in models if model is not None]


def _scores(model: ModelScores) -> dict[str, Score]:
    known = {item.name for item in fields(Score)}
    try:
        return {name: Score(**{key: value for key, value in facts.items() if key in known}) for name, facts in model.sets.items()}
    except (TypeError, AttributeError) as error:
        raise IntegrityError(f"{model.path} is no scores file ({error!r}); remove it and run again") from error


def read_matrix(run_dir: Path) -> ScoreMatrix:
    """Reads the configuration and all scores of a run; those of a stream's interim bases are left to `wfc status`.

    Raises:
        InputError: Not a run directory.
        IntegrityError: A damaged scores file.
    """
    run = Run(run_dir)
    config = run.config
    bases: dict[int, ScoredModel] = {}
    adapters: dict[tuple[int, str], ScoredModel] = {}
    for model in run.scores():
        if model.base_index is not None:
            bases[model.base_index] = ScoredModel("base", model.base_index, "", model.path.parent, _scores(model))
        elif model.kind == "adapter":
            key = (model.round_index, model.model)
            adapters[key] = ScoredModel("adapter", *key, model.path.parent, _scores(model))
    order = {(index, name): None for index, names in enumerate(config.round_list(), start=1) for name in names}
    ordered = {key: adapters[key] for key in [*order, *(key for key in adapters if key not in order)] if key in adapters}
    made, rounds = run.bases, config.round_list()
    missing = {base.index: tuple(base.missing) for base in made if base.missing}
    late = {base.index: [name for name in base.adapters if name not in rounds[base.index - 1]] for base in made[1:]}
    return ScoreMatrix(
        config, dict(sorted(bases.items())), ordered, missing, {key: names for key, names in late.items() if names}
    )
