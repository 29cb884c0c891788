"""curvature.safetensors beside an adapter: read where a method needs it, refused with a name where it is missing or wrong."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wfc_dist.centralize import offline
from wfc_dist.centralize.exchange import Packet
from wfc_dist.errors import ConfigError, InputError
from wfc_dist.merging import merge_method
from wfc_dist.merging.curvature import Curvature
from wfc_dist.merging.factors import Factors
from wfc_dist.weights import base_chain, peft_folder

OUT, IN, MODULES = 12, 8, ("layers.0.q_proj", "layers.0.v_proj")


def write_adapter(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    state, statistics = {}, {}
    for module in MODULES:
        state[f"base_model.model.{module}.lora_A.weight"] = torch.randn(2, IN, generator=generator)
        state[f"base_model.model.{module}.lora_B.weight"] = torch.randn(OUT, 2, generator=generator)
        statistics[f"{module}.fisher"] = torch.rand(OUT, IN, generator=generator)
        for name, size in (("inputs", IN), ("outputs", OUT)):
            samples = torch.randn(size, 40, generator=generator)
            statistics[f"{module}.{name}"] = samples @ samples.T / 40
    peft_folder.write_peft(folder, state, {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"})
    save_file(statistics, folder / peft_folder.STATISTICS)
    return folder


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    found = peft_folder.read_curvature(folder, dict.fromkeys(MODULES, (OUT, IN)), ["fisher", "inputs", "outputs"])
    kept = {f"{module}.{kind}": getattr(item, name) for module, item in found.items()
            for kind, name in (("fisher", "fisher_OI"), ("inputs", "inputs_II"), ("outputs", "outputs_OO"))}  # fmt: skip
    kept |= {f"{MODULES[0]}.{kind}": tensor for kind, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in kept.items() if tensor is not None}, folder / peft_folder.STATISTICS)


def test_fisher_and_ihr_average_folders_as_their_functions_do(tmp_path: Path) -> None:
    folders = [write_adapter(tmp_path / name, seed) for seed, name in enumerate("abc")]
    offline.average(folders[:2], tmp_path / "fisher", method="fisher", options={"floor": 1e-3}, weights=[1, 3])
    offline.average(folders[:2], tmp_path / "ihr", method="ihr", previous=folders[2:])

    shapes = dict.fromkeys(MODULES, (OUT, IN))
    loaded = [peft_folder.read_with_curvature(folder, ["fisher"]) for folder in folders[:2]]
    previous = peft_folder.read_curvature(folders[2], shapes, ["inputs", "outputs"])
    fisher, ihr = base_chain.read_delta(tmp_path / "fisher"), base_chain.read_delta(tmp_path / "ihr")
    for module in MODULES:
        items = [item[module] for item in loaded]
        assert torch.equal(fisher[module].dense(), merge_method("fisher")(items, [0.25, 0.75], floor=1e-3).dense())
        assert torch.equal(ihr[module].dense(), merge_method("ihr")(items, [0.5, 0.5], previous=[previous[module]]).dense())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fisher": None}, r"has no layers\.0\.q_proj\.fisher.*train\.curvature"),
        ({"fisher": torch.ones(IN, OUT)}, r"is \[8, 12\], expected \[12, 8\]"),
        ({"fisher": torch.full((OUT, IN), torch.nan)}, "all finite"),
    ],
)
def test_wrong_statistics_are_refused_by_name(tmp_path: Path, tensors: dict, message: str) -> None:
    folders = [write_adapter(tmp_path / "a", 1), write_adapter(tmp_path / "b", 2)]
    change(folders[1], **tensors)
    with pytest.raises(InputError, match=message):
        offline.average(folders, tmp_path / "out", method="fisher")
    assert not (tmp_path / "out").exists()


def test_no_statistics_at_all_name_the_adapter_and_the_setting(tmp_path: Path) -> None:
    folders = [write_adapter(tmp_path / "a", 1), write_adapter(tmp_path / "b", 2)]
    (folders[1] / peft_folder.STATISTICS).unlink()
    offline.average(folders, tmp_path / "mean")  # others don't ask
    for method, previous in (("fisher", []), ("ihr", folders[1:])):
        with pytest.raises(InputError, match=r"/b has no curvature\.safetensors.*train\.curvature"):
            offline.average(folders, tmp_path / "out", method=method, previous=previous)


def test_curvature_travels_with_the_factors() -> None:
    plain = Factors(torch.randn(2, IN), torch.randn(OUT, 2), 2.0)
    curved = Factors(torch.randn(2, IN), torch.randn(OUT, 2), 2.0, Curvature(fisher_OI=torch.rand(OUT, IN)))
    found = Packet.from_bytes(Packet({"a": plain, "b": curved}).to_bytes()).factors
    assert found["a"].curvature is None
    assert torch.equal(found["b"].curvature.fisher_OI, curved.curvature.fisher_OI)
    assert found["b"].curvature.inputs_II is None


def test_the_memory_of_nesterov_comes_from_deltas(tmp_path: Path) -> None:
    folders = [write_adapter(tmp_path / name, seed) for seed, name in enumerate("ab")]
    chosen = {"method": "nesterov", "options": {"lr": 0.5}}
    offline.average(folders[:1], tmp_path / "first", **chosen)
    offline.average(folders[1:], tmp_path / "second", **chosen, past=[tmp_path / "first"])
    first, second = base_chain.read_delta(tmp_path / "first"), base_chain.read_delta(tmp_path / "second")
    for module in MODULES:
        update = [peft_folder.read_factors(folder)[module] for folder in folders]
        one, two = (item.scaling * item.b_OR.double() @ item.a_RI.double() for item in update)
        assert torch.allclose(first[module].dense(), 0.5 * 1.9 * one, rtol=1e-5, atol=1e-6)
        assert torch.allclose(second[module].dense(), 0.5 * (1.9 * two + 0.81 * one), rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match=r"set options\.lr instead"):
        offline.average(folders, tmp_path / "out", method="nesterov", scale=2.0)
