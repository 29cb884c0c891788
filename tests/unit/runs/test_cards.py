"""Model cards: their metadata is what the hub takes, they say what is known, and nothing in them names a machine."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from wfc_dist.config import loading
from wfc_dist.runs import cards
from wfc_dist.runs.cards import Learned
from wfc_dist.runs.root_model import Root, describe_root, front_matter

HUB = Root("openai/whisper-base", "openai/whisper-base", "e37978b", "apache-2.0", "0" * 64, is_cast=False)
CHAIN = [
    {"sha256": "1" * 64, "method": "mean", "scale": 1.0, "update_norm": 0.25},
    {"sha256": "2" * 64, "method": "ties", "options": {"density": 0.2}, "scale": 0.5, "update_norm": 0.5},
]
LEARNED = [
    Learned(1, "es", "a" * 64, 0.75, 1.5, ("cc-by-4.0",)),
    Learned(1, "nb", "b" * 64, 0.25, None),
    Learned(2, "both", "c" * 64, 1.0, 12.25, ("cc0-1.0", "")),
]


def config(folder: Path):
    data = {
        "es": {"source": "org/spanish", "format": "hub", "subset": "small", "language": "es", "splits": {"train": "train"}},
        "nb": {"source": str(folder / "secret"), "language": "no", "splits": {"train": "t.jsonl"}},
        "jw": {"source": str(folder / "secret"), "language": "jw", "splits": {"train": "t.jsonl"}},
    }
    both = {"format": "mix", "parts": {"jw": data.pop("jw"), "es": data["es"]}, "splits": {"train": "train"}}
    tree = {"run": {"name": "r", "dir": str(folder)}, "base": {"model": str(folder / "model")}}
    return loading.parse(tree | {"datasets": {**data, "both": both}, "rounds": [["es", "nb"], ["both"]]})


def every_card(folder: Path) -> dict[str, str]:
    facts = {"steps": 20, "best_step": 10, "dev_loss": 1.5, "dev_error": 0.25, "seconds": 3.0, "host": "node7"}
    return {
        "root": cards.base_card(config(folder), HUB, [], []),
        "base": cards.base_card(config(folder), HUB, CHAIN, LEARNED),
        "adapter": cards.adapter_card(config(folder), HUB, LEARNED[0], "0" * 64, facts),
        "later adapter": cards.adapter_card(config(folder), HUB, LEARNED[2], "1" * 64, {}),
    }


def test_the_metadata_is_what_the_hub_takes(tmp_path: Path) -> None:
    for card in every_card(tmp_path).values():
        data = ModelCard(card).data.to_dict()
        assert data["base_model"] == "openai/whisper-base" and data["license"] == "apache-2.0"
        assert data["pipeline_tag"] == "automatic-speech-recognition"
        assert data == front_matter(card)
    base, adapter = (ModelCard(every_card(tmp_path)[name]).data for name in ("base", "adapter"))
    assert base.library_name == "transformers" and adapter.library_name == "peft" and "lora" in adapter.tags
    assert base.language == ["es", "no", "jv"], "codes of ISO 639; `no` is no truth value"
    assert base.datasets == ["org/spanish"] and adapter.language == ["es"]


def test_a_card_says_what_is_known_and_marks_what_is_not(tmp_path: Path) -> None:
    card = every_card(tmp_path)["base"]
    for text in (
        "after 2 rounds",
        "`ties`, density 0.2, scale 0.5",
        "| 1 | es | es | 1.5 | [org/spanish]",
        "| 1 | nb | no | ? | local",
    ):
        assert text in card
    assert "| 2 | both | of each row | 12.2 | a mix of jw, es | cc0-1.0, unknown |" in card
    assert "| local (jsonl) | unknown |" in card and "huggingface.co/datasets/org/spanish), small | cc-by-4.0 |" in card
    assert "Licences that are not recorded: of nb, both. Ask the owners" in card
    assert f"| 1 | `{'1' * 64}` | es (0.7500, `{'a' * 64}`), nb (0.2500, `{'b' * 64}`) |" in card
    adapter = every_card(tmp_path)["adapter"]
    assert "| cc-by-4.0 |" in adapter and "not recorded" not in adapter and "The licences are those that" in adapter
    assert "Steps: 20, the best one is 10. At that step: dev loss 1.5000, dev error 0.2500." in adapter
    assert 'from_pretrained("openai/whisper-base")' in adapter and "RUN/base-0001" in every_card(tmp_path)["later adapter"]


def test_a_card_depends_on_the_facts_alone(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert every_card(tmp_path) == every_card(tmp_path / "x")
    assert not [card for card in every_card(tmp_path).values() if "secret" in card or "node7" in card or str(tmp_path) in card]


def test_a_card_of_a_root_of_which_nothing_is_known_leaves_it_out(tmp_path: Path) -> None:
    card = cards.base_card(config(tmp_path), describe_root({"model": str(tmp_path / "mine")}), CHAIN, LEARNED)
    assert not {"base_model", "license"} & front_matter(card).keys() and "`mine` after 2 rounds" in card


@pytest.mark.parametrize(
    ("files", "hub_id", "licence"),
    [
        ({}, "", ""),
        ({"README.md": "---\nlicense: cc-by-4.0\n---\ntext"}, "", "cc-by-4.0"),
        ({"README.md": "---\nlicense: [\n---\n"}, "", ""),
        ({"README.md": "no metadata", "LICENSE": "x\n\nMIT License\n"}, "", "mit"),
        ({"LICENSE.txt": "                Apache License\n"}, "", "apache-2.0"),
        ({"LICENSE": "ours"}, "", ""),
        ({"manifest.json": json.dumps({"model": "openai/whisper-base"})}, "openai/whisper-base", ""),
        ({"manifest.json": json.dumps({"model": "/home/me/model"})}, "", ""),
        ({"manifest.json": "[]"}, "", ""),
        ({"manifest.json": "{"}, "", ""),
    ],
)
def test_what_a_root_folder_says_of_itself(tmp_path: Path, files: dict[str, str], hub_id: str, licence: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    root = describe_root({"model": str(tmp_path), "found": str(tmp_path), "root": str(tmp_path), "sha256": "1"})
    assert (root.hub_id, root.revision, root.licence, root.is_on_hub) == (hub_id, "", licence, False)
    assert root.name == (hub_id or tmp_path.name)


@pytest.mark.parametrize(("tensors", "is_on_hub"), [({"a": "1"}, True), ({"a": "2"}, False)])
def test_a_root_in_the_hubs_cache_has_its_id_and_revision(tmp_path: Path, tensors: dict[str, str], is_on_hub: bool) -> None:
    folder = tmp_path / "models--org--name" / "snapshots" / "abc"
    facts = {"model": "org/name", "found": str(folder), "root": str(folder), "sha256": "1"}
    root = describe_root(facts | {"root_tensors": {"a": "1"}, "tensors": tensors})
    assert (root.hub_id, root.revision, root.is_on_hub) == ("org/name", "abc", is_on_hub), "a cast copy is not on the hub"


def test_front_matter_is_yaml(tmp_path: Path) -> None:
    text = every_card(tmp_path)["base"].split("---\n")[1]
    assert yaml.safe_load(text) == front_matter(every_card(tmp_path)["base"])
