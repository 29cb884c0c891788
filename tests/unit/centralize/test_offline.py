"""`wfc average` and `wfc merge` on adapters made with PEFT, against float64 and against PEFT's own merge."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from wfc_dist.centralize import offline
from wfc_dist.errors import InputError
from wfc_dist.training.model import lora_layers
from wfc_dist.weights import base_chain, checkpoint, peft_folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_whisper(tmp_path_factory.mktemp("model"))


def make_adapter(model_dir: Path, out: Path, seed: int, **settings: object) -> Path:
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **settings}
    model = get_peft_model(WhisperForConditionalGeneration.from_pretrained(model_dir), LoraConfig(**options))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn_like(parameter)
    model.save_pretrained(out)
    return out


def dense_updates(folder: Path) -> dict[str, np.ndarray]:
    """float64, straight from the file."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config["use_rslora"] else config["r"])
    tensors = {key: tensor.numpy().astype("f8") for key, tensor in load_file(folder / "adapter_model.safetensors").items()}
    modules = {key.removeprefix("base_model.model.").removesuffix(".lora_A.weight") for key in tensors if "lora_A" in key}
    key = "base_model.model.{}.lora_{}.weight".format
    return {module: scaling * tensors[key(module, "B")] @ tensors[key(module, "A")] for module in modules}


def test_mean_of_peft_adapters_of_other_shapes_matches_float64(model_dir: Path, tmp_path: Path) -> None:
    folders = [
        make_adapter(model_dir, tmp_path / "1", 1),
        make_adapter(model_dir, tmp_path / "2", 2, r=7, lora_alpha=3),
        make_adapter(model_dir, tmp_path / "3", 3, r=2, lora_alpha=16, use_rslora=True),
    ]
    offline.average(folders, tmp_path / "delta", weights=[1, 2, 3])
    offline.merge(str(model_dir), tmp_path / "delta", tmp_path / "merged")

    root, merged = load_file(model_dir / "model.safetensors"), load_file(tmp_path / "merged" / "model.safetensors")
    updates = [dense_updates(folder) for folder in folders]
    for module in updates[0]:
        expected = sum(share * update[module] for share, update in zip((1 / 6, 2 / 6, 3 / 6), updates, strict=True))
        delta = base_chain.read_delta(tmp_path / "delta")[module].dense().numpy()
        assert np.linalg.norm(delta - expected) <= 1e-12 * np.linalg.norm(expected)
        exact = root[f"{module}.weight"].numpy().astype("f8") + expected
        assert np.linalg.norm(merged[f"{module}.weight"].numpy() - exact) <= 1e-7 * np.linalg.norm(exact)  # one float32 rounding
    untouched = set(root) - {f"{module}.weight" for module in updates[0]}
    assert untouched and all(torch.equal(root[name], merged[name]) for name in untouched)


PATTERNS = {
    "rank_pattern": {"decoder.layers.1.self_attn.q_proj": 3, r"layers\.\d\.encoder_attn\.\w+": 2, "q_proj": 5},
    "alpha_pattern": {"v_proj": 7, "proj": 100, "self_attn.q_proj": 11},  # "proj" is no last part of a name
}


@pytest.mark.parametrize("use_rslora", [False, True])
def test_ranks_and_scalings_by_module_are_read_as_peft_reads_them(model_dir: Path, tmp_path: Path, use_rslora: bool) -> None:
    folder = make_adapter(model_dir, tmp_path / "adapter", 5, use_rslora=use_rslora, **PATTERNS)
    theirs = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(model_dir), folder)
    expected = {name: (layer.r["default"], layer.scaling["default"]) for name, layer in lora_layers(theirs).items()}

    found = {name: (item.a_RI.shape[0], item.scaling) for name, item in peft_folder.read_factors(folder).items()}

    assert found == expected
    assert len(set(found.values())) >= 5  # 2, 3, 4 and 5 with alphas of their own or 8


@pytest.mark.parametrize("variant", [{}, {"use_rslora": True}, {"target_modules": ["k_proj", "fc1"]}, PATTERNS])
def test_merging_one_adapter_is_what_peft_does(model_dir: Path, tmp_path: Path, variant: dict) -> None:
    folder = make_adapter(model_dir, tmp_path / "adapter", 5, **variant)
    offline.merge(str(model_dir), folder, tmp_path / "ours")

    theirs = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(model_dir), folder).merge_and_unload()
    ours = WhisperForConditionalGeneration.from_pretrained(tmp_path / "ours")
    state = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.linalg.norm(state[name] - tensor) <= 1e-6 * torch.linalg.norm(tensor), name  # PEFT multiplies in float32


def test_merged_model_speaks_like_base_plus_adapter(model_dir: Path, tmp_path: Path) -> None:
    folder = make_adapter(model_dir, tmp_path / "adapter", 6)
    offline.merge(str(model_dir), folder, tmp_path / "merged")
    apart = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(model_dir), folder).eval()
    merged = WhisperForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "input_features": torch.randn(1, 80, 3000, generator=generator),
        "decoder_input_ids": torch.tensor([[257, 260, 359]]),
    }
    with torch.no_grad():
        torch.testing.assert_close(merged(**inputs).logits, apart(**inputs).logits, atol=2e-4, rtol=1e-4)  # float32 sums


