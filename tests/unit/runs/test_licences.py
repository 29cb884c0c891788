"""The licence of a data set is what the configuration or the data set's own card says, and else unknown."""

from pathlib import Path
from typing import Any

import pytest

from wfc_dist.config import loading
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.loading import changed_keys
from wfc_dist.errors import ConfigError
from wfc_dist.runs.licences import licences_of

SPLITS = {"train": "t"}


def of(**keys: Any) -> tuple[str, ...]:
    return licences_of(DatasetConfig(**{"splits": SPLITS, **keys}))


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (None, ""),
        ("---\nlicense: cc-by-4.0\n---\ntext", "cc-by-4.0"),
        ("---\nlicense:\n- cc-by-4.0\n- cc0-1.0\n---\n", "cc-by-4.0 cc0-1.0"),
        ("---\nlicense: [\n---\n", ""),
        ("---\nlicense: 4\n---\n", ""),
        ('---\nlicense: "a | b"\n---\n', ""),
        ("license: cc-by-4.0", ""),
    ],
)
def test_the_card_beside_the_data_names_it(tmp_path: Path, card: str | None, expected: str) -> None:
    (tmp_path / "LICENSE").write_text("MIT License")  # of a program, perhaps
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert of(source=str(tmp_path)) == tuple(expected.split() or [""])
    assert of(source=str(tmp_path), licence="ours, by mail of May 4") == ("ours, by mail of May 4",)


def test_the_card_of_a_hub_data_set_lies_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "datasets--org--name"
    for commit, licence in (("abc", "cc0-1.0"), ("def", "cc-by-4.0")):
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert of(source="org/name", format="hub") == ("cc0-1.0",)
    assert of(source="org/name", format="hub", revision="def") == ("cc-by-4.0",)
    assert of(source="org/other", format="hub") == of(source="not a name", format="hub") == of(source="org/name") == ("",)


def test_a_mix_has_the_licences_of_its_parts() -> None:
    parts = {name: {"source": name, "splits": SPLITS, "licence": licence} for name, licence in
             (("a", "mit"), ("b", None), ("c", "mit"), ("d", None))}  # fmt: skip
    assert of(format="mix", parts=parts) == ("mit", "")
    assert of(format="mix", parts=parts, licence="cc0-1.0") == ("cc0-1.0",)


def config(**keys: Any) -> Any:
    data = {"source": "x", "language": "es", "splits": SPLITS}
    mix = {"format": "mix", "splits": SPLITS, "parts": {"p.q": {**data, **keys}}}
    protected = {"old": {"source": "y", "language": "en", "splits": {"test": "t"}, **keys}}
    tree = {"run": {"name": "r", "dir": "runs"}, "base": {"model": "m"}, "rounds": [["a.b", "mix"]]}
    return loading.parse({**tree, "datasets": {"a.b": {**data, **keys}, "mix": mix}, "evaluate": {"protected": protected}})


def test_both_spellings_are_the_same_key_and_a_resume_may_change_it() -> None:
    first, second = config(license="cc-by-4.0"), config(licence="cc-by-4.0")
    assert first == second and first.datasets["a.b"].licence == "cc-by-4.0"
    without, other = config().model_dump(mode="json"), config(language="fr").model_dump(mode="json")
    assert changed_keys(without, first.model_dump(mode="json")) == []
    assert changed_keys(without, other) == [
        "datasets.a.b.language",
        "datasets.mix.parts.p.q.language",
        "evaluate.protected.old.language",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"licence": "a", "license": "b"}, "licence and license are one key"),
        ({"licence": ""}, "licence: '' is no licence"),
        ({"licence": "a|b"}, r"licence: 'a\|b' is no licence; write an id such as cc-by-4.0"),
        ({"license": 4}, "license: 4 is no licence"),
        ({"license": "x" * 101}, "license: 'xxx"),
    ],
)
def test_what_is_no_licence_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**keys)


def test_no_licence_is_said_as_null() -> None:
    assert config(license=None) == config(licence=None) == config()
