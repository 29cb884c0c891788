"""Which model is scored on which set, and where its hypotheses and scores are kept; nothing is decoded twice."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from wfc_dist import durable, log
from wfc_dist.config import DatasetConfig, EvaluateConfig
from wfc_dist.evaluation.hypotheses import Hypothesis, cache_key, find_hypotheses, score_hypotheses, write_hypotheses
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.rounds import Adapter, Base
from wfc_dist.run_store import RunStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreTask:
    """Decode one test set with one model.

    Attributes:
        base: The base to decode with.
        adapter: On top of it; None scores the base itself.
        set_name: Name of the test set.
        data, evaluate: How it is read and decoded.
    """

    base: Base
    adapter: Adapter | None
    set_name: str
    data: DatasetConfig
    evaluate: EvaluateConfig

    def model_name(self) -> str:
        """Returns base-NNNN, or the adapter's data set."""
        return self.adapter.dataset if self.adapter else f"base-{self.base.index:04d}"


class Decoders(Protocol):
    """Who decodes: every worker of every gang."""

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, list[Hypothesis]], None]) -> None:
        """Runs `tasks` in any order and hands over each result as it comes."""


class RunScorer:
    """Scores bases and adapters of a run (see `rounds.Scorer`).

    Args:
        store: The opened run.
        decoders: Who decodes.
        fingerprints: `<set>/test` -> sha256 of its rows.
        say: Gets one line a model.
    """

    def __init__(self, store: RunStore, decoders: Decoders, fingerprints: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._store, self._decoders, self._fingerprints, self._say = store, decoders, fingerprints, say
        self._sets = store.config.test_sets()

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        """See `rounds.Scorer`."""
        evaluate = self._store.config.evaluate
        models: list[Adapter | None] = [*adapters] if adapters else [None]
        if adapters and not evaluate.adapters:
            return
        tasks = [ScoreTask(base, model, name, data, evaluate) for model in models for name, data in self._sets.items()]
        missing = [task for task in tasks if self._found(task) is None]
        if missing:
            names = ", ".join(dict.fromkeys(task.model_name() for task in missing))
            self._say(f"scoring {names} on {len(self._sets)} sets ({len(missing)} to decode)")
            with log.span("score", base_index=base.index, num_tasks=len(missing)):
                self._decoders.decode(missing, self._write)
        for model in models:
            self._summarize(base, model)

    def _round(self, task_base: Base, adapter: Adapter | None) -> int:
        return task_base.index + 1 if adapter else max(task_base.index, 1)  # base 0 stands beside round 1

    def _folder(self, task: ScoreTask) -> Path:
        return self._store.paths.evaluation(self._round(task.base, task.adapter), task.model_name())

    def _header(self, task: ScoreTask) -> dict[str, Any]:
        sha256 = task.adapter.sha256 if task.adapter else task.base.sha256
        return cache_key(sha256, self._fingerprints[f"{task.set_name}/test"], task.evaluate)

    def _found(self, task: ScoreTask) -> list[Hypothesis] | None:
        return find_hypotheses(self._folder(task) / f"{task.set_name}.jsonl", self._header(task))

    def _write(self, task: ScoreTask, hypotheses: list[Hypothesis]) -> None:
        write_hypotheses(self._folder(task) / f"{task.set_name}.jsonl", self._header(task), hypotheses)

    def _summarize(self, base: Base, adapter: Adapter | None) -> None:
        """Writes the model's scores.json, made from its hypotheses, unless it stands there already."""
        evaluate, sets = self._store.config.evaluate, {}
        spelling = spelling_table(Path(base.path))
        for name, data in self._sets.items():
            task = ScoreTask(base, adapter, name, data, evaluate)
            hypotheses = self._found(task)
            assert hypotheses is not None, f"{name} was decoded"
            sets[name] = asdict(score_hypotheses(hypotheses, evaluate, spelling))
        model = {
            "model": task.model_name(),
            "model_sha256": adapter.sha256 if adapter else base.sha256,
            "round": self._round(base, adapter),
            "kind": "adapter" if adapter else "base",
            "sets": sets,
        }
        path = self._folder(task) / "scores.json"
        if path.is_file() and json.loads(path.read_text(encoding="utf-8")) == model:
            return
        durable.write_json(path, model)
        rates = {name: round(100 * score["rate"], 2) for name, score in sets.items()}
        self._store.record("score", round=model["round"], model=model["model"], metric=evaluate.metric, percent=rates)
        self._say(f"{model['model']}: " + ", ".join(f"{name} {rate:.1f} %" for name, rate in rates.items()))
