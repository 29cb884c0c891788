"""Run directories with made-up adapters and averages, for tests of the analysis and its page."""

import torch
from scored_runs import make_config, make_run

from wfc_dist.merging.methods.mean import mean
from wfc_dist.weights import base_chain, peft_folder

MODULES = [f"model.encoder.layers.{depth}.self_attn.{name}" for depth in (0, 10, 2) for name in ("q_proj", "v_proj")]


def put_adapter(folder, round_index, name, seed, *, lora_r=4, zero=False):
    generator = torch.Generator().manual_seed(seed)
    place = folder / f"round-{round_index:04d}" / "adapters" / name
    place.mkdir(parents=True)
    state = {}
    for module in MODULES:
        state[f"base_model.model.{module}.lora_A.weight"] = torch.randn(lora_r, 64, generator=generator)
        state[f"base_model.model.{module}.lora_B.weight"] = torch.randn(48, lora_r, generator=generator) * (not zero)
    peft_folder.write_peft(place, state, {"peft_type": "LORA", "r": lora_r, "lora_alpha": 8})


def put_delta(folder, round_index):
    adapters = folder / f"round-{round_index:04d}" / "adapters"
    loaded = [peft_folder.read_factors(path) for path in sorted(adapters.iterdir())]
    delta = folder / f"round-{round_index:04d}" / "delta"
    delta.mkdir()
    weights = [1 / len(loaded)] * len(loaded)
    base_chain.write_delta(delta, {module: mean([item[module] for item in loaded], weights) for module in MODULES})


def make_run_with_adapters(folder):
    """Writes a run of two rounds: two adapters and their average, then one adapter; returns its directory."""
    run_dir = make_run(folder / "r", make_config(folder))
    for seed, name in enumerate(("cs", "ar")):
        put_adapter(run_dir, 1, name, seed)
    put_delta(run_dir, 1)
    put_adapter(run_dir, 2, "zh", 7)
    return run_dir
