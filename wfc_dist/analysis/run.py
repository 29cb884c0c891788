"""Reads the adapters and updates that a run has committed, measures them, and judges the paper's mechanisms."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wfc_dist.analysis import verdicts
from wfc_dist.analysis.decay import AdapterPrior, adapter_prior
from wfc_dist.analysis.distributions import PROBABILITIES
from wfc_dist.analysis.loss_line import Line, loss_along
from wfc_dist.analysis.measure import RoundMeasures, measure_round
from wfc_dist.analysis.verdicts import Verdict
from wfc_dist.config.schema import Config
from wfc_dist.errors import InputError
from wfc_dist.rounds import Base
from wfc_dist.runs.handle import Run, RunAdapter
from wfc_dist.runs.root import bring_base
from wfc_dist.runs.shared_cache import init_seed
from wfc_dist.runs.whole import require_whole
from wfc_dist.weights import base_chain, peft_folder

logger = logging.getLogger(__name__)
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class RoundAnalysis:
    """One round: its measures, the prior of each adapter, and the verdicts on them."""

    measures: RoundMeasures
    priors: Mapping[str, AdapterPrior]
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Analysis:
    """The analysis of a run.

    Attributes:
        config: The run's configuration.
        rounds: The rounds that have adapters, in order.
        line: The loss along the last round's update, if it is asked for.
        notes: What is missing from the analysis, and why.
    """

    config: Config
    rounds: Sequence[RoundAnalysis]
    line: Line | None
    notes: Sequence[str]


def analyze_run(run: Run, *, num_points: int = 0, max_clips: int = 16) -> Analysis:
    """Returns the analysis of what a run has committed so far.

    Args:
        run: A run, opened with its weights. The first base of the line is fetched from object storage if it lies there.
        num_points: Points of the loss along the line; 0 leaves it out.
        max_clips: Most clips of a set, for the loss along the line.

    Raises:
        InputError: The run has no adapter yet, or its adapters differ in modules. For the line also: data or update are missing.
    """
    config, notes = run.config, list[str]()
    if config.lora.variant == "full":
        notes.append("lora.variant is full: what is said of A and B apart is of an update and an identity, and means nothing")
    if config.lora.variant == "cssvd":
        notes.append("lora.variant is cssvd: A is the same in all adapters of a round, so only what is said of B means anything")
    rounds = list(_rounds(run, config, notes))
    if not rounds:
        raise InputError(f"{run.path} has no adapter yet; `wfc run` trains them")
    return Analysis(config, rounds, _line(run, config, num_points, max_clips) if num_points else None, notes)


def _rounds(run: Run, config: Config, notes: list[str]) -> Iterator[RoundAnalysis]:
    norms: dict[str, float] | None = None
    for index, names in enumerate(config.round_list(), start=1):
        folders = {name: run.paths.adapter(index, name) for name in names}
        for folder in folders.values():
            require_whole(folder)
        loaded = {name: peft_folder.read_factors(path) for name, path in folders.items() if (path / peft_folder.CONFIG).is_file()}
        if not loaded:
            continue
        logger.info("round %d: %d of %d adapters", index, len(loaded), len(names))
        if len(loaded) < len(names):
            notes.append(f"round {index} is not finished: {len(loaded)} of {len(names)} adapters")
        if norms is None:
            norms = _weight_norms(run, list(next(iter(loaded.values()))), notes)
        own = base_chain.read_delta(run.paths.delta(index)) if _has_update(run, index) else None
        measures = measure_round(index, loaded, own, norms)
        steps = {name: _steps(run.adapter(index, name), config) for name in loaded}
        seed = init_seed(config, index)
        priors = {name: adapter_prior(factors, config.train, steps[name], seed) for name, factors in loaded.items()}
        judged = [
            verdicts.variance_verdict(measures),
            verdicts.gaussian_verdict(measures),
            verdicts.prior_verdict(index, list(priors.values()), config.train.weight_decay),
        ]
        yield RoundAnalysis(measures, priors, judged)


def _steps(adapter: RunAdapter | None, config: Config) -> int:
    """Returns the step of the adapter's weights; `train.max_steps` if its manifest does not say."""
    return int((adapter.facts if adapter else {}).get("best_step") or config.train.max_steps)


def _has_update(run: Run, round_index: int) -> bool:
    return (run.paths.delta(round_index) / base_chain.DELTA).is_file()


def _weight_norms(run: Run, modules: Sequence[str], notes: list[str]) -> dict[str, float]:
    try:
        if (root := run.find_base(0)) is None:
            raise InputError("base 0 is not committed")
        tensors = base_chain.read_tensors(root.path, [f"{module}.weight" for module in modules])
        return {name.removesuffix(".weight"): float(tensor.double().norm()) for name, tensor in tensors}
    except (InputError, OSError) as error:
        notes.append(f"norms are not compared with the weights: {error}")
        return {}


def _line(run: Run, config: Config, num_points: int, max_clips: int) -> Line:
    last = max((index for index in range(1, len(config.round_list()) + 1) if _has_update(run, index)), default=0)
    if not last:
        raise InputError(f"{run.path}: no round has its update yet; leave --line out")
    bring_base(run.mirror, last - 1)
    if (base := run.find_base(last - 1)) is None:
        raise InputError(f"{run.path}: base {last - 1} is not committed; leave --line out")
    before = Base(base.index, str(base.path), base.sha256)
    return loss_along(config, before, run.paths.delta(last), num_points=num_points, max_clips=max_clips)


def as_tree(analysis: Analysis) -> dict[str, Any]:
    """Returns all numbers as plain JSON values. NaN and infinity become null."""
    rounds = [
        {
            **asdict(analyzed.measures),
            "prior": {name: asdict(prior) for name, prior in analyzed.priors.items()},
            "verdicts": [asdict(verdict) | {"sentence": verdict.sentence} for verdict in analyzed.verdicts],
        }
        for analyzed in analysis.rounds
    ]
    tree = {
        "schema": SCHEMA_VERSION, "run": analysis.config.run.name, "notes": list(analysis.notes),
        "quantile_probabilities": list(PROBABILITIES), "rounds": rounds,
        "line": asdict(analysis.line) if analysis.line else None,
    }  # fmt: skip
    return _plain(tree)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
