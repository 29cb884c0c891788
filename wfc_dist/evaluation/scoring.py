"""Decides which model is scored on which set, and keeps hypotheses and scores; decodes nothing twice."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

from wfc_dist import log
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.hypotheses import (
    Hypothesis,
    cache_key,
    count_hypotheses,
    find_hypotheses,
    score_hypotheses,
    write_hypotheses,
)
from wfc_dist.evaluation.intervals import Estimated
from wfc_dist.evaluation.metrics import difference
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.layout import scored_as
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.storage.objects import at_once

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreTask:
    """Test sets, or dev splits, that one model decodes together.

    Attributes:
        base: The base to decode with.
        adapter: An adapter on top of the base; None decodes with the base itself.
        sets: Test set -> its block of the configuration.
        evaluate: How the sets are decoded.
        part: The split to decode.
    """

    base: Base
    adapter: Adapter | None
    sets: Mapping[str, DatasetConfig]
    evaluate: EvaluateConfig
    part: Literal["test", "dev"] = "test"

    def model_name(self) -> str:
        """Returns base-NNNN, interim-NNNN-k for k adapters of that round, or the adapter's data set."""
        return self.place()[1]

    def place(self) -> tuple[int, str]:
        """Returns the round and the name under which the scores are kept (see `layout.scored_as`)."""
        return scored_as(self.base, self.adapter.dataset if self.adapter else "")

    def split(self, num_tasks: int, hours: Mapping[str, float]) -> list["ScoreTask"]:
        """Returns at most `num_tasks` tasks with about equal hours, which share the sets of this one."""
        num_tasks = min(num_tasks, len(self.sets))
        shares: list[list[str]] = [[] for _ in range(num_tasks)]
        for name in sorted(self.sets, key=lambda name: -hours.get(name, 0.0)):  # stable: configured order among equals
            min(shares, key=lambda share: (sum(hours.get(other, 0.0) for other in share), len(share))).append(name)
        return [replace(self, sets={name: self.sets[name] for name in share}) for share in shares]


HypothesesBySet = Mapping[str, list[Hypothesis]]


def work_of(tasks: Sequence[ScoreTask]) -> str:
    """Returns what tasks do, for who watches: "decoding base-0001", "decoding 3 models", "fitting: decoding 9 mixtures"."""
    names = list(dict.fromkeys(task.model_name() for task in tasks))
    if any(task.part == "dev" for task in tasks):
        return f"fitting: decoding {len(names)} mixtures"
    return f"decoding {names[0]}" if len(names) == 1 else f"decoding {len(names)} models"


def num_sets(tasks: Iterable[ScoreTask]) -> int:
    """Returns how many times a set is decoded, over all tasks."""
    return sum(len(task.sets) for task in tasks)


class Decoders(Protocol):
    """The workers that decode: those of all gangs."""

    def num_decoders(self) -> int:
        """Returns how many tasks run at the same time. Starts the workers that are not up."""

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, HypothesesBySet], None]) -> None:
        """Runs `tasks` in any order, and calls `on_done` with each result as it comes."""


def _intact(path: Path, header: Mapping[str, Any]) -> list[Hypothesis] | None:
    """Returns hypotheses that were decoded under `header`, or None. A damaged file is warned about, and decoded again."""
    try:
        return find_hypotheses(path, header)
    except IntegrityError as error:
        logger.warning("the set is decoded again: %s", error)
        return None


