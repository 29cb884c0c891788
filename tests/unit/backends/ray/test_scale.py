"""The real coordinator on simulated machines (benchmarks/simulated_ray.py): what an adapter costs does not grow with the run."""

import json
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[4]
sys.path.append(str(REPO / "benchmarks"))

import scale  # noqa: E402
from simulated_ray import SimulatedRay  # noqa: E402

from wfc_dist.backends.ray.liveness import ASK_AT_ONCE  # noqa: E402
from wfc_dist.config.schema import Config  # noqa: E402
from wfc_dist.errors import Interrupted  # noqa: E402
from wfc_dist.reports import status  # noqa: E402
from wfc_dist.reports.status import status_table  # noqa: E402
from wfc_dist.rounds import Base  # noqa: E402
from wfc_dist.runs.handle import Run  # noqa: E402
from wfc_dist.runs.layout import RunPaths  # noqa: E402
from wfc_dist.runs.opening import opened_for_writing  # noqa: E402
from wfc_dist.runs.store import RunStore  # noqa: E402
from wfc_dist.storage import durable  # noqa: E402


def simulate(config: Config, ray: SimulatedRay) -> Base:
    prints = {f"{name}/train": "0" for name in config.datasets}
    with opened_for_writing(config, prints) as store:
        return scale.run_all(store, ray)


def messages(ray: SimulatedRay) -> int:
    return sum(ray.calls[name] for name in ("endpoint", "join", "load_base", "train", "node_facts", "request_stop"))


def ledger(config: Config, event: str) -> list[dict]:
    lines = map(json.loads, durable.read_lines(RunPaths(config.run_dir()).ledger))
    return [line for line in lines if line["event"] == event]


def test_messages_per_adapter_do_not_grow(tmp_path: Path) -> None:
    per_adapter = []
    for num_gangs, num_sets in ((4, 16), (32, 128)):
        ray = SimulatedRay(num_gangs, scale.train_s)
        simulate(scale.make_config(tmp_path / str(num_sets), num_gangs, num_sets, num_sets), ray)
        per_adapter.append(messages(ray) / num_sets)
        assert ray.calls["report"] / ray.now_s <= 2 * ASK_AT_ONCE, "each POLL_S a few are asked, however many train"
    assert per_adapter[0] == per_adapter[1]


def test_every_set_is_trained_once_though_trainers_are_lost(tmp_path: Path) -> None:
    config, ray = scale.make_config(tmp_path, 4, 24, 8), SimulatedRay(4, scale.train_s, lose_every=5)
    base = simulate(config, ray)
    assert base.index == 3
    assert dict(ray.trained) == dict.fromkeys(config.datasets, 1)
    assert sorted(line["dataset"] for line in ledger(config, "adapter")) == sorted(config.datasets)
    assert {line["decision"] for line in ledger(config, "failure")} == {"restart"}


def stopped_after_ten(config: Config, ray: SimulatedRay, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    commit = RunStore.commit_adapter

    def stop_after_ten(store: RunStore, *arguments: object) -> object:
        if ray.trained.total() == 10:
            store.stop("enough")
        return commit(store, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "commit_adapter", stop_after_ten)
        with pytest.raises(Interrupted) as raised:
            simulate(config, ray)
    return raised.value


def test_a_stopped_run_says_of_each_trainer_by_name_what_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = scale.make_config(tmp_path, 4, 24, 8)
    error = stopped_after_ten(config, SimulatedRay(4, scale.train_s, lose_every=12), monkeypatch)  # the second of the last three
    ends = error.facts["trainers"]
    by_kind = {kind: [name for name, end in ends.items() if end["kind"] == kind] for kind in ("checkpointed", "lost", "waiting")}
    kept, (lost,), waiting = by_kind.values()
    done = {line["dataset"] for line in ledger(config, "adapter")}
    assert {lost, *kept, *waiting} == set(config.round_list()[1]) - done and len(kept) == 2
    assert f"enough: checkpointed: {kept[0]} at step 7, {kept[1]} at step 7; " in error.message
    assert f"lost while stopping, without a new checkpoint: {lost} on {ends[lost]['host']} (" in error.message
    assert f"waiting for a trainer: {', '.join(waiting)}; the same command goes on" in error.message


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate(scale.make_config(tmp_path / "whole", 4, 24, 8), SimulatedRay(4, scale.train_s))
    config = scale.make_config(tmp_path / "again", 4, 24, 8)
    first, second = SimulatedRay(4, scale.train_s), SimulatedRay(4, scale.train_s)
    assert "every trainer has checkpointed: set-" in str(stopped_after_ten(config, first, monkeypatch))
    assert first.trained.total() == 10 and first.calls["request_stop"] == 4
    assert simulate(config, second) == Base(whole.index, str(RunPaths(config.run_dir()).base(3)), whole.sha256)
    assert (first.trained + second.trained) == dict.fromkeys(config.datasets, 1), "no finished adapter is trained again"


def test_opening_a_long_run_reads_no_manifest_of_its_adapters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = scale.make_config(tmp_path, 4, 24, 8)
    simulate(config, SimulatedRay(4, scale.train_s))
    read, read_manifest = [], durable.read_manifest
    monkeypatch.setattr(durable, "read_manifest", lambda folder: read.append(folder.name) or read_manifest(folder))
    with opened_for_writing(config, {f"{name}/train": "0" for name in config.datasets}) as store:
        assert store.current_round() == 3
    assert read == ["base-0003"]


def test_the_status_of_a_long_run_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    config = scale.make_config(tmp_path, 4, 24, 8)
    simulate(config, SimulatedRay(4, scale.train_s))
    paths = RunPaths(config.run_dir())
    for index in (2, 3):
        (paths.base(index) / durable.MANIFEST).unlink()
    (paths.adapter(2, "set-00009") / durable.MANIFEST).unlink()
    paths.checkpoints(2, "set-00009").mkdir(parents=True)

    def shown(most_rows: int) -> str:
        monkeypatch.setattr(status, "MOST_ROWS", most_rows)
        console = Console(width=140)
        with console.capture() as text:
            console.print(status_table(Run(paths.run_dir)))
        return text.get()

    assert "set-00000" in shown(100) and "set-00023" in shown(100)
    middle = shown(10)
    assert "8 sets" in middle and "all committed" in middle and "to come" in middle
    assert "set-00008" in middle and "set-00000" not in middle and "set-00023" not in middle
    assert "7 committed, 1 in training, 0 waiting" in shown(5)
