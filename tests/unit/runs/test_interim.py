"""What a stream keeps beside the rounds: interim bases, the link to the newest base, and how old the data was by then."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wfc_dist.config import loading
from wfc_dist.reports.stream import stream_table
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs.handle import Run
from wfc_dist.runs.interim import StreamStore, newest_servable, staleness
from wfc_dist.runs.layout import read_record
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

ARRIVED_S = {"a": 1000.0, "b": 2000.0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    config = loading.parse(
        {
            "run": {"name": "s", "dir": str(tmp_path)},
            "base": {"model": "root"},
            "datasets": {name: {"source": name, "splits": {"train": "t", "test": "t"}} for name in ARRIVED_S},
            "rounds": {"centralize_every": 2},
        }
    )
    (tmp_path / "root").mkdir()
    with opened_for_writing(config, {}) as opened:
        staged = durable.staging_path(opened.paths.base(0), 1)
        opened.commit_root(staged, "0", {"model_path": str(tmp_path / "root"), "root_files": {}, "tensors": {}})
        yield opened


def adapter(name: str, sha256: str = "") -> Adapter:
    return Adapter(name, name, sha256 or name, "0", 1.0)


def stage(store: RunStore, adapters: list[Adapter], *, interim: bool) -> StagedBase:
    delta, folder = store.stage_base(1, len(adapters) if interim else 0)
    (folder / "model-update.safetensors").write_text("".join(item.sha256 for item in adapters))
    facts = {"links": {}, "adapters": {item.dataset: item.sha256 for item in adapters}, "tensors": {}}
    return StagedBase(1, str(folder), str(delta), "+".join(item.sha256 for item in adapters), facts)


def served(store: RunStore) -> list[tuple[int, int, list[str]]]:
    lines = map(json.loads, store.paths.ledger.read_text().splitlines())
    return [(line["base"], line["num_pending"], list(line["age_s"])) for line in lines if line["event"] == "served"]


def test_the_link_follows_the_newest_base(store: RunStore) -> None:
    stream, run_dir = StreamStore(store, ARRIVED_S), store.paths.run_dir
    root = stream.newest_base()
    stream.serve()
    assert os.readlink(store.paths.serving) == str(run_dir.parent / "root")
    interim = stream.commit_interim(root, [adapter("a")], stage(store, [adapter("a")], interim=True))
    stream.serve()
    assert newest_servable(run_dir) == interim == Base(0, str(run_dir / "round-0001" / "interim-1"), "a", 1)
    assert os.readlink(store.paths.serving) == "round-0001/interim-1"
    stream.commit(stage(store, [adapter("a"), adapter("b")], interim=False))
    assert (store.paths.serving / "manifest.json").is_file(), "a crash here leaves what was served"
    stream.serve()
    assert os.readlink(store.paths.serving) == "base-0001" and not Path(interim.path).exists()
    assert served(store) == [(0, 0, []), (0, 1, ["a"]), (1, 0, ["a", "b"])]


def test_what_is_told_is_not_told_again(store: RunStore) -> None:
    StreamStore(store, ARRIVED_S).serve()
    StreamStore(store, ARRIVED_S).serve()  # another attempt
    assert served(store) == [(0, 0, [])]


def test_ages_are_counted_from_the_arrival_to_the_link(store: RunStore) -> None:
    stream = StreamStore(store, ARRIVED_S)
    root = stream.newest_base()
    assert stream_table(Run(store.paths.run_dir)) is None, "not a stream yet"
    durable.write_sealed(store.paths.config, read_record(store.paths) | {"arrivals": ARRIVED_S})
    stream.commit_interim(root, [adapter("a")], stage(store, [adapter("a")], interim=True))
    stream.serve()
    expected = store.paths.serving.lstat().st_mtime - 1000
    assert staleness(Run(store.paths.run_dir)) == {"a": (pytest.approx(expected, abs=1e-3), None), "b": (None, None)}
    table = stream_table(Run(store.paths.run_dir))
    assert table is not None and list(table.columns[1].cells) == ["a", "b"]
    assert list(table.columns[2].cells) == [f"{expected:.0f} s", "-"]


def test_an_interim_base_that_is_damaged_or_of_other_adapters_is_made_again(store: RunStore) -> None:
    stream = StreamStore(store, ARRIVED_S)
    root, learned = stream.newest_base(), [adapter("a")]
    assert stream.interim(root, learned) is None
    made = stream.commit_interim(root, learned, stage(store, learned, interim=True))
    assert stream.interim(root, learned) == made
    assert stream.interim(root, [adapter("a", "other")]) is None
    update = Path(made.path) / "model-update.safetensors"
    update.write_text("b")
    assert stream.interim(root, learned) is None
    stream.commit_interim(root, learned, stage(store, learned, interim=True))
    assert stream.interim(root, learned) == made and update.read_text() == "a"
