"""What a round's merge is asked for: the adapters whose curvature it needs."""

from pathlib import Path

import pytest

from wfc_dist.backends import jobs
from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.opening import opened_for_writing


def make(tmp_path: Path, train: dict[str, object] | None = None, **centralize: object) -> Config:
    return loading.parse(
        {
            "run": {"name": "r", "dir": str(tmp_path)},
            "base": {"model": str(tmp_path / "model")},
            "datasets": {name: {"source": name, "splits": {"train": "t"}} for name in "zya"},
            "rounds": {"centralize_every": 2},
            "centralize": centralize,
            "train": train or {"curvature": "both"},
        }
    )


@pytest.mark.parametrize(("method", "expected"), [("ihr", ["z", "y"]), ("mean", []), ("fisher", [])])
def test_only_ihr_asks_for_the_adapters_of_the_round_before(tmp_path: Path, method: str, expected: list[str]) -> None:
    with opened_for_writing(make(tmp_path, method=method), {}) as store:
        assert jobs.previous_adapters(store, Base(0, "root", "0"), method, []) == ()
        found = jobs.previous_adapters(store, Base(1, "base", "1"), method, [])
        assert list(found) == [str(store.paths.adapter(1, name)) for name in expected]  # in the file's order


def test_what_is_measured_at_the_base_is_that_of_the_round_before_and_in_an_adapter_of_this_one(tmp_path: Path) -> None:
    config = make(tmp_path, {"curvature": "kronecker", "curvature_at": "base"}, method="ihr")
    late, own = (Adapter(name, f"folder of {name}", "sha", "1", 1.0) for name in "ya")
    with opened_for_writing(config, {}) as store:
        root, base = Base(0, "root", "0"), Base(1, "base", "1")
        assert jobs.training_job(store, root, "z").earlier_data == ()
        assert jobs.previous_adapters(store, root, "ihr", [own]) == jobs.previous_adapters(store, base, "mean", [own]) == ()
        found = jobs.training_job(store, base, "a").earlier_data
        assert [(item.dataset, item.data) for item in found] == [(name, config.datasets[name]) for name in "zy"]
        assert [item.data_seed for item in found] == [jobs.training_job(store, root, name).data_seed for name in "zy"]
        assert jobs.previous_adapters(store, base, "ihr", [late, own]) == ("folder of a",)


@pytest.mark.parametrize(("given", "expected"), [("auto", 1), (0, 0), (5, 5)])
def test_a_job_knows_how_many_loader_threads_auto_is(tmp_path: Path, given: object, expected: int) -> None:
    config = make(tmp_path)
    config = config.model_copy(
        update={
            "train": config.train.model_copy(update={"loader_workers": given}),
            "cluster": config.cluster.model_copy(update={"cpus_per_worker": 2}),
        }
    )
    with opened_for_writing(config, {}) as store:
        job = jobs.training_job(store, Base(0, "root", "0"), "z")
    assert job.train.loader_workers == expected
    assert job.train.model_copy(update={"loader_workers": given}) == config.train
