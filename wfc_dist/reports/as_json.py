"""What `--json` prints: one object for each of status, plan, audit, lineage, evaluate, compare and doctor, and its JSON schema.

The classes are in `json_objects`, and the doctor's in `doctor.findings`: `schema_of` makes the schema of them. Loads neither
torch nor ray.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isfinite
from typing import Any

from pydantic import TypeAdapter

from wfc_dist.config.schema import Config
from wfc_dist.coordinator.plan import RunPlan
from wfc_dist.data.audit import AuditReport
from wfc_dist.doctor.findings import DoctorJson
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.json_objects import (
    AdapterJson,
    AuditJson,
    BaseJson,
    CompareJson,
    EvaluateJson,
    LineageJson,
    MadeOfJson,
    PlanJson,
    ProblemJson,
    ProgressJson,
    RoundJson,
    ScoreJson,
    SizesJson,
    SplitJson,
    StatusJson,
    TrainingJson,
    TrainingPlanJson,
)
from wfc_dist.runs.handle import Run
from wfc_dist.runs.watch import doubt_about

_OF_COMMANDS: dict[str, type] = {
    "status": StatusJson, "plan": PlanJson, "audit": AuditJson, "lineage": LineageJson, "evaluate": EvaluateJson,
    "compare": CompareJson, "doctor": DoctorJson,
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
        str(run.path), status.state, doubt_about(run) or status.message, status.attempt, facts.get("exit_code"),  # type: ignore[arg-type]
        facts.get("host"), facts.get("pid"), facts.get("time"), run.num_bases, _progress(run), rounds,
    )  # fmt: skip


def _progress(run: Run) -> ProgressJson | None:
    if (found := run.progress()) is None:
        return None
    trainings = [TrainingJson(**row) for row in found["trainings"]]
    trainings = [replace(row, loss=row.loss if row.loss is not None and isfinite(row.loss) else None) for row in trainings]
    return ProgressJson(**found | {"trainings": trainings})


def _adapter(run: Run, round_index: int, dataset: str) -> AdapterJson:
    if (adapter := run.adapter(round_index, dataset)) is not None:
        return AdapterJson(dataset, "committed", adapter.sha256, adapter.facts.get("steps"), None)
    if (base := run.find_base(round_index)) is not None and dataset in base.missing:
        return AdapterJson(dataset, "missing", None, None, None)
    steps = run.checkpoints(round_index, dataset)
    return AdapterJson(dataset, "training" if steps else "waiting", None, None, steps[0] if steps else None)


def lineage_json(run: Run) -> LineageJson:
    """Returns which data, through which adapters and weights, made every base of a run."""
    bases = []
    for base in run.bases:
        made_of = []
        for dataset, sha256 in base.adapters.items():
            adapter = run.adapter(base.index, dataset)
            hours, steps = (adapter.facts.get("hours"), adapter.facts.get("steps")) if adapter else (None, None)
            if dataset not in (weights := base.facts.get("weights", {})):
                raise IntegrityError(f"{base.path} does not say the weight of {dataset}; remove it and run again")
            made_of.append(MadeOfJson(dataset, sha256, weights[dataset], hours, steps))
        root, facts = (base.facts, {}) if base.index == 0 else ({}, base.facts)
        bases.append(
            BaseJson(
                base.index, str(base.path), base.sha256, root.get("model"), root.get("revision"), made_of, facts.get("method"),
                facts.get("scale"), facts.get("update_norm"), facts.get("exactness_gap"), facts.get("update_loss"),
                dict(base.missing),
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
    return EvaluateJson(
        model, config.evaluate.normalizer, config.evaluate.precision,
        {name: ScoreJson(**asdict(score)) for name, score in scores.items()},
    )  # fmt: skip
