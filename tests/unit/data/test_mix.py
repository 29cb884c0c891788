"""A data set made of data sets, and a share of one: what joint training and experience replay read."""

from pathlib import Path
from typing import Any

import pytest
import tiny
from pydantic import ValidationError

from wfc_dist.backends.jobs import training_data
from wfc_dist.config import loading
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audit import audit
from wfc_dist.data.sources import open_split
from wfc_dist.errors import ConfigError, InputError


def part(folder: Path, **keys: Any) -> DatasetConfig:
    return DatasetConfig(source=str(folder), splits=tiny.SPLITS, **keys)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tiny.make_dataset(tmp_path / "a", seed=1, language="en"), tiny.make_dataset(tmp_path / "b", seed=2, language="es")


def test_a_mix_is_its_parts_one_after_the_other(folders: tuple[Path, Path]) -> None:
    parts = {"a": part(folders[0]), "b": part(folders[1], language="fr")}
    mix = DatasetConfig(format="mix", parts=parts, splits={"train": "train"})
    split = open_split("all", mix, "train")
    own = [open_split(name, data, "train") for name, data in parts.items()]
    assert [clip.text for clip in split.clips] == [clip.text for of_part in own for clip in of_part.clips]
    assert [clip.language for clip in split.clips] == ["en"] * 6 + ["fr"] * 6  # a part's own language comes before the row's
    assert split.clips[6].id.startswith("b/") and (split.audio(6) == own[1].audio(0)).all()


def test_a_part_without_the_split_is_left_out(folders: tuple[Path, Path]) -> None:
    parts = {"a": part(folders[0]), "b": DatasetConfig(source=str(folders[1]), splits={"train": "train.jsonl"})}
    mix = DatasetConfig(format="mix", parts=parts, splits={"train": "train", "dev": "dev"})
    assert len(open_split("all", mix, "dev")) == 2
    with pytest.raises(InputError, match=r"all: no test split; set datasets\.all\.splits\.test"):
        open_split("all", mix, "test")


@pytest.mark.parametrize(("share", "kept"), [(1.0, [0, 1, 2, 3, 4, 5]), (0.5, [0, 2, 4]), (0.34, [0, 3]), (0.01, [0])])
def test_a_share_is_spread_over_the_split(folders: tuple[Path, Path], share: float, kept: list[int]) -> None:
    everything = [clip.id for clip in open_split("a", part(folders[0]), "train").clips]
    assert [clip.id for clip in open_split("a", part(folders[0], share=share), "train").clips] == [everything[n] for n in kept]


def test_a_share_is_taken_before_the_first_clips(folders: tuple[Path, Path]) -> None:
    everything = [clip.id for clip in open_split("a", part(folders[0]), "train").clips]
    split = open_split("a", part(folders[0], share=0.5, max_clips=2), "train")
    assert [clip.id for clip in split.clips] == [everything[0], everything[2]]


def config_with_replay(folders: tuple[Path, Path], replay: float, **keys: Any) -> Any:
    keys = keys or {"share": 0.5}
    datasets = {folder.name: {"source": str(folder), "splits": tiny.SPLITS, **keys} for folder in folders}
    tree = {"run": {"name": "r"}, "base": {"model": "m"}, "datasets": datasets, "rounds": [["a"], ["b"]]}
    return loading.parse(tree | {"train": {"replay": replay}})


def test_replay_mixes_in_a_share_of_the_sets_of_earlier_rounds(folders: tuple[Path, Path]) -> None:
    config = config_with_replay(folders, 0.34)
    assert training_data(config, 1, "a") == config.datasets["a"]
    mixed = training_data(config, 2, "b")
    assert [clip.id.split("/")[0] for clip in open_split("b", mixed, "train").clips] == ["b"] * 3 + ["a"]
    assert len(open_split("b", mixed, "dev")) == len(open_split("b", config.datasets["b"], "dev"))  # its own alone


def test_replay_is_measured_with_the_metric_of_the_set_that_is_learned(folders: tuple[Path, Path]) -> None:
    config = config_with_replay(folders, 0.34)
    last = config.round_list()[1][0]
    assert training_data(config, 2, last).metric is None
    metrics = {name: "mer" if name == last else "cer" for name in config.datasets}
    named = {name: data.model_copy(update={"metric": metrics[name]}) for name, data in config.datasets.items()}
    assert training_data(config.model_copy(update={"datasets": named}), 2, last).metric == "mer"


@pytest.mark.parametrize("keys", [{"max_clips": 4}, {"share": 0.7}, {"share": 0.7, "max_clips": 3}])
def test_replay_draws_only_what_was_trained_on(folders: tuple[Path, Path], keys: dict[str, Any]) -> None:
    config = config_with_replay(folders, 0.75, **keys)
    trained_on = [clip.text for clip in open_split("a", training_data(config, 1, "a"), "train").clips]
    replayed = [clip.text for clip in open_split("b", training_data(config, 2, "b"), "train").clips if clip.id.startswith("a/")]
    assert len(replayed) == round(0.75 * len(trained_on)) and set(replayed) <= set(trained_on)


def test_without_replay_a_set_is_trained_on_alone(folders: tuple[Path, Path]) -> None:
    config = config_with_replay(folders, 0.0)
    assert training_data(config, 2, "b") == config.datasets["b"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"format": "mix"}, "format mix needs parts"),
        ({"source": "x", "parts": {"a": {"source": "y"}}}, "only format mix has them"),
        ({}, "name a folder, a file or a hub id"),
        ({"source": "x", "format": "mix", "parts": {"a": {"source": "y"}}}, "only format mix has none"),
    ],
)
def test_a_set_has_a_source_or_parts(keys: dict[str, Any], message: str) -> None:
    tree = {
        "run": {"name": "r"},
        "base": {"model": "m"},
        "datasets": {"all": {"splits": {"train": "t"}, **keys}},
        "rounds": [["all"]],
    }
    with pytest.raises(ConfigError, match=message):
        loading.parse(tree)


def test_the_audit_names_the_part_that_is_wrong(folders: tuple[Path, Path]) -> None:
    parts = {"a": {"source": str(folders[0]), "splits": tiny.SPLITS}, "gone": {"source": "nowhere", "splits": tiny.SPLITS}}
    datasets = {"all": {"format": "mix", "parts": parts, "splits": {"train": "train"}}}
    config = loading.parse({"run": {"name": "r"}, "base": {"model": "m"}, "datasets": datasets, "rounds": [["all"]]})
    with pytest.raises(InputError, match=r"all\.gone"):
        audit(config).raise_for_errors()


def test_a_mix_does_not_clean_texts_itself():
    inner = {"source": "x", "splits": {"train": "train.jsonl"}}
    with pytest.raises(ValidationError, match=r"text: only format jsonl and .* reads it, not mix"):
        DatasetConfig(format="mix", splits={"train": "x"}, parts={"a": inner}, text={"strip_markup": ["angle"]})