def test_identical_adapters_merge_to_the_bytes_of_one(model_dir: Path, tmp_path: Path) -> None:
    folder = make_adapter(model_dir, tmp_path / "adapter", 7)
    for method in ("mean", "factor_mean"):
        offline.average([folder] * 3, tmp_path / f"delta-{method}", method=method)
        offline.merge(str(model_dir), tmp_path / f"delta-{method}", tmp_path / f"merged-{method}")
    offline.merge(str(model_dir), folder, tmp_path / "alone")
    alone = (tmp_path / "alone" / "model.safetensors").read_bytes()
    assert (tmp_path / "merged-mean" / "model.safetensors").read_bytes() == alone
    assert (tmp_path / "merged-factor_mean" / "model.safetensors").read_bytes() == alone


def test_half_precision_bases_keep_their_type_or_take_the_one_asked_for(tmp_path: Path) -> None:
    half = tiny.make_whisper(tmp_path / "half", dtype=torch.bfloat16)
    folder = make_adapter(half, tmp_path / "adapter", 8)
    offline.merge(str(half), folder, tmp_path / "kept")
    offline.merge(str(half), folder, tmp_path / "wide", dtype="float32")
    kept, wide = load_file(tmp_path / "kept" / "model.safetensors"), load_file(tmp_path / "wide" / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in wide.values()} == {torch.float32}
    assert all(torch.equal(wide[name].to(torch.bfloat16), kept[name]) for name in kept)
    assert WhisperForConditionalGeneration.from_pretrained(tmp_path / "wide", dtype="auto").dtype == torch.float32


def _spoil(folder: Path, value: float) -> None:
    tensors = load_file(folder / peft_folder.WEIGHTS)
    next(iter(tensors.values()))[0, 0] = value
    save_file(tensors, folder / peft_folder.WEIGHTS, {"format": "pt"})


def _edit_config(folder: Path, **keys: object) -> None:
    config = json.loads((folder / peft_folder.CONFIG).read_text())
    (folder / peft_folder.CONFIG).write_text(json.dumps(config | keys))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: _spoil(folder, float("nan")), "not finite"),
        (lambda folder: _spoil(folder, float("inf")), "not finite"),
        (lambda folder: _edit_config(folder, use_dora=True), "use_dora"),
        (lambda folder: _edit_config(folder, bias="all"), "biases"),
        (lambda folder: _edit_config(folder, r=5), "r = 5"),
        (
            lambda folder: _edit_config(folder, rank_pattern={"decoder.layers.0.encoder_attn.v_proj": 6}),
            "v_proj do not .* r = 6",
        ),
        (lambda folder: _edit_config(folder, peft_type="IA3"), "only LORA"),
        (lambda folder: (folder / peft_folder.CONFIG).unlink(), "not a PEFT adapter"),
        (lambda folder: (folder / peft_folder.WEIGHTS).write_bytes(b"x" * 64), "cannot read"),
        (lambda folder: (folder / peft_folder.WEIGHTS).rename(folder / "adapter_model.bin"), "pickled"),
    ],
)
def test_unusable_adapters_are_refused_and_nothing_is_written(model_dir: Path, tmp_path: Path, spoil, message: str) -> None:
    good, bad = make_adapter(model_dir, tmp_path / "good", 1), make_adapter(model_dir, tmp_path / "bad", 2)
    spoil(bad)
    with pytest.raises(InputError, match=message):
        offline.average([good, bad], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "good"]


def test_adapters_of_other_modules_or_another_model_are_refused(model_dir: Path, tmp_path: Path) -> None:
    first, other = make_adapter(model_dir, tmp_path / "1", 1), make_adapter(model_dir, tmp_path / "2", 2, target_modules=["fc1"])
    with pytest.raises(InputError, match="different modules"):
        offline.average([first, other], tmp_path / "out")
    bigger = tiny.make_whisper(tmp_path / "bigger", d_model=48)
    with pytest.raises(InputError, match="made for another model"):
        offline.merge(str(bigger), first, tmp_path / "out")
    with pytest.raises(InputError, match="2 weights, 1 given"):
        offline.average([first, first], tmp_path / "out", weights=[1])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": math.nan}, "scale nan is not finite"),
        ({"scale": math.inf}, "scale inf is not finite"),
        ({"weights": [math.inf]}, "must be finite"),
        ({"out": "s3://bucket/delta"}, "is a URL"),
    ],
)
def test_numbers_that_are_not_finite_and_urls_are_refused(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_adapter(model_dir, tmp_path / "a", 1)
    with pytest.raises(InputError, match=message):
        offline.average([folder], **{"out": "delta", **options})
    with pytest.raises(InputError, match="one path"):
        offline.average(folder, "delta")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_nothing_is_written_over(model_dir: Path, tmp_path: Path) -> None:
    folder = make_adapter(model_dir, tmp_path / "adapter", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(InputError, match="not written over"):
        offline.average([folder], tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "keep"


def test_pickled_weights_of_a_model_are_not_read(tmp_path: Path, model_dir: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickled weights are not read"):
        checkpoint.resolve_root(str(tmp_path / "model"))
