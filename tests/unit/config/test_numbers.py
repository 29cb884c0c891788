"""Every key of the configuration that takes a number refuses what no number can mean there, and names the key."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from wfc_dist.config.loading import config_hash, load_config
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError

DATA = {"source": "x", "splits": {"train": "t", "test": "t"}}
TREE = {
    "run": {"name": "r"},
    "base": {"model": "m"},
    "datasets": {"a": DATA},
    "rounds": [["a"]],
    "evaluate": {"protected": {"b": DATA}},
}
NEVER = [".nan", ".inf", "-.inf", "nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "1.0e+400", "'1e400'", "1e300", "'1e300'",
         "9" * 30, f"'{'9' * 30}'", f"'{'9' * 5000}'", "9" * 5000, "4611686018427387904",
         "1.7e+308", "[1]", "{a: 1}", "true"]  # fmt: skip


def kinds_of(annotation: Any) -> set[Any]:
    """Returns the types in an annotation: of `list[int] | None` list, int and None."""
    if get_origin(annotation) is Annotated:
        return kinds_of(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set[Any]().union(*map(kinds_of, get_args(annotation)))
    return {annotation}


def numeric_keys(model: type[BaseModel] = Config, above: tuple[str, ...] = (), within: tuple[type, ...] = ()) -> Iterator[str]:
    """Yields key.path of every field that takes a number; NAME is a data set of TREE."""
    names = {"datasets": ("a",), "protected": ("b",)}
    for key, field in model.model_fields.items():
        kinds = kinds_of(field.annotation)
        if kinds & {int, float}:
            yield ".".join((*above, key))
        blocks = kinds | {inner for table in kinds if get_origin(table) is dict for inner in get_args(table)[1:]}
        for kind in blocks:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in (*within, model):
                yield from numeric_keys(kind, (*above, key, *names.get(key, ())), (*within, model))


KEYS = sorted(numeric_keys())


def test_every_block_has_its_numbers() -> None:
    some = "run.seed train.lr lora.prior.sigma train.spec_augment.time_masks centralize.gate.max_growth cluster.slurm.mem_gb"
    assert {*some.split(), "datasets.a.share", "evaluate.protected.b.max_clips"} <= {*KEYS}
    assert len(KEYS) > 60


@pytest.mark.parametrize("key", KEYS)
def test_no_number_that_cannot_be_meant(tmp_path: Path, key: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(TREE))
    for value in NEVER:
        with pytest.raises(ConfigError) as caught:
            load_config(path, [f"{key}={value}"])
        said = str(caught.value)
        assert caught.value.exit_code == 2 and key.rpartition(".")[2] in said, f"{value}: {said}"


@pytest.mark.parametrize("key", ["train.betas", "centralize.options", "cluster.slurm.parameters"])
@pytest.mark.parametrize("value", [".nan", "1e400", "-.inf", "9" * 30])
def test_nor_within_lists_and_tables(tmp_path: Path, key: str, value: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(TREE))
    inside = f"[{value}, 0.9]" if key == "train.betas" else f"{{density: {value}}}"
    if key == "cluster.slurm.parameters" and value == "1e400":
        pytest.skip("a text there, which sbatch gets")
    with pytest.raises(ConfigError, match=key.rpartition(".")[2]):
        load_config(path, ["centralize.method=ties", "cluster.backend=slurm", f"{key}={inside}"])


def test_minus_zero_is_zero(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(TREE))
    assert len({config_hash(load_config(path, [f"train.weight_decay={zero}"])) for zero in ("0", "0.0", "-0.0", "-0")}) == 1
