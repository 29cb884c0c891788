"""One mix over every reader, and the audit of it."""

import pickle
from pathlib import Path

import datasets
import pytest
import yaml
from recordings import PITCHES, heard
from unit.data.readers.test_documented import MAKERS, documented, path_with_programs

from wfc_dist.config import loading
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audit import audit
from wfc_dist.data.sources import READERS, open_split


@pytest.fixture
def parts(tmp_path, monkeypatch) -> dict[str, dict]:
    """Makes every corpus of the table in a folder of its own; returns their blocks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "spools"))
    made = {}
    for number, (title, block) in enumerate(documented().items()):
        name = f"part-{number:02d}"
        made[name] = yaml.safe_load(block) | {"source": name, "splits": {"train": yaml.safe_load(block)["splits"]["train"]}}
        Path(name).mkdir()
        MAKERS[title](Path(name))
    monkeypatch.setenv("PATH", path_with_programs(tmp_path))
    return made


@pytest.mark.process
def test_one_mix_over_every_reader(parts):
    mix = DatasetConfig(format="mix", splits={"train": "train"}, parts=parts)
    assert {part.format for part in mix.parts.values()} == set(READERS)

    split = pickle.loads(pickle.dumps(open_split("all", mix, "train")))

    wanted = [clip for part in parts.values() for clip in range(part.get("max_clips", 3))]
    assert [(text, pitch) for text, _, pitch in heard(split)] == [(f"text {clip}", PITCHES[clip]) for clip in wanted]
    assert len({clip.id for clip in split.clips}) == len(wanted) and split.clips[0].id.startswith("part-00/")
    assert split.fingerprint == open_split("all", mix, "train").fingerprint


@pytest.mark.process
def test_the_audit_reads_every_reader(parts, tmp_path):
    config = {"base": {"model": "none"}, "datasets": parts, "rounds": [list(parts)], "run": {"name": "x", "dir": str(tmp_path)}}
    rows = audit(loading.parse(config), deep=True).rows
    assert [row.num_clips for row in rows] == [part.get("max_clips", 3) for part in parts.values()]
    unreadable = [
        problem.what for row in rows for problem in row.problems if "unreadable" in problem.what or not problem.num_clips
    ]
    assert unreadable == []


@pytest.mark.process
def test_a_share_of_every_reader(parts):
    for name, block in parts.items():
        if not block.get("streaming"):
            split = open_split(name, DatasetConfig(**block, share=0.34), "train")
            assert [text for text, _, _ in heard(split)] == ["text 0"]
