"""Whatever changes between the merge and the commit is found when a staged base is read back."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from wfc_dist.centralize import collectives
from wfc_dist.centralize.rank import CentralizeJob, centralize_rank
from wfc_dist.centralize.readback import Sources, require_as_computed
from wfc_dist.errors import IntegrityError
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.storage import durable
from wfc_dist.weights import base_chain, peft_folder
from wfc_dist.weights.hashing import content_sha256, tensor_sha256

MODULES = [f"model.{side}.layers.{layer}.self_attn.{p}_proj" for side in ("encoder", "decoder") for layer in (0, 1) for p in "qv"]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> tuple[StagedBase, Sources, dict[str, str]]:
    folder = tmp_path_factory.mktemp("merged")
    root = tiny.make_whisper(folder / "root", dtype=torch.float16)
    hashes = base_chain.hash_tensors(root)
    base = Base(0, str(root), content_sha256(hashes))
    generator, state = torch.Generator().manual_seed(1), {}
    for module in MODULES:
        state[f"base_model.model.{module}.lora_A.weight"] = torch.randn(4, 32, generator=generator)
        state[f"base_model.model.{module}.lora_B.weight"] = 0.1 * torch.randn(32, 4, generator=generator)
    for name in ("adapter", "delta", "base"):
        (folder / name).mkdir()
    sha256 = peft_folder.write_peft(folder / "adapter", state, {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"})
    job = CentralizeJob(
        base=base, adapters=(Adapter("a", str(folder / "adapter"), sha256, base.sha256, 1.0),), weights=(1.0,), method="mean",
        scale=1.0, dtype="auto", root=str(root), shared=str(root), past_deltas=(), tensor_hashes=hashes,
        delta_dir=str(folder / "delta"), base_dir=str(folder / "base"),
    )  # fmt: skip
    staged = centralize_rank(job, collectives.Group())
    assert staged is not None
    return staged, Sources(root, root, (), "auto"), hashes


@pytest.fixture
def staged(merged: tuple[StagedBase, Sources, dict[str, str]], tmp_path: Path) -> StagedBase:
    """The merge's files again, for one test to damage; links stay links."""
    original = merged[0]
    shutil.copytree(
        original.path, tmp_path / "base", copy_function=lambda source, target: durable.link(Path(source), Path(target))
    )
    shutil.copytree(original.delta_path, tmp_path / "delta")
    for path in (tmp_path / "base").iterdir():
        if "root" not in path.name:
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
    return replace(original, path=str(tmp_path / "base"), delta_path=str(tmp_path / "delta"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.unlink()  # it may be a link to the root's file
    path.write_bytes(bytes(data))


DAMAGE: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "a weight": (lambda base, _: flip(base / base_chain.CHANGED, -1), "is not what was computed"),
    "the header": (lambda base, _: flip(base / base_chain.CHANGED, 7), "cannot be read back"),
    "the name of a tensor": (lambda base, _: flip(base / base_chain.CHANGED, 60), "does not name the tensors"),
    "half of the file": (lambda base, _: (base / base_chain.CHANGED).write_bytes(b"12345678"), "cannot be read back"),
    "the delta": (lambda _, delta: flip(delta / base_chain.DELTA, -1), "is not what was written"),
    "no delta": (lambda _, delta: (delta / base_chain.DELTA).unlink(), "is not there"),
    "the index": (lambda base, _: flip(base / base_chain.INDEX, 120), r"index\.json"),
    "a file of the root": (lambda base, _: flip(base / "model-root-00001.safetensors", -1), "is not the file"),
    "the configuration": (lambda base, _: flip(base / "config.json", 20), "is not the copy"),
    "no tokenizer": (lambda base, _: (base / "tokenizer.json").unlink(), "is not the copy"),
}


def test_what_was_computed_passes(merged: tuple[StagedBase, Sources, dict[str, str]], staged: StagedBase) -> None:
    require_as_computed(staged, *merged[1:])


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_on_the_disk_is_found(merged: tuple[StagedBase, Sources, dict[str, str]], staged: StagedBase, what: str) -> None:
    damage, message = DAMAGE[what]
    damage(Path(staged.path), Path(staged.delta_path))
    with pytest.raises(IntegrityError, match=message):
        require_as_computed(staged, *merged[1:])


def test_a_wrong_sum_with_right_checksums_is_found(
    merged: tuple[StagedBase, Sources, dict[str, str]], staged: StagedBase
) -> None:
    update = Path(staged.path) / base_chain.CHANGED
    tensors = load_file(update)
    name = min(tensors)
    tensors[name][0, 0] += 1  # in memory, before it was hashed
    save_file(tensors, update, {"format": "pt"})
    hashes = staged.facts["tensors"] | {name: tensor_sha256(tensors[name])}
    written = {**staged.facts["written"], update.name: durable.sha256_file(update)}
    wrong = replace(staged, sha256=content_sha256(hashes), facts={**staged.facts, "tensors": hashes, "written": written})
    with pytest.raises(IntegrityError, match="computed again from the root and the deltas on the disk, differs"):
        require_as_computed(wrong, *merged[1:])


def test_hashes_that_are_not_those_of_the_base_before(
    merged: tuple[StagedBase, Sources, dict[str, str]], staged: StagedBase
) -> None:
    kept = min(name for name in staged.facts["tensors"] if name not in staged.facts["changed"])
    other = staged.facts["tensors"] | {kept: "0" * 64}
    with pytest.raises(IntegrityError, match="not those of that base"):
        require_as_computed(replace(staged, facts={**staged.facts, "tensors": other}), *merged[1:])
    with pytest.raises(IntegrityError, match="is not that of its tensors"):
        require_as_computed(replace(staged, sha256="0" * 64), *merged[1:])
