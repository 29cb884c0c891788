"""Repositories of the hub are looked at: in a folder, on a hub on loopback, and on one that cannot be reached."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import tiny
import yaml
from dataset_hub import SHA, DatasetHub, dataset_hub
from recordings import tone, write
from unit.data.readers.test_hugging_face import write_parquet

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.detection.hub import hub_id
from wfc_dist.data.detection.look import look
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError

CARD = "---\nconfigs:\n{}---\n# Card\n"
SPLIT = "  - split: {0}\n    path: {1}/{0}.parquet\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def clips(path: Path, first: int, num: int, **more: object) -> None:
    """Writes a parquet file of clips of half a second, none of which is in another file."""
    rng = np.random.default_rng(first)
    rows = []
    for number in range(first, first + num):
        sound = write(
            path.parent / "sound.wav", tone(200 + number % 500, 0.6) + 0.01 * rng.standard_normal(9600).astype(np.float32)
        )
        rows.append({"audio": {"bytes": sound.read_bytes(), "path": f"{number}.wav"}, "sentence": f"number {number}"} | more)
        sound.unlink()
    write_parquet(path, rows)


def repository(folder: Path) -> Path:
    """Writes a repository of two configurations: es with two splits, it with one."""
    clips(folder / "es/train.parquet", 0, 40)
    clips(folder / "es/validation.parquet", 100, 2)
    clips(folder / "it/train.parquet", 200, 120)
    splits = {"es": ("train", "validation"), "it": ("train",)}
    configs = [
        f"- config_name: {name}\n  data_files:\n" + "".join(SPLIT.format(s, name) for s in found)
        for name, found in splits.items()
    ]
    (folder / "README.md").write_text(CARD.format("".join(configs)))
    return folder


def wfc_on(hub: DatasetHub, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command with that hub and a cache of its own."""
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(Path("hf").absolute()), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-m", "wfc_dist", *words],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("google/fleurs", ("google/fleurs", "")), ("google/fleurs:es_419", ("google/fleurs", "es_419")), ("data/spech", None),
        ("fleurs", None), ("a/b/c", None), ("./a/b", None), ("/a/b", None),
    ],
)  # fmt: skip
def test_what_may_be_on_the_hub(source, found):
    Path("data").mkdir()
    assert hub_id(source) == found


def test_a_repository_in_a_folder_is_read_by_its_card():
    repository(Path("org/name"))
    (corpus,) = look("org/name:es")
    assert corpus.words[0] == "name-es" and corpus.language == "es"
    assert corpus.block == {
        "source": "org/name", "format": "hub", "subset": "es", "text_column": "sentence",
        "splits": {"train": "train", "dev": "validation"},
    }  # fmt: skip
    assert len(open_split("x", DatasetConfig(**corpus.block, language="es"), "train")) == 40
    assert (corpus.facts["train"].num_clips, corpus.facts["dev"].num_clips) == (40, 2)
    assert corpus.facts["train"].hours == pytest.approx(40 * 0.6 / 3600) and corpus.facts["train"].is_about


def test_a_part_of_an_only_split_is_held_back():
    repository(Path("org/name"))
    (corpus,) = look("org/name:it")
    assert corpus.splits == {"train": "train[:95%]", "test": "train[95%:]"}
    dataset = DatasetConfig(**corpus.block, language="it")
    train, test = open_split("x", dataset, "train"), open_split("x", dataset, "test")
    assert (len(train), len(test)) == (corpus.facts["train"].num_clips, corpus.facts["test"].num_clips) == (114, 6)
    assert not {clip.text for clip in train.clips} & {clip.text for clip in test.clips}


def test_a_configuration_is_named_where_there_are_several():
    repository(Path("org/name"))
    with pytest.raises(InputError, match=r"org/name has 2 configurations: es, it; name one: wfc init org/name:es"):
        look("org/name")
    with pytest.raises(InputError, match=r"no configuration 'de'; it has: es, it"):
        look("org/name:de")


@pytest.mark.process
def test_from_the_hub_to_a_plan():
    tiny.make_whisper(Path("model"), taciturn=True)
    with dataset_hub({"main": repository(Path("repository"))}) as hub:
        done = wfc_on(hub, "init", "org/name:es", "org/name:it", "--model", "model", "--out", "mine.yaml")
        assert done.returncode == 0, done.stderr
        blocks = yaml.safe_load(Path("mine.yaml").read_text())["datasets"]
        assert {name: (block["language"], block["revision"]) for name, block in blocks.items()} == {
            "name-es": ("es", SHA),
            "name-it": ("it", SHA),
        }
        done = wfc_on(hub, "plan", "mine.yaml")
        assert done.returncode == 0, done.stderr
        done = wfc_on(hub, "init", "org/gone")
        assert done.returncode == 2 and "no such data set on the Hugging Face hub" in done.stderr


@pytest.mark.process
def test_a_loading_script_is_not_run_and_the_hubs_copy_is_taken():
    tiny.make_whisper(Path("model"), taciturn=True)
    Path("script").mkdir()
    Path("script/name.py").write_text("raise SystemExit('run')\n")
    for configuration, first in (("es_419", 0), ("en_us", 100)):
        clips(Path("copy") / configuration / "train/0000.parquet", first, 8, language="Spanish")
        clips(Path("copy") / configuration / "test/0000.parquet", first + 50, 2, language="Spanish")
    with dataset_hub({"main": Path("script"), "refs/convert/parquet": Path("copy")}) as hub:
        done = wfc_on(hub, "init", "org/name:es_419", "--model", "model", "--out", "mine.yaml")
        assert done.returncode == 0, done.stderr
        block = yaml.safe_load(Path("mine.yaml").read_text())["datasets"]["name-es_419"]
        assert block["revision"] == "refs/convert/parquet" and block["data_dir"] == "es_419" and "language" not in block
        done = wfc_on(hub, "audit", "mine.yaml")
        assert done.returncode == 0, done.stderr
        done = wfc_on(hub, "init", "org/name")
        assert done.returncode == 2 and "2 configurations: en_us, es_419" in done.stderr


@pytest.mark.process
def test_a_hub_that_cannot_be_reached_is_one_message():
    for environment in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        done = subprocess.run(
            [sys.executable, "-m", "wfc_dist", "init", "google/fleurs:es_419"],
            capture_output=True, text=True, env=os.environ | environment, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith(
            "wfc: google/fleurs: there is no such folder here, and the Hugging Face hub cannot be reached"
        )
        assert len(done.stderr.splitlines()) == 1 and "save_to_disk" in done.stderr
