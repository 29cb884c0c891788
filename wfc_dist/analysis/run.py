"""Reads the adapters and updates that a run has committed, measures them, and judges the paper's mechanisms."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wfc_dist.analysis import verdicts
from wfc_dist.analysis.decay import AdapterPrior, adapter_prior
from wfc_dist.analysis.distributions import PROBABILITIES
from wfc_dist.analysis.loss_line import Line, loss_along
from wfc_dist.analysis.measure import RoundMeasures, measure_round
from wfc_dist.analysis.verdicts import Verdict
from wfc_dist.config.schema import Config
from wfc_dist.errors import InputError
from wfc_dist.runs.layout import RunPaths, read_base, read_config, require_run
from wfc_dist.runs.root import bring_base
from wfc_dist.seeds import derived_seed
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror
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


def analyze_run(run_dir: Path, *, num_points: int = 0, max_clips: int = 16, mirror: AnyMirror = NO_MIRROR) -> Analysis:
    """Returns the analysis of what a run has committed so far.

    Args:
        run_dir: The run directory. Adapters and deltas must be on this machine.
        num_points: Points of the loss along the line; 0 leaves it out.
        max_clips: Most clips of a set, for the loss along the line.
        mirror: Object storage of the run, from which the first base of the line is fetched.

    Raises:
        InputError: This is no run directory, it has no adapter yet, or its adapters differ in modules. For the line also: data or
            update are missing.
    """
    paths, config = require_run(run_dir), read_config(run_dir)
    notes: list[str] = []
    if config.lora.variant == "full":
        notes.append("lora.variant is full: what is said of A and B apart is of an update and an identity, and means nothing")
    rounds = list(_rounds(paths, config, notes))
    if not rounds:
        raise InputError(f"{run_dir} has no adapter yet; `wfc run` trains them")
    return Analysis(config, rounds, _line(paths, config, num_points, max_clips, mirror) if num_points else None, notes)


def _rounds(paths: RunPaths, config: Config, notes: list[str]) -> Iterator[RoundAnalysis]:
    norms: dict[str, float] | None = None
    for index, names in enumerate(config.round_list(), start=1):
        folders = {name: paths.adapter(index, name) for name in names}
        loaded = {name: peft_folder.read_factors(path) for name, path in folders.items() if (path / peft_folder.CONFIG).is_file()}
        if not loaded:
            continue
        logger.info("round %d: %d of %d adapters", index, len(loaded), len(names))
        if len(loaded) < len(names):
            notes.append(f"round {index} is not finished: {len(loaded)} of {len(names)} adapters")
        if norms is None:
            norms = _weight_norms(paths, list(next(iter(loaded.values()))), notes)
        own = base_chain.read_delta(paths.delta(index)) if (paths.delta(index) / base_chain.DELTA).is_file() else None
        measures = measure_round(index, loaded, own, norms)
        seed = derived_seed(config.run.seed, "lora_A", index)
        priors = {
            name: adapter_prior(factors, config.train, _steps(folders[name], config), seed) for name, factors in loaded.items()
        }
        judged = [
            verdicts.variance_verdict(measures),
            verdicts.gaussian_verdict(measures),
            verdicts.prior_verdict(index, list(priors.values()), config.train.weight_decay),
        ]
        yield RoundAnalysis(measures, priors, judged)


def _steps(folder: Path, config: Config) -> int:
    """Returns the step of the adapter's weights; `train.max_steps` if its manifest does not say."""
    manifest = durable.read_manifest(folder) or {}
    return int(manifest.get("best_step") or config.train.max_steps)


def _weight_norms(paths: RunPaths, modules: Sequence[str], notes: list[str]) -> dict[str, float]:
    entry = read_base(paths.run_dir, 0)
    try:
        if entry is None:
            raise InputError("base 0 is not committed")
        tensors = base_chain.read_tensors(Path(entry[0].path), [f"{module}.weight" for module in modules])
        return {name.removesuffix(".weight"): float(tensor.double().norm()) for name, tensor in tensors}
    except (InputError, OSError) as error:
        notes.append(f"norms are not compared with the weights: {error}")
        return {}


def _line(paths: RunPaths, config: Config, num_points: int, max_clips: int, mirror: AnyMirror) -> Line:
    last = max(
        (index for index in range(1, len(config.round_list()) + 1) if (paths.delta(index) / base_chain.DELTA).is_file()),
        default=0,
    )
    if not last:
        raise InputError(f"{paths.run_dir}: no round has its update yet; leave --line out")
    bring_base(mirror, last - 1)
    entry = read_base(paths.run_dir, last - 1)
    if entry is None:
        raise InputError(f"{paths.run_dir}: base {last - 1} is not committed; leave --line out")
    return loss_along(config, entry[0], paths.delta(last), num_points=num_points, max_clips=max_clips)


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
