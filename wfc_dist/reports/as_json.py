"""What `--json` prints: one object for each of status, plan, audit, lineage, evaluate and compare, and its JSON schema.

The classes below are the schema (docs/json.md): `schema_of` makes it of them. Loads neither torch nor ray.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter

from wfc_dist.config.schema import Config
from wfc_dist.coordinator.plan import RunPlan
from wfc_dist.data.audit import AuditReport
from wfc_dist.evaluation.metrics import Score
from wfc_dist.runs.handle import Run

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class AdapterJson:
    """An adapter of a round; `sha256` and `steps` once it is committed, `checkpoint_step` while it is in training."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    dataset: str
    state: Literal["committed", "training", "waiting"]
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
    """A committed base; `model` and `revision` are those of the root, all after `adapters` those of other bases."""

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
    """Parameters and bytes of adapters and bases (see `coordinator.plan.WeightSizes`)."""

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
    """The score of a model on a set; a rate of 0.25 is 25 %, `low` and `high` its interval."""

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


@dataclass(frozen=True)
class EvaluateJson:
    """`wfc evaluate MODEL --on CONFIG --json`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    model: str
    normalizer: str
    scores: dict[str, ScoreJson]


@dataclass(frozen=True)
class ValueJson:
    """A figure of a system, its interval, and its difference to the reference system; null where it is no number."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    value: float | None
    low: float | None
    high: float | None
    seed_deviation: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    verdict: Literal["better", "worse", "same"]


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


_OF_COMMANDS: dict[str, type] = {
    "status": StatusJson, "plan": PlanJson, "audit": AuditJson, "lineage": LineageJson, "evaluate": EvaluateJson,
    "compare": CompareJson,
}  # fmt: skip
COMMANDS = tuple(_OF_COMMANDS)
"""The commands that take `--json`."""


def schema_of(command: str) -> dict[str, Any]:
    """Returns the JSON schema of what a command of COMMANDS prints with `--json`."""
    return TypeAdapter(_OF_COMMANDS[command]).json_schema()


def text_of(tree: Any) -> str:
    """Returns an object of this module, or compare.json's, as JSON; a number that JSON lacks raises ValueError."""
    return json.dumps(tree if isinstance(tree, Mapping) else asdict(tree), indent=1, ensure_ascii=False, allow_nan=False)


def status_json(run: Run) -> StatusJson:
    """Returns how far a run is."""
    status, facts = run.status(), run.status().facts
    rounds = [
        RoundJson(index, [_adapter(run, index, name) for name in names], base.sha256 if (base := run.find_base(index)) else None)
        for index, names in enumerate(run.config.round_list(), start=1)
    ]
    return StatusJson(
        str(run.path), status.state, status.message, status.attempt, facts.get("exit_code"), facts.get("host"),  # type: ignore[arg-type]
        facts.get("pid"), facts.get("time"), run.num_bases, _progress(run), rounds,
    )  # fmt: skip


def _progress(run: Run) -> ProgressJson | None:
    if (found := run.progress()) is None:
        return None
    trainings = [TrainingJson(**row) for row in found["trainings"]]
    trainings = [replace(row, loss=row.loss if row.loss is not None and isfinite(row.loss) else None) for row in trainings]
    return ProgressJson(**found | {"trainings": trainings})


def _adapter(run: Run, round_index: int, dataset: str) -> AdapterJson:
    if (adapter := run.adapter(round_index, dataset)) is not None:
        return AdapterJson(dataset, "committed", adapter.sha256, int(adapter.facts["steps"]), None)
    steps = run.checkpoints(round_index, dataset)
    return AdapterJson(dataset, "training" if steps else "waiting", None, None, steps[0] if steps else None)


def lineage_json(run: Run) -> LineageJson:
    """Returns which data, through which adapters and weights, made every base of a run."""
    bases = []
    for base in run.bases:
        made_of = []
        for dataset, sha256 in base.adapters.items():
            adapter = run.adapter(base.index, dataset)
            hours, steps = (adapter.facts["hours"], adapter.facts["steps"]) if adapter else (None, None)
            made_of.append(MadeOfJson(dataset, sha256, base.facts["weights"][dataset], hours, steps))
        root, facts = (base.facts, {}) if base.index == 0 else ({}, base.facts)
        bases.append(
            BaseJson(
                base.index, str(base.path), base.sha256, root.get("model"), root.get("revision"), made_of, facts.get("method"),
                facts.get("scale"), facts.get("update_norm"), facts.get("exactness_gap"), facts.get("update_loss"),
            )
        )  # fmt: skip
    return LineageJson(str(run.path), bases)


def plan_json(plan: RunPlan) -> PlanJson:
    """Returns what a run would do."""
    config, cluster = plan.config, plan.config.cluster
    trainings = [
        TrainingPlanJson(
            index, name, plan.hours.get(name), config.train.max_steps, plan.num_windows, plan.num_passes.get(name)
        )
        for index, names in enumerate(config.round_list(), start=1) for name in names
    ]  # fmt: skip
    return PlanJson(
        config.run_url() or str(config.run_dir()), cluster.backend, trainings, plan.num_trainers, plan.num_fitting,
        cluster.workers_per_trainer, cluster.cpus_per_worker, cluster.gpus_per_worker,
        SizesJson(**asdict(plan.sizes)) if plan.sizes else None, plan.num_models, len(config.test_sets()),
    )  # fmt: skip


def audit_json(report: AuditReport) -> AuditJson:
    """Returns clips, hours, durations and findings of every split."""
    problems = [problem.level for row in report.rows for problem in row.problems]
    splits = [
        SplitJson(
            row.name, row.split, row.num_clips, row.hours, row.min_s, row.mean_s, row.max_s, dict(row.languages),
            [ProblemJson(**asdict(problem)) for problem in row.problems], row.fingerprint, list(row.shown),
        )
        for row in report.rows
    ]  # fmt: skip
    return AuditJson(splits, problems.count("error"), problems.count("warning"))


def evaluate_json(model: str, config: Config, scores: Mapping[str, Score]) -> EvaluateJson:
    """Returns the scores of a model on the test sets of a configuration."""
    return EvaluateJson(model, config.evaluate.normalizer, {name: ScoreJson(**asdict(score)) for name, score in scores.items()})
