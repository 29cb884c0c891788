"""Random checkpoints and adapters of real sizes: for the merge, size is all that matters."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SHAPES = {
    "whisper-large-v3-turbo": (1280, 32, 4, 51866, 128),
    "whisper-small": (768, 12, 12, 51865, 80),
    "whisper-base": (512, 6, 6, 51865, 80),
}
LANGUAGE_MODEL = "7b"  # a decoder of 6.7 billion parameters, as large language models have them: 32 layers of 4096
MODELS = [*SHAPES, LANGUAGE_MODEL]
"""Name -> d_model, encoder layers, decoder layers, vocabulary, mel bins."""


def tensor_shapes(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields (tensor name, shape) of a Whisper checkpoint."""
    if name == LANGUAGE_MODEL:
        yield from _language_model_shapes()
        return
    d, encoder, decoder, vocab, mels = SHAPES[name]
    yield "model.encoder.conv1.weight", (d, mels, 3)
    yield "model.encoder.conv1.bias", (d,)
    yield "model.encoder.conv2.weight", (d, d, 3)
    yield "model.encoder.conv2.bias", (d,)
    yield "model.encoder.embed_positions.weight", (1500, d)
    yield "model.decoder.embed_tokens.weight", (vocab, d)
    yield "model.decoder.embed_positions.weight", (448, d)
    for part, layers, attentions in (("encoder", encoder, ["self_attn"]), ("decoder", decoder, ["self_attn", "encoder_attn"])):
        for layer in range(layers):
            stem = f"model.{part}.layers.{layer}"
            for attention in attentions:
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    yield f"{stem}.{attention}.{projection}.weight", (d, d)
                    if projection != "k_proj":
                        yield f"{stem}.{attention}.{projection}.bias", (d,)
                yield f"{stem}.{attention}_layer_norm.weight", (d,)
                yield f"{stem}.{attention}_layer_norm.bias", (d,)
            yield f"{stem}.fc1.weight", (4 * d, d)
            yield f"{stem}.fc1.bias", (4 * d,)
            yield f"{stem}.fc2.weight", (d, 4 * d)
            yield f"{stem}.fc2.bias", (d,)
            for end in ("weight", "bias"):
                yield f"{stem}.final_layer_norm.{end}", (d,)
        for end in ("weight", "bias"):
            yield f"model.{part}.layer_norm.{end}", (d,)


def _language_model_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    d, ffn = 4096, 11008
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        yield name, (32000, d)
    for layer in range(32):
        stem = f"model.layers.{layer}"
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{stem}.self_attn.{projection}.weight", (d, d)
        for projection, shape in (("gate_proj", (ffn, d)), ("up_proj", (ffn, d)), ("down_proj", (d, ffn))):
            yield f"{stem}.mlp.{projection}.weight", shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{stem}.{norm}.weight", (d,)
    yield "model.norm.weight", (d,)


def adapted_modules(name: str) -> dict[str, int]:
    """Returns module -> size of its square matrix, for adapters of q and v."""
    ends = ("q_proj.weight", "v_proj.weight")
    return {key.removesuffix(".weight"): shape[0] for key, shape in tensor_shapes(name) if key.endswith(ends)}


def write_checkpoint(folder: Path, name: str, dtype: torch.dtype, num_shards: int = 1) -> Path:
    """Writes a random checkpoint that `from_pretrained` takes, unless it is there; the large one is sparse, all zeros."""
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    shapes = dict(tensor_shapes(name))
    shards = [sorted(shapes)[n::num_shards] for n in range(num_shards)]
    files = [
        f"model-{n + 1:05d}-of-{num_shards:05d}.safetensors" if num_shards > 1 else "model.safetensors" for n in range(num_shards)
    ]
    for file, names in zip(files, shards, strict=True):
        if name == LANGUAGE_MODEL:
            _write_zeros(folder / file, {key: shapes[key] for key in names}, dtype)
            continue
        tensors = {key: (torch.randn(shapes[key], generator=generator) * 0.02).to(dtype) for key in names}
        save_file(tensors, folder / file, {"format": "pt"})
    if num_shards > 1:
        index = {key: file for file, names in zip(files, shards, strict=True) for key in names}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(_config(name, dtype), indent=1))
    return folder


def _write_zeros(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
    """Writes a safetensors file whose data are a hole: its header, and a length."""
    header, offset = {}, 0
    for key, shape in shapes.items():
        end = offset + dtype.itemsize * torch.Size(shape).numel()
        header[key] = {"dtype": {2: "F16", 4: "F32"}[dtype.itemsize], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)


def _config(name: str, dtype: torch.dtype) -> dict[str, Any]:
    if name == LANGUAGE_MODEL:
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": str(dtype).removeprefix("torch.")}
    d, encoder, decoder, vocab, mels = SHAPES[name]
    return {
        "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "d_model": d, "vocab_size": vocab,
        "encoder_layers": encoder, "decoder_layers": decoder, "num_mel_bins": mels, "encoder_attention_heads": d // 64,
        "decoder_attention_heads": d // 64, "encoder_ffn_dim": 4 * d, "decoder_ffn_dim": 4 * d,
        "dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip


def write_adapter(folder: Path, name: str, r: int, seed: int) -> Path:
    """Writes a random PEFT adapter of q and v, unless it is there."""
    from wfc_dist.weights import peft_folder

    if (folder / peft_folder.CONFIG).is_file():
        return folder
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for module, size in adapted_modules(name).items():
        stem = f"base_model.model.{module}"
        state[f"{stem}.lora_A.weight"] = torch.randn((r, size), generator=generator) * 0.02
        state[f"{stem}.lora_B.weight"] = torch.randn((size, r), generator=generator) * 0.002
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 2 * r, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    peft_folder.write_peft(folder, state, config | {"lora_dropout": 0.0, "task_type": None, "base_model_name_or_path": None})
    return folder
