"""A proposed configuration is a valid one, with reasons, and fits data and machine."""

from collections import Counter
from dataclasses import replace

import pytest
import yaml

from wfc_dist.config.loading import parse
from wfc_dist.coordinator.machine import Machine
from wfc_dist.coordinator.proposal import propose
from wfc_dist.data.detection.facts import SplitFacts
from wfc_dist.data.detection.look import Corpus
from wfc_dist.errors import ConfigError, InputError

CPU = Machine(4, 8 * 10**9)
GPU = Machine(16, 64 * 10**9, (24 * 10**9,), has_bf16=True)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def corpus(
    name: str, *splits: str, hours: float | None = 1.0, clips: int = 1000, languages: str = "es", **block: object
) -> Corpus:
    mean_s = None if hours is None else 3600 * hours / clips
    facts = {split: SplitFacts(clips, hours, mean_s=mean_s, languages=Counter(languages.split())) for split in splits}
    return Corpus([name, "data"], {"source": f"data/{name}", **block, "splits": {s: f"{s}.jsonl" for s in splits}}, facts)  # type: ignore[arg-type]


def test_one_round_of_all_sets_that_can_be_trained_on():
    proposal = propose([corpus("a", "train", "test"), corpus("b", "test"), corpus("c", "train")], CPU)
    config = parse(yaml.safe_load(proposal.text()))
    assert config.round_list() == [["a", "c"]] and list(config.evaluate.protected) == ["b"]
    assert config.base.model == "openai/whisper-small" and config.run.name == "a-c"


def test_a_set_without_test_split_is_told():
    text = propose([corpus("a", "train")], CPU).text()
    assert "No test split was found" in text and "No dev split was found" in text


def test_dev_splits_stop_early_if_all_have_them():
    assert "early_stopping" in propose([corpus("a", "train", "dev")], CPU).tree["train"]
    assert "early_stopping" not in propose([corpus("a", "train", "dev"), corpus("b", "train")], CPU).tree["train"]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(InputError, match="nothing to train on: a has test; name a source with a train split"):
        propose([corpus("a", "test")], CPU)


def test_a_language_that_is_not_known_is_left_to_the_user():
    silent = corpus("a", "train", languages="")
    text = propose([silent], CPU).text()
    assert "language: es   # SET THIS" in text and "language" not in yaml.safe_load(text)["datasets"]["a"]
    known = replace(silent, language="cs", language_by="the name of its folder")
    assert "language: cs  # " in propose([known], CPU).text()


def test_unspaced_languages_are_counted_by_characters():
    tree = propose([corpus("a", "train", languages="zh yue"), corpus("b", "train", languages="zh en")], CPU).tree
    assert tree["datasets"]["a"]["metric"] == "cer" and "metric" not in tree["datasets"]["b"]


@pytest.mark.parametrize(("hours", "machine"), [(0.01, CPU), (0.01, GPU), (5, GPU), (1000, GPU), (1000, CPU), (None, GPU)])
def test_steps_follow_the_hours(hours, machine):
    train = propose([corpus("a", "train", hours=hours)], machine).tree["train"]
    assert 10 <= train["max_steps"] <= (4000 if machine is GPU else 200)
    assert train["checkpoint_every"] <= train["max_steps"]


def test_more_hours_take_more_steps():
    steps = [propose([corpus("a", "train", hours=hours)], GPU).tree["train"]["max_steps"] for hours in (0.1, 1, 9)]
    assert steps == sorted(steps) and steps[0] < steps[-1]


def test_a_gpu_is_used_and_filled():
    tree = propose([corpus("a", "train", hours=50)], GPU).tree
    assert tree["cluster"]["gpus_per_worker"] == 1 and tree["train"]["precision"] == "bf16"
    assert tree["train"]["batch_size"] > 1
    small = propose([corpus("a", "train", hours=50)], replace(GPU, gpu_bytes=(2 * 10**9,), has_bf16=False)).tree
    assert small["train"]["batch_size"] == 1 and small["train"]["precision"] == "fp32"
    assert tree["train"]["batch_size"] * tree["train"]["gradient_accumulation"] == 16


def test_a_cpu_that_has_bf16_is_used_so_and_another_one_may_follow():
    proposal = propose([corpus("a", "train")], replace(CPU, has_bf16=True))
    assert proposal.tree["train"]["precision"] == "auto" and "the CPU has it" in proposal.text()
    assert propose([corpus("a", "train")], CPU).tree["train"]["precision"] == "fp32"


def test_short_clips_are_packed_and_long_ones_are_not():
    assert propose([corpus("a", "train", hours=1, clips=1000)], CPU).tree["train"]["packing"]
    assert not propose([corpus("a", "train", hours=10, clips=1500)], CPU).tree["train"]["packing"]


def test_many_cores_train_side_by_side():
    assert propose([corpus("a", "train"), corpus("b", "train")], replace(CPU, num_cores=16)).tree["cluster"]["backend"] == "ray"
    assert propose([corpus("a", "train")], replace(CPU, num_cores=16)).tree["cluster"]["backend"] == "in_process"


def test_a_run_that_is_there_keeps_its_name(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    assert propose([corpus("a", "train")], CPU).name == "a-2"
    assert propose([corpus("a", "train")], CPU, name="a").name == "a"


def test_names_that_the_run_directory_uses_are_changed():
    assert list(propose([corpus("base-0001", "train")], CPU).tree["datasets"]) == ["set-base-0001"]


def test_many_sets_have_a_short_name():
    assert propose([corpus(f"corpus-{n}", "train") for n in range(9)], CPU).name == "corpus-0-and-8-more"


def test_a_name_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"run\.name"):
        propose([corpus("a", "train")], CPU, name="no name/at all")
