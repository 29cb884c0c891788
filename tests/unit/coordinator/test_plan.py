"""What `wfc plan` computes: the same modules as training, bytes from the headers of the root model."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.plan import WeightSizes, plan_run
from wfc_dist.coordinator.run import run
from wfc_dist.errors import ConfigError
from wfc_dist.progress import Display
from wfc_dist.reports.plan import plan_table

HOURS = {"a": 0.5, "b": 0.0, "c": 2.0}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_whisper(tmp_path_factory.mktemp("root"), dtype=torch.bfloat16)


def make_config(model: Path | str, *, dtype: str = "auto", cluster: dict[str, Any] | None = None, **lora: Any) -> Config:
    splits = {"train": "train.jsonl", "test": "test.jsonl"}
    return loading.parse(
        {
            "run": {"name": "x"},
            "base": {"model": str(model), "dtype": dtype},
            "datasets": {name: {"source": name, "splits": splits} for name in "abc"},
            "rounds": [["a", "b"], ["c"]],
            "lora": {"r": 4, "alpha": 8, **lora},
            "train": {"max_steps": 100, "warmup_steps": 10, "batch_size": 3, "gradient_accumulation": 2, "packing": False},
            "cluster": {"backend": "in_process", **(cluster or {})},
        }
    )


def sizes_of(config: Config) -> WeightSizes:
    sizes = plan_run(config, HOURS).sizes
    assert sizes is not None
    return sizes


def test_all_linear_is_every_linear_layer_as_in_training(root: Path) -> None:
    sizes = sizes_of(make_config(root, target_modules="all-linear"))
    assert sizes.num_adapted == 32  # of Whisper's 2 + 2 layers; not the output layer, which is tied
    assert sizes.num_trained == 4 * (24 * (32 + 32) + 8 * (32 + 64)) and sizes.adapter_bytes == 4 * sizes.num_trained
    assert sizes.gathered_bytes == 2 * sizes.adapter_bytes  # the larger round learns two
    assert sizes.changed_bytes == 2 * (24 * 32 * 32 + 8 * 32 * 64)


def test_a_whole_weight_is_stored_with_an_identity(root: Path) -> None:
    sizes = sizes_of(make_config(root, variant="full", dropout=0, target_modules=["fc1"]))
    assert sizes.num_trained == 4 * 32 * 64
    assert sizes.adapter_bytes == 4 * 4 * (32 * 64 + 32 * 32)


def test_a_rotation_trains_half_a_square_and_stores_two_factors(root: Path) -> None:
    sizes = sizes_of(make_config(root, variant="cssvd", dropout=0, target_modules=["fc1"]))
    assert sizes.num_trained == 4 * 12 * 11 // 2  # 0.4 of 32 directions
    assert sizes.adapter_bytes == 4 * 4 * 12 * (32 + 64)


def test_a_new_base_takes_the_configured_data_type(root: Path) -> None:
    own, cast = (sizes_of(make_config(root, dtype=dtype)).changed_bytes for dtype in ("auto", "float32"))
    assert (own, cast) == (12 * 32 * 32 * 2, 12 * 32 * 32 * 4)


def test_a_root_in_shards_counts_like_one_file(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = load_file(root / "model.safetensors")
    shards = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, tmp_path / "sharded" / file)
    index = {name: file for file, names in shards.items() for name in names}
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    one, two = sizes_of(make_config(root)), sizes_of(make_config(tmp_path / "sharded"))
    assert (one.num_adapted, one.num_tensors, one.changed_bytes) == (two.num_adapted, two.num_tensors, two.changed_bytes)
    assert abs(one.root_bytes - two.root_bytes) < 1000  # a second header


def test_what_training_refuses_is_told_before_anything_starts(root: Path, tmp_path: Path) -> None:
    config = make_config(root, target_modules=["no_such"])
    with pytest.raises(ConfigError, match=r"lora.target_modules \['no_such'\] does not fit"):
        plan_run(config, HOURS)
    path = tiny.make_config(tmp_path)
    config = loading.load_config(path, ["lora.target_modules=[no_such]"])
    with pytest.raises(ConfigError, match=r"lora.target_modules \['no_such'\] does not fit"):
        run(config, Display(plain=True))
    assert not config.run_dir().exists()


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ({"max_steps": 300, "warmup_steps": 0.1}, "rises to 0.001 in 30 of 300 steps, then inverse_sqrt"),
        ({"max_steps": 300}, "in 200 of 300 steps, then inverse_sqrt; most of the training warms up"),
        ({"max_steps": 50}, "in 5 of 50 steps, then inverse_sqrt"),
        ({"warmup_steps": 0, "schedule": "cosine", "lr": 1e-4}, "0.0001 from the first step, then cosine"),
        ({"warmup_steps": 99, "max_steps": 100, "schedule": "constant"}, "in 99 of 100 steps, then constant"),
    ],
)
def test_the_plan_says_how_many_steps_warm_up(train: dict[str, Any], told: str) -> None:
    tree = make_config("org/model").model_dump(mode="json") | {"train": train}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_table(plan_run(loading.parse(tree), HOURS)))
    row = next(line for line in console.export_text().splitlines() if "learning rate" in line)
    assert told in row
    assert ("most of the training" in told) == ("most of the training" in row)


def test_passes_and_trainers_are_counted(root: Path) -> None:
    plan = plan_run(make_config(root, cluster={"backend": "ray", "max_trainers": 1, "cpus_per_worker": 1e6}), HOURS)
    assert plan.num_windows == 600 and plan.num_models == 1 + 2 + 3
    assert plan.num_passes == {"a": 600 * 5 / 3600 / 0.5, "c": 600 * 5 / 3600 / 2}
    assert (plan.num_trainers, plan.num_fitting) == (1, 0)
    assert plan_run(make_config(root), HOURS).num_fitting is None


def test_the_tables_say_what_was_computed(root: Path) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(plan_table(plan_run(make_config(root, target_modules="all-linear"), HOURS)))
    text = console.export_text()
    assert "32 of " in text and "9,216 parameters, 0.0 MB" in text and "about 1.7" in text and "this process" in text
    assert re.search(r"1\W+b\W+0\.00\W+100\W+600\W+\?", text)
    console.print(plan_table(plan_run(make_config("org/model"), HOURS)))
    assert "known once org/model is on this machine" in console.export_text()
