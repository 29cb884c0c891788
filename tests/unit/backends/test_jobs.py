"""What a round's merge is asked for: the adapters whose curvature it needs."""

from pathlib import Path

import pytest

from wfc_dist.backends import jobs
from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.rounds import Base
from wfc_dist.runs.opening import opened_for_writing


def make(tmp_path: Path, **centralize: object) -> Config:
    return loading.parse(
        {
            "run": {"name": "r", "dir": str(tmp_path)},
            "base": {"model": str(tmp_path / "model")},
            "datasets": {name: {"source": name, "splits": {"train": "t"}} for name in "zya"},
            "rounds": {"centralize_every": 2},
            "centralize": centralize,
            "train": {"curvature": "both"},
        }
    )


@pytest.mark.parametrize(("method", "expected"), [("ihr", ["z", "y"]), ("mean", []), ("fisher", [])])
def test_only_ihr_asks_for_the_adapters_of_the_round_before(tmp_path: Path, method: str, expected: list[str]) -> None:
    with opened_for_writing(make(tmp_path, method=method), {}) as store:
        assert jobs.previous_adapters(store, Base(0, "root", "0"), method) == ()
        found = jobs.previous_adapters(store, Base(1, "base", "1"), method)
        assert list(found) == [str(store.paths.adapter(1, name)) for name in expected]  # in the file's order


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
