"""What a shell offers for a `key.path=value` that a user has begun to type."""

from pathlib import Path

import pytest

from wfc_dist.config import reference
from wfc_dist.config.completion import completions

CONFIG = "datasets: {es: {source: a}, fr: {source: b}}\nevaluate: {protected: {en: {source: c}}}\n"


def words(typed: str, *before: str, config: Path | None = None) -> list[str]:
    return [word for word, _ in completions(typed, before, config)]


def test_keys_come_one_level_at_a_time() -> None:
    top = {key.path for key in reference.blocks()[0].keys}
    assert {word.rstrip(".=") for word in words("")} == top and "train." in words("") and "rounds=" in words("")
    assert words("train.l") == ["train.lr=", "train.loader_workers="]
    assert "train.early_stopping." in words("train.e")
    assert words("lora.p") == ["lora.prior.sigma=", "lora.prior.beta="]  # the only block is gone into
    assert words("nonsense") == []


def test_a_key_that_is_the_only_one_comes_with_its_values() -> None:
    assert words("train.lr") == ["train.lr=", "train.lr=0.001"]
    assert words("train.optim") == ["train.optimizer=adamw", "train.optimizer=sgd"]
    assert words("evaluate.packing") == ["evaluate.packing=true", "evaluate.packing=false"]


def test_values_are_offered_behind_the_equals_sign() -> None:
    assert words("train.schedule=co") == ["train.schedule=cosine", "train.schedule=constant"]
    assert words("run.dir=") == words("run.name=x") == words("rounds=") == words("nonsense=") == []  # the shell offers files


@pytest.mark.parametrize(("typed", "before"), [("co", ("train.schedule", "=")), ("co", ("train.lr", "=", "1", "train.schedule"))])
def test_values_come_alone_where_bash_cut_the_word_at_its_equals_sign(typed: str, before: tuple[str, ...]) -> None:
    assert words(typed, *before) == ["cosine", "constant"]


def test_a_word_behind_a_whole_override_is_a_key() -> None:
    for before in (("train.lr", "=", "1"), ("train.lr=1",), ("run.dir", "=", "s3", ":", "//bucket")):
        assert words("train.max_s", *before) == ["train.max_steps=", "train.max_steps=2000"]


def test_data_sets_are_offered_by_the_names_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(CONFIG)
    assert words("datasets.", config=path) == ["datasets.es.", "datasets.fr."]
    assert words("datasets.es.lang", config=path) == ["datasets.es.language="]
    assert "evaluate.protected.en.source=" in words("evaluate.prot", config=path)
    assert words("datasets.", config=tmp_path / "missing.yaml") == words("datasets.") == []
    path.write_text("a: [\n")
    assert words("datasets.", config=path) == []


def test_every_key_is_reached_from_its_beginning_and_tells_its_meaning(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("datasets: {NAME: {}}\nevaluate: {protected: {NAME: {}}}\n")
    for key in (key for block in reference.blocks() for key in block.keys):
        found = dict(completions(key.path, config=path))
        assert any(word.startswith((f"{key.path}=", f"{key.path}.")) for word in found), key.path
        assert all(meaning for word, meaning in found.items() if word.endswith(("=", "."))), found
