"""Which data sets are late, and how an adapter of another base is told apart."""

from pathlib import Path

import pytest

from wfc_dist.config import loading
from wfc_dist.rounds import Base
from wfc_dist.runs.grafts import graft, late_datasets
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

ROUNDS = [["a", "b", "c"], ["d", "b"], ["e"], ["a"], ["e"]]


@pytest.fixture
def store(tmp_path: Path):
    names = sorted({name for names in ROUNDS for name in names})
    tree = {
        "run": {"name": "r", "dir": str(tmp_path)},
        "base": {"model": str(tmp_path / "model")},
        "datasets": {name: {"source": name, "splits": {"train": "t"}} for name in names},
        "rounds": ROUNDS,
        "centralize": {"quorum": 1, "late": "next_round"},
    }
    with opened_for_writing(loading.parse(tree), {"a/train": "1"}) as store:
        yield store


def merged(store: RunStore, index: int, *adapters: str, **missing: str) -> None:
    store.ledger.record("base", round=index, sha256=str(index), adapters=dict.fromkeys(adapters, "s"), missing=missing)


def test_what_a_round_was_made_without_is_late_until_a_base_has_learned_it(store: RunStore) -> None:
    merged(store, 1, "a", b="InputError: x", c="TrainingError: y")
    assert late_datasets(store, Base(0, "", "")) == {}
    assert late_datasets(store, Base(1, "", "")) == {"c": 1}, "round 2 learns b anew"
    merged(store, 2, "d", b="InputError: x")
    assert late_datasets(store, Base(2, "", "")) == {"b": 2, "c": 1}
    merged(store, 3, "e", "c")
    assert late_datasets(store, Base(3, "", "")) == {"b": 2}
    merged(store, 4, "b", a="GateError: with it, the update is too large")
    assert late_datasets(store, Base(4, "", "")) == {}, "the gate has the last word"


def test_late_adapters_follow_those_of_the_round(store: RunStore) -> None:
    assert store.config.in_order(3, {"c", "b", "e"}) == ["e", "b", "c"]
    assert store.config.in_order(2, ["c", "b", "d"]) == ["d", "b", "c"]


def test_an_adapter_that_came_late_is_returned_verified_to_who_asks_for_it(store: RunStore) -> None:
    folder = store.paths.base(1)
    durable.commit_folder(durable.staging_path(folder, 1), folder, {"sha256": "1", "adapters": {"a": "s"}})
    merged(store, 1, "a", c="InputError: x")
    root = Base(0, "root", "0")
    staged = store.stage_adapter(root, "c")
    (staged / "adapter_model.safetensors").write_bytes(b"weights")
    late = store.commit_adapter(root, "c", staged, {"sha256": "c", "hours": 1.0, "steps": 3})

    assert store.finished_adapters(root) == {}, "it is no part of its round, of which nothing is scored again"
    assert store.finished_adapters(root, late=["c"]) == {"c": late}
    (Path(late.path) / "adapter_model.safetensors").write_bytes(b"WEIGHTS")
    assert store.finished_adapters(root, late=["c"]) == {} and not Path(late.path).exists()


def test_the_copy_of_an_adapter_of_another_base_says_so(store: RunStore) -> None:
    staged = store.stage_adapter(Base(0, "root", "0"), "c")
    (staged / "adapter_model.safetensors").write_bytes(b"weights")
    original = store.commit_adapter(Base(0, "root", "0"), "c", staged, {"sha256": "c", "hours": 1.0, "steps": 3})

    copies = [graft(store, base, "c", Path(original.path)) for base in (Base(1, "x", "1"), Base(2, "x", "0"))]

    assert [copy.base_sha256 for copy in copies] == ["1", "0"]
    facts = [durable.read_manifest(Path(copy.path)) for copy in copies]
    assert [fact and fact.get("trained_against") for fact in facts] == ["0", None]
    assert (Path(copies[0].path) / "adapter_model.safetensors").read_bytes() == b"weights"
