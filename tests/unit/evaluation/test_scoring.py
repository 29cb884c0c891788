import json
from types import SimpleNamespace

import pytest
from scored_runs import make_config

from wfc_dist.config import loading
from wfc_dist.evaluation.hypotheses import Hypothesis
from wfc_dist.evaluation.scoring import RunScorer, ScoreTask
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.records import Ledger
from wfc_dist.storage.mirror import NO_MIRROR

HOURS = {"zh": 3.0, "cs": 1.0, "ar": 1.0, "en": 1.0, "fr": 2.0}


class FakeDecoders:
    """Writes down every reference with one error, and keeps the tasks."""

    def __init__(self, number):
        self._number, self.tasks = number, []

    def num_decoders(self):
        return self._number

    def decode(self, tasks, on_done):
        for task in reversed(tasks):  # any order
            self.tasks.append((task.model_name(), sorted(task.sets)))
            on_done(task, {name: [Hypothesis("1", ("a b",), "a x", "en", 1.0)] for name in task.sets})


@pytest.fixture
def base(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "normalizer.json").write_text("{}")
    return Base(0, str(tmp_path / "base"), "b" * 64)


def adapter(name):
    return Adapter(name, "x", name * 32, "b" * 64, 1.0)


@pytest.fixture
def make_scorer(tmp_path):
    paths = RunPaths(tmp_path / "run")
    ledger = Ledger(paths.ledger, NO_MIRROR, 1)
    store = SimpleNamespace(config=make_config(tmp_path), paths=paths, mirror=NO_MIRROR, pool=None, ledger=ledger)

    def make(decoders, fingerprint="f", metrics=None, say=lambda _: None):
        for name, metric in (metrics or {}).items():
            store.config.datasets[name] = store.config.datasets[name].model_copy(update={"metric": metric})
        fingerprints = {f"{name}/test": fingerprint for name in HOURS}
        return RunScorer(store, decoders, HOURS, fingerprints, say)

    return make


@pytest.mark.parametrize(
    ("number", "shares"),
    [
        (1, [["ar", "cs", "en", "fr", "zh"]]),
        (2, [["ar", "zh"], ["cs", "en", "fr"]]),
        (3, [["ar", "cs"], ["en", "fr"], ["zh"]]),
        (9, [["ar"], ["cs"], ["en"], ["fr"], ["zh"]]),
    ],
)
def test_sets_are_shared_out_by_hours(tmp_path, base, number, shares):
    config = make_config(tmp_path)
    tasks = ScoreTask(base, None, config.test_sets(), config.evaluate).split(number, HOURS)

    assert sorted(sorted(task.sets) for task in tasks) == shares
    hours = [sum(HOURS[name] for name in task.sets) for task in tasks]
    assert max(hours) <= max(sum(HOURS.values()) / len(tasks) + 1, 3)


@pytest.mark.parametrize(("number", "num_tasks"), [(1, 2), (2, 2), (3, 4), (4, 4), (100, 10)])
def test_all_decoders_have_work(make_scorer, base, number, num_tasks):
    decoders = FakeDecoders(number)

    make_scorer(decoders).score(base, [adapter("cs"), adapter("ar")])

    assert len(decoders.tasks) == num_tasks
    done = sorted((model, name) for model, sets in decoders.tasks for name in sets)
    assert done == sorted((model, name) for model in ("cs", "ar") for name in HOURS)


def test_only_what_is_missing_is_decoded(tmp_path, make_scorer, base):
    make_scorer(FakeDecoders(1)).score(base)
    folder = tmp_path / "run" / "round-0001" / "evaluation" / "base-0000"
    (folder / "fr.jsonl").unlink()
    scores = json.loads((folder / "scores.json").read_text())
    again, other = FakeDecoders(4), FakeDecoders(4)

    make_scorer(again).score(base)
    make_scorer(other, fingerprint="g").score(base)

    assert again.tasks == [("base-0000", ["fr"])]
    assert len(other.tasks) == 4
    assert scores["sets"]["zh"]["rate"] == 0.5 and list(scores["sets"]) == list(make_config(tmp_path).test_sets())


def test_an_interim_base_is_scored_on_the_parts_of_a_mix_that_it_has_learned(tmp_path, base):
    part = {"source": "s", "splits": {"train": "t", "test": "e"}}
    mix = {"format": "mix", "parts": {"x": part, "y": part}, "splits": {"train": "train", "test": "test"}}
    tree = {
        "run": {"name": "run", "dir": str(tmp_path)}, "base": {"model": "m"}, "evaluate": {"interim": "learned"},
        "datasets": {"x": part, "y": part, "z": part, "both": mix, "w": part}, "rounds": [["x"], ["z"], ["both"], ["y"], ["w"]],
    }  # fmt: skip
    store = SimpleNamespace(config=loading.parse(tree))
    wanted = RunScorer(store, None, {}, {}, None)._wanted

    assert set(wanted(Base(1, "", ""), None)) == {"x", "z"}
    assert set(wanted(Base(2, "", ""), None)) == {"z", "both", "x", "y"}  # before the mix is learned
    assert set(wanted(Base(3, "", ""), None)) == {"both", "x", "y"}
    assert set(wanted(Base(5, "", ""), None)) == {"x", "y", "z", "both", "w"}
    assert set(wanted(Base(2, "", "", num_pending=1), None)) == {"z", "both", "x", "y"}
    tree["evaluate"]["interim"] = "none"
    store.config = loading.parse(tree)
    assert [len(wanted(Base(index, "", ""), None)) for index in range(6)] == [5, 0, 0, 0, 0, 5]


def read_scores(folder, base_name="base-0000"):
    return json.loads((folder / "run" / "round-0001" / "evaluation" / base_name / "scores.json").read_text())["sets"]


def last_score(folder):
    return json.loads(RunPaths(folder / "run").ledger.read_text().splitlines()[-1])


def test_every_set_is_scored_with_its_own_metric_and_all_records_say_which(tmp_path, make_scorer, base):
    said = []
    make_scorer(FakeDecoders(1), metrics={"zh": "cer"}, say=said.append).score(base)

    scores = read_scores(tmp_path)
    assert {name: score["metric"] for name, score in scores.items()} == dict.fromkeys(HOURS, "wer") | {"zh": "cer"}
    assert (scores["cs"]["rate"], scores["zh"]["rate"]) == (1 / 2, 1 / 3)  # "a b" and "a x": two words, three characters
    assert last_score(tmp_path)["metric"] == {name: score["metric"] for name, score in scores.items()}
    assert said[-1].startswith("base-0000: zh 33.3 % CER, cs 50.0 % WER, ")


def test_another_metric_scores_what_is_written_again_and_decodes_nothing(tmp_path, make_scorer, base):
    said = []
    make_scorer(FakeDecoders(1), say=said.append).score(base)
    before, again = read_scores(tmp_path), FakeDecoders(1)
    assert last_score(tmp_path)["metric"] == "wer" and said[-1].startswith("base-0000: zh 50.0 %, cs 50.0 %, ")

    make_scorer(again, metrics={"zh": "cer"}).score(base)

    after = read_scores(tmp_path)
    assert again.tasks == [] and after["zh"]["rate"] == 1 / 3
    assert {name: after[name] for name in HOURS if name != "zh"} == {name: before[name] for name in HOURS if name != "zh"}