class RunScorer:
    """Scores bases and adapters of a run (see `rounds.Scorer`).

    Args:
        store: The opened run.
        decoders: The workers that decode.
        hours: Test set -> hours of speech, by which the sets of a model are divided into tasks.
        fingerprints: `<set>/test` -> sha256 of its clips.
        say: Called with one line a model.
    """

    def __init__(
        self, store: RunStore, decoders: Decoders, hours: Mapping[str, float], fingerprints: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store, self._decoders, self._hours, self._fingerprints, self._say = store, decoders, hours, fingerprints, say

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        """See `rounds.Scorer`."""
        evaluate = self._store.config.evaluate
        if adapters and not evaluate.adapters:
            return
        none: list[Adapter | None] = [None]
        tasks = (ScoreTask(base, adapter, self._wanted(base, adapter), evaluate) for adapter in adapters or none)
        models = [task for task in tasks if task.sets or not self._store.config.test_sets()]
        self._decode(models)
        for task in models:
            self._summarize(task)

    def changes(self, before: Base, after: Base, names: Sequence[str]) -> dict[str, Estimated]:
        """Returns test set -> what a base changes against another one, with its interval. `after` need not be committed."""
        config = self._store.config
        sets, evaluate = {name: config.test_sets()[name] for name in names}, config.evaluate
        tasks = [ScoreTask(base, None, sets, evaluate) for base in (before, after)]
        for task in tasks:
            self._decode([task])
        spelling, found = spelling_table(Path(before.path)), {}
        for name, data in sets.items():
            kept = [self._kept(task, name) for task in tasks]
            counts = [count_hypotheses(texts, evaluate.of(data), spelling) for texts in kept if texts is not None]
            first, second = counts
            found[name] = difference(first, second, evaluate.confidence)
        return found

    def _decode(self, models: Sequence[ScoreTask]) -> None:
        """Decodes what has not been decoded."""
        unscored = [{name: data for name, data in task.sets.items() if self._kept(task, name) is None} for task in models]
        missing = [replace(task, sets=sets) for task, sets in zip(models, unscored, strict=True) if sets]
        if missing:
            names = ", ".join(task.model_name() for task in missing)
            self._say(f"scoring {names} ({num_sets(missing)} sets to decode)")
            num_each = math.ceil(self._decoders.num_decoders() / len(missing))
            tasks = [part for task in missing for part in task.split(num_each, self._hours)]
            with log.span("score", phase="scoring", base_index=missing[0].base.index, num_tasks=len(tasks)):
                self._decoders.decode(tasks, self._write)

    def _wanted(self, base: Base, adapter: Adapter | None) -> dict[str, DatasetConfig]:
        """Returns the sets that a model is scored on: all, or fewer for bases in between, as `evaluate.interim` says."""
        config = self._store.config
        rounds, sets, scores_all = config.round_list(), config.test_sets(), config.evaluate.interim == "all"
        if base.num_pending and adapter is None:  # sets that it has learned, and sets that it must not forget
            held = {*chain(*map(config.learned_in, range(1 if scores_all else max(base.index, 1), base.index + 1)))}
            held |= {*config.with_parts(rounds[base.index][: base.num_pending])}
            held |= {*(config.evaluate.protected if scores_all else ())}
            return {name: data for name, data in sets.items() if name in held}
        if adapter is not None or scores_all or base.index in (0, len(rounds)):
            return sets
        if config.evaluate.interim == "none":
            return {}
        near = {*config.learned_in(base.index), *config.learned_in(base.index + 1)}
        return {name: data for name, data in sets.items() if name in near}

    def _texts(self, task: ScoreTask, name: str) -> Path:
        return self._store.paths.hypotheses(*task.place(), name)

    def _header(self, task: ScoreTask, name: str) -> dict[str, Any]:
        sha256 = task.adapter.sha256 if task.adapter else task.base.sha256
        return cache_key(sha256, self._fingerprints[f"{name}/test"], task.evaluate)

    def _kept(self, task: ScoreTask, name: str) -> list[Hypothesis] | None:
        path, header, pool = self._texts(task, name), self._header(task, name), self._store.pool
        hypotheses = _intact(path, header)
        if hypotheses is None and pool is not None and pool.take_text(header, task.sets[name], path):
            hypotheses = _intact(path, header)
        return hypotheses

    def _write(self, task: ScoreTask, hypotheses: HypothesesBySet) -> None:
        for name, dataset in task.sets.items():
            path, header = self._texts(task, name), self._header(task, name)
            write_hypotheses(path, header, hypotheses[name])
            if self._store.pool is not None:
                self._store.pool.put_text(header, dataset, path)
        at_once(self._store.mirror.publish_file, [self._texts(task, name) for name in task.sets])

    def _summarize(self, task: ScoreTask) -> None:
        """Writes the model's scores.json from its hypotheses, unless the file has these scores."""
        spelling, sets = spelling_table(Path(task.base.path)), {}
        for name, dataset in task.sets.items():
            hypotheses = self._kept(task, name)
            assert hypotheses is not None, f"{name} was decoded"
            sets[name] = asdict(score_hypotheses(hypotheses, task.evaluate.of(dataset), spelling))
        model = {
            "model": task.model_name(),
            "model_sha256": task.adapter.sha256 if task.adapter else task.base.sha256,
            "round": task.place()[0],
            "kind": "adapter" if task.adapter else "interim" if task.base.num_pending else "base",
            "sets": sets,
        }
        path = self._store.paths.scores(*task.place())
        with contextlib.suppress(FileNotFoundError, IntegrityError):  # a damaged file is written anew from the hypotheses
            if durable.read_sealed(path, "it is written anew") == model:
                return
        durable.write_sealed(path, model)
        self._store.mirror.publish_file(path)
        rates = {name: round(100 * score["rate"], 2) for name, score in sets.items()}
        metric = self._store.config.metric_record(sets)
        self._store.ledger.record("score", round=model["round"], model=model["model"], metric=metric, percent=rates)
        units = {name: f"% {score['metric'].upper()}" if isinstance(metric, dict) else "%" for name, score in sets.items()}
        self._say(f"{model['model']}: " + ", ".join(f"{name} {rate:.1f} {units[name]}" for name, rate in rates.items()))
