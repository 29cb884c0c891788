"""What `wfc run` refuses before anything starts."""

import sys
from pathlib import Path
from typing import Any

import pytest

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.checks import check
from wfc_dist.errors import ConfigError


def make_config(run_dir: str, **train: object) -> Config:
    return loading.parse(
        {
            "run": {"name": "x", "dir": run_dir},
            "base": {"model": "org/model"},
            "datasets": {"a": {"source": "a", "splits": {"train": "t.jsonl"}}},
            "rounds": [["a"]],
            "train": train,
        }
    )


def test_a_run_in_rays_throw_away_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=r"run.dir: 'runs' is relative .*run.dir=/shared/runs"):
        check(make_config("runs"))


@pytest.mark.parametrize(
    ("package", "extra", "blocks", "key"),
    [
        ("deepspeed", "deepspeed", {"train": {"strategy": "zero2"}}, "train.strategy zero2"),
        ("submitit", "slurm", {"cluster": {"backend": "slurm"}}, "cluster.backend slurm"),
        ("s3fs", "s3", {"run": {"name": "x", "dir": "s3://bucket/runs"}}, "s3://bucket/runs"),
        ("gcsfs", "gcs", {"run": {"name": "x", "dir": "gs://bucket/runs"}}, "gs://bucket/runs"),
    ],
)
def test_an_optional_package_that_is_missing_is_named_with_its_extra(
    package: str, extra: str, blocks: dict[str, Any], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises
    config = loading.parse(make_config("/runs").model_dump(mode="json") | blocks)
    with pytest.raises(ConfigError, match=rf"^{key} needs {package}; .*pip install 'wfc-dist\[{extra}\]'$"):
        check(config)


def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp16 needs GPUs"):
        check(make_config("runs", precision="fp16"))
