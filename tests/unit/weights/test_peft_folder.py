"""PEFT folders: whatever names the tensors have, and curvature.safetensors beside an adapter."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

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


def test_the_norm_of_the_fisher_information_is_that_of_all_modules_and_reaches_the_method(tmp_path: Path) -> None:
    folders = [write_adapter(tmp_path / name, seed) for seed, name in enumerate("ab")]
    loaded = [peft_folder.read_with_curvature(folder, ["fisher"]) for folder in folders]
    for item in loaded:
        whole = torch.cat([one.curvature.fisher_OI.double().flatten() for one in item.values()]).norm()
        assert all(float(one.curvature.fishernorm_) == pytest.approx(float(whole), rel=1e-12) for one in item.values())
    offline.average(folders, tmp_path / "normalized", method="fisher", options={"normalize": 1})
    found = base_chain.read_delta(tmp_path / "normalized")
    for module in MODULES:
        expected = merge_method("fisher")([item[module] for item in loaded], [0.5, 0.5], normalize=1)
        assert torch.equal(found[module].dense(), expected.dense())


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


ON, KEYS = peft_folder.PREFIX, [f"{module}.lora_{side}" for module in MODULES for side in "AB"]


def plain_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(write_adapter(folder, 1) / peft_folder.WEIGHTS)


def put(folder: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    save_file(dict(tensors), folder / peft_folder.WEIGHTS, {"format": "pt"})
    return folder


WRITINGS = {
    "bare": lambda key: key.removeprefix(ON),
    "compiled outside": lambda key: f"_orig_mod.{key}",
    "compiled inside": lambda key: key.replace(ON, f"{ON}_orig_mod."),
    "compiled layer by layer": lambda key: key.replace("layers.0.", "layers.0._orig_mod."),
    "data-parallel outside": lambda key: f"module.{key}",
    "data-parallel inside": lambda key: key.replace(ON, f"{ON}module."),
    "compiled and data-parallel": lambda key: f"module._orig_mod.{key}",
    "sharded": lambda key: key.replace(ON, f"_fsdp_wrapped_module.{ON}").replace(".lora", "._fsdp_wrapped_module.lora"),
    "activations computed again": lambda key: key.replace("layers.0.", "layers.0._checkpoint_wrapped_module."),
    "named default": lambda key: key.replace(".weight", ".default.weight"),
    "named spanish": lambda key: key.replace(".weight", ".spanish.weight"),
    "no weight": lambda key: key.removesuffix(".weight"),
    "all at once": lambda key: "_orig_mod.module." + key.replace(ON, f"{ON}_orig_mod.").replace(".weight", ".a_b-1.weight"),
}


@pytest.mark.parametrize("how", WRITINGS)
def test_names_that_wrappers_and_adapters_put_in_are_passed_over(tmp_path: Path, how: str) -> None:
    tensors = plain_tensors(tmp_path / "a")
    wanted = peft_folder.read_factors(tmp_path / "a")
    renamed = {WRITINGS[how](key): tensor for key, tensor in tensors.items()}
    assert renamed.keys().isdisjoint(tensors)
    found = peft_folder.read_factors(put(tmp_path / "a", renamed))
    assert list(found) == list(wanted) == sorted(MODULES)
    for module, item in wanted.items():
        assert torch.equal(item.a_RI, found[module].a_RI) and torch.equal(item.b_OR, found[module].b_OR)


FIRST = f"{ON}{KEYS[0]}.weight"
BAD_KEYS = {
    "two adapters": ({FIRST.replace("lora_A", "lora_A.other"): torch.ones(2, IN)}, "are the same factor"),
    "two adapters of other modules": ({f"{ON}x.lora_A.b.weight": torch.ones(2, IN), f"{ON}x.lora_B.b.weight": torch.ones(OUT, 2)},
                                      "belong to two adapters"),
    "twice, wrapped": ({f"_orig_mod.{FIRST}": torch.ones(2, IN)}, "are the same factor"),
    "twice, bare": ({f"{KEYS[0]}.weight": torch.ones(2, IN)}, "are the same factor"),
    "a magnitude": ({f"{ON}{MODULES[0]}.lora_magnitude_vector": torch.ones(OUT)}, "no LoRA factor"),
    "a bias": ({f"{ON}{MODULES[0]}.lora_B.bias": torch.ones(OUT)}, "no LoRA factor"),
    "an embedding": ({f"{ON}embed.lora_embedding_A": torch.ones(2, IN)}, "no LoRA factor"),
    "a whole module": ({f"{ON}proj_out.weight": torch.ones(OUT, IN)}, "no LoRA factor"),
    "no module": ({"lora_A.weight": torch.ones(2, IN)}, "no LoRA factor"),
    "nothing": ({"": torch.ones(2, IN)}, "no LoRA factor"),
    "wrappers alone": ({"module._orig_mod.weight": torch.ones(2, IN)}, "no LoRA factor"),
    "a path": ({f"{ON}../../x.lora_A.weight": torch.ones(2, IN)}, "no name of a module"),
    "a long name": ({f"{ON}{'x.' * 200}y.lora_A.weight": torch.ones(2, IN)}, "no name of a module"),
    "one factor": ({f"{ON}x.lora_A.weight": torch.ones(2, IN)}, "x has one factor of two"),
    "empty": ({FIRST: torch.empty(0)}, "lora_A.weight is empty.*ZeRO-3"),
    "empty matrix": ({FIRST: torch.empty(0, IN)}, "lora_A.weight is empty.*ZeRO-3"),
    "integers": ({FIRST: torch.ones(2, IN, dtype=torch.int8)}, "no LoRA factor.*int8"),
    "eight bits": ({FIRST: torch.ones(2, IN).to(torch.float8_e4m3fn)}, "F8_E4M3"),
    "a convolution": ({FIRST: torch.ones(2, IN, 3)}, "no LoRA factor"),
    "not finite": ({FIRST: torch.full((2, IN), torch.inf)}, "not finite"),
    "another rank": ({FIRST: torch.ones(3, IN)}, "r = 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_KEYS)
def test_tensors_that_are_no_single_adapter_are_refused_by_name(tmp_path: Path, what: str) -> None:
    tensors, message = BAD_KEYS[what]
    folder = put(write_adapter(tmp_path / "a", 1), plain_tensors(tmp_path / "b") | tensors)
    with pytest.raises(InputError, match=message) as caught:
        peft_folder.read_factors(folder)
    assert str(folder) in caught.value.message


@pytest.mark.parametrize("size", [0, 7, 8, 40, -4, -1, 1])
def test_a_file_that_is_cut_or_too_long_is_refused(tmp_path: Path, size: int) -> None:
    path = write_adapter(tmp_path / "a", 1) / peft_folder.WEIGHTS
    path.write_bytes(path.read_bytes() + b"\0" if size == 1 else path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"cannot read adapter_model\.safetensors"):
        peft_folder.read_factors(tmp_path / "a")
