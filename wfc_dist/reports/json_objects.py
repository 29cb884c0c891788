"""The objects that `--json` prints, as classes: they are the schema (docs/json.md). Rates are shares, times are seconds."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class AdapterJson:
    """An adapter of a round; `sha256` and `steps` once it is committed, `checkpoint_step` while it is in training.

    One that is missing is of a data set that the round's base was made without.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    dataset: str
    state: Literal["committed", "training", "waiting", "missing"]
    sha256: str | None
    steps: int | None
    checkpoint_step: int | None


@dataclass(frozen=True)
class RoundJson:
    """A round (1-based), its adapters, and the sha256 of the base it made, null before."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    round: int
    adapters: list[AdapterJson]
    base_sha256: str | None


@dataclass(frozen=True)
class TrainingJson:
    """How far a training is; `left_s` is null where it is not known."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    dataset: str
    step: int
    max_steps: int
    loss: float | None
    host: str
    left_s: float | None


@dataclass(frozen=True)
class ProgressJson:
    """How far the phase is that a running run is in, `done` of `total` units, and its trainings; at `time_s` since the epoch."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    what: str
    done: float
    total: float
    unit: str
    left_s: float | None
    time_s: float
    trainings: list[TrainingJson]


@dataclass(frozen=True)
class StatusJson:
    """`wfc status RUN --json`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    run: str
    state: Literal["new", "running", "done", "failed", "interrupted"]
    message: str
    attempt: int
    exit_code: int | None
    host: str | None
    pid: int | None
    time: str | None
    num_bases: int
    progress: ProgressJson | None
    rounds: list[RoundJson]


@dataclass(frozen=True)
class MadeOfJson:
    """An adapter that a base is made of; `hours` and `steps` are null where its files are gone."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    dataset: str
    sha256: str
    weight: float
    hours: float | None
    steps: int | None


@dataclass(frozen=True)
class BaseJson:
    """A committed base; `model` and `revision` are those of the root, all after `adapters` those of other bases.

    `missing` says why the base was made without a data set of its round.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    index: int
    path: str
    sha256: str
    model: str | None
    revision: str | None
    adapters: list[MadeOfJson]
    method: str | None
    scale: float | None
    update_norm: float | None
    exactness_gap: float | None
    update_loss: float | None
    missing: dict[str, str]


@dataclass(frozen=True)
class LineageJson:
    """`wfc lineage RUN --json`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    run: str
    bases: list[BaseJson]


@dataclass(frozen=True)
class TrainingPlanJson:
    """One training that a run would do; hours and passes are null where they are not known."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    round: int
    dataset: str
    hours: float | None
    steps: int
    windows: int
    passes: float | None


@dataclass(frozen=True)
class SizesJson:
    """Parameters and bytes of adapters and bases (see `coordinator.sizes.WeightSizes`)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    num_adapted: int
    num_tensors: int
    num_trained: int
    adapter_bytes: int
    gathered_bytes: int
    changed_bytes: int
    root_bytes: int


@dataclass(frozen=True)
class PlanJson:
    """`wfc plan CONFIG --json`; `sizes` is null where the root model is not on this machine."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    run: str
    backend: str
    trainings: list[TrainingPlanJson]
    num_trainers: int
    num_fitting: int | None
    workers_per_trainer: int
    cpus_per_worker: float
    gpus_per_worker: float
    sizes: SizesJson | None
    num_models: int
    num_test_sets: int


@dataclass(frozen=True)
class ProblemJson:
    """A finding of an audit, with the number of clips (0: the split itself) and the first place."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    level: Literal["error", "warning"]
    what: str
    num_clips: int
    first: str
    todo: str


@dataclass(frozen=True)
class SplitJson:
    """One split of one data set; durations in seconds, clips by language, `shown` texts before and after cleaning."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    split: Literal["train", "dev", "test"]
    num_clips: int
    hours: float
    min_s: float
    mean_s: float
    max_s: float
    languages: dict[str, int]
    problems: list[ProblemJson]
    fingerprint: str | None
    shown: list[tuple[str, str]]


@dataclass(frozen=True)
class AuditJson:
    """`wfc audit CONFIG --json`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    splits: list[SplitJson]
    num_errors: int
    num_warnings: int


@dataclass(frozen=True)
class ScoreJson:
    """The score of a model on a set; a rate of 0.25 is 25 %, `low` and `high` its interval, over `num_units` units."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    metric: str
    rate: float
    low: float | None
    high: float | None
    errors: int
    reference_length: int
    substitutions: int
    deletions: int
    insertions: int
    num_clips: int
    confidence: float
    num_units: int | None


@dataclass(frozen=True)
class EvaluateJson:
    """`wfc evaluate MODEL --on CONFIG --json`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    model: str
    normalizer: str
    precision: str
    scores: dict[str, ScoreJson]


@dataclass(frozen=True)
class ValueJson:
    """A figure of a system, its interval, and its difference to the reference system; null where it is no number.

    `p_holm` is the p of the difference, corrected for all of the comparison; the verdict follows from it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    value: float | None
    low: float | None
    high: float | None
    seed_deviation: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None
    num_units: int
    verdict: Literal["better", "worse", "same", "too few to say"]


@dataclass(frozen=True)
class SystemJson:
    """One system of a comparison."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    system: str
    about: str
    seeds: list[int]
    num_planned: int
    norm: float
    values: dict[str, ValueJson]


@dataclass(frozen=True)
class CompareJson:
    """`wfc compare CONFIG --json`, and compare.json; `failures` says what went wrong in which run."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str
    reference: str
    seeds: list[int]
    datasets: list[str]
    protected: list[str]
    metric: str
    decoding: dict[str, Any]
    confidence: float
    formulas: dict[str, str]
    rows: list[SystemJson]
    failures: dict[str, str]
