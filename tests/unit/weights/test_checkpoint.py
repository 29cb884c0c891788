"""The check of a base: a part that is missing, wrapped, damaged or of another model is refused by its name, before anything."""

import json
import logging
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from wfc_dist.errors import InputError
from wfc_dist.weights import checkpoint, companions

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LAYER = "model.decoder.layers.1.fc1.weight"
USES = ("decode", "merge", "train")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_whisper(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


def edit(folder: Path, file: str, **keys: object) -> None:
    """Sets keys of a JSON file; None takes them out."""
    tree = json.loads((folder / file).read_text()) | keys
    (folder / file).write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


def put(folder: Path, tensors: Mapping[str, torch.Tensor], file: str = WEIGHTS) -> None:
    save_file(dict(tensors), folder / file, {"format": "pt"})


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Sets tensors, named with _ for a dot where they are in `_NAMES`; None takes them out."""
    found = load_file(folder / WEIGHTS) | {_NAMES.get(name, name): tensor for name, tensor in tensors.items()}
    put(folder, {name: tensor for name, tensor in found.items() if tensor is not None})


_NAMES = {"layer": LAYER, "head": "proj_out.weight", "embedding": "model.decoder.embed_tokens.weight"}


def rename(folder: Path, change_name: Callable[[str], str]) -> None:
    put(folder, {change_name(name): tensor for name, tensor in load_file(folder / WEIGHTS).items()})


def shard(folder: Path, **index: str | None) -> None:
    """Splits the weights into two files; `index` sets files of tensors as `change` names them, None takes a tensor out."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    halves = {"a.safetensors": sorted(tensors)[::2], "b.safetensors": sorted(tensors)[1::2]}
    for file, names in halves.items():
        put(folder, {name: tensors[name] for name in names}, file)
    where: dict[str, Any] = {name: file for file, names in halves.items() for name in names}
    where |= {_NAMES.get(name, name): file for name, file in index.items()}
    (folder / INDEX).write_text(json.dumps({"weight_map": {name: file for name, file in where.items() if file is not None}}))


def refusal(folder: Path, use: Any = "train") -> str:
    with pytest.raises(InputError) as caught:
        checkpoint.check(folder, use)
    assert folder.name in caught.value.message
    return caught.value.message


def twice(folder: Path) -> None:
    """Puts a tensor of the second shard into the first one too, and the other way round."""
    shard(folder)
    first, second = (load_file(folder / file) for file in ("a.safetensors", "b.safetensors"))
    put(folder, second | {min(first): first[min(first)]}, "b.safetensors")


WHOLE: dict[str, Callable[[Path], object]] = {
    "as it is": lambda folder: None,
    "in shards": shard,
    "with the tied head": lambda folder: change(folder, head=load_file(folder / WEIGHTS)[_NAMES["embedding"]]),
    "a head of its own": lambda folder: (
        change(folder, head=torch.ones_like(load_file(folder / WEIGHTS)[_NAMES["embedding"]])),
        edit(folder, "config.json", tie_word_embeddings=False),
    ),
    "half precision": lambda folder: put(folder, {name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}),
    "mixed precision": lambda folder: change(folder, layer=load_file(folder / WEIGHTS)[LAYER].bfloat16()),
    "no generation_config.json": lambda folder: (folder / "generation_config.json").unlink(),
    "no tokenizer_config.json": lambda folder: (folder / "tokenizer_config.json").unlink(),
    "the preprocessor of later releases": lambda folder: (
        (folder / "processor_config.json").write_text(
            json.dumps({"feature_extractor": json.loads((folder / "preprocessor_config.json").read_text())})
        ),
        (folder / "preprocessor_config.json").unlink(),
    ),
    "a pickled copy beside it": lambda folder: (folder / "pytorch_model.bin").write_bytes(b"never read"),
    "another precision beside it": lambda folder: (folder / "model.fp32-00001-of-00002.safetensors").write_bytes(b"never read"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", WHOLE)
def test_whole_checkpoints_pass(folder: Path, what: str, use: Any) -> None:
    WHOLE[what](folder)
    checkpoint.check(folder, use)


FORMS = {
    "distilled": {"layers": (4, 2)},
    "large-v3": {"num_mel_bins": 128, "vocab_size": 51866},
    "turbo": {"num_mel_bins": 128, "vocab_size": 51866, "layers": (4, 1), "dtype": torch.float16},
    "large-v2": {"vocab_size": 51865, "heads": 4},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_whisper_passes(tmp_path: Path, form: str) -> None:
    checkpoint.check(tiny.make_whisper(tmp_path / form, **FORMS[form]))  # type: ignore[arg-type]


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "compiled": (lambda folder: rename(folder, lambda name: f"_orig_mod.{name}"), "prefix _orig_mod.*rename"),
    "compiled inside": (lambda folder: rename(folder, lambda name: name.replace("model.", "model._orig_mod.")), "_orig_mod"),
    "data-parallel": (lambda folder: rename(folder, lambda name: f"module.{name}"), "prefix module.*unwrap"),
    "sharded": (lambda folder: rename(folder, lambda name: f"_fsdp_wrapped_module.{name}"), "prefix _fsdp_wrapped_module"),
    "one layer compiled": (
        lambda folder: rename(folder, lambda name: name.replace("layers.1.", "layers.1._orig_mod.")), "prefix _orig_mod"),
    "another prefix": (lambda folder: rename(folder, lambda name: f"whisper.{name}"), "disagree: .* missing"),
    "a tensor missing": (lambda folder: change(folder, layer=None), rf"disagree: {LAYER} is missing"),
    "a layer missing": (
        lambda folder: put(folder, {k: v for k, v in load_file(folder / WEIGHTS).items() if "decoder.layers.1" not in k}),
        r"decoder\.layers\.1\..* and \d+ more are missing"),
    "nothing there": (lambda folder: put(folder, {}), "missing"),
    "one tensor more": (lambda folder: change(folder, **{"model.decoder.lora_A": torch.ones(1)}), "decoder.lora_A is not in"),
    "another shape": (lambda folder: change(folder, layer=torch.ones(32, 64)), rf"{LAYER}: its shape is \[32, 64\], \[64, 32\]"),
    "an empty tensor": (lambda folder: change(folder, layer=torch.empty(0)), "fc1.weight is empty.*ZeRO-3"),
    "integers": (lambda folder: change(folder, layer=torch.ones(64, 32, dtype=torch.int8)), "torch.int8"),
    "eight bits": (lambda folder: change(folder, layer=torch.ones(64, 32).to(torch.float8_e5m2)), "fc1.weight.*F8_E5M2.*convert"),
    "a head that is not tied": (lambda folder: change(folder, head=torch.ones(364, 32)), "proj_out.weight differs from"),
    "no head, not tied": (lambda folder: edit(folder, "config.json", tie_word_embeddings=False), "proj_out.weight is missing"),
    "cut off": (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-4000]), WEIGHTS),
    "too long": (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"\0"), WEIGHTS),
    "a header alone": (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:900]), WEIGHTS),
    "empty file": (lambda folder: (folder / WEIGHTS).write_bytes(b""), WEIGHTS),
    "pickled": (lambda folder: (folder / WEIGHTS).rename(folder / "pytorch_model.bin"), "pickled weights.*save_pretrained"),
    "another model's weights": (lambda folder: edit(folder, "config.json", encoder_layers=1), "encoder.layers.1.*not in the"),
    "a shard missing": (lambda folder: (shard(folder), (folder / "b.safetensors").unlink()), "b.safetensors"),
    "a shard cut off": (
        lambda folder: (shard(folder), (folder / "b.safetensors").write_bytes((folder / "b.safetensors").read_bytes()[:-8])),
        "b.safetensors has .* cut off"),
    "a tensor not in its shard": (lambda folder: shard(folder, **{"model.x": "a.safetensors"}), "a.* has no tensor model.x"),
    "a tensor not in the index": (lambda folder: shard(folder, layer=None), "holds .*fc1.weight, which .* does not name"),
    "a tensor in two shards": (twice, "which .* reads from a.safetensors"),
    "one file and an index": (
        lambda folder: (shutil.copy(folder / WEIGHTS, folder / "x"), shard(folder), (folder / "x").rename(folder / WEIGHTS)),
        "holds both"),
    "a shard outside": (lambda folder: shard(folder, layer="../x.safetensors"), "weight_map"),
    "an adapter's leftover": (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds adapter_config.json"),
    "another kind of model": (lambda folder: edit(folder, "config.json", model_type="wav2vec2"), "model_type is 'wav2vec2'"),
    "no kind of model": (lambda folder: edit(folder, "config.json", model_type=None), "model_type is None"),
    "a decoder alone": (lambda folder: edit(folder, "config.json", is_encoder_decoder=False), "is_encoder_decoder"),
    "quantized": (lambda folder: edit(folder, "config.json", quantization_config={"bits": 4}), "quantized"),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    "half a minute less": (lambda folder: edit(folder, "config.json", max_source_positions=750), "30 s"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.*tokenizer.json"),
    "no preprocessor": (lambda folder: (folder / "preprocessor_config.json").unlink(), "no feature extractor.*preprocessor"),
    "too few embeddings": (
        lambda folder: (change(folder, embedding=torch.ones(300, 32)), edit(folder, "config.json", vocab_size=300)),
        "tokenizer has 364 tokens, the model vocab_size 300"),
    "another start": (lambda folder: edit(folder, "config.json", decoder_start_token_id=9), "decoder_start_token_id is 9"),
    "another end": (lambda folder: edit(folder, "config.json", eos_token_id=[9, 10]), "eos_token_id is"),
    "no padding": (lambda folder: edit(folder, "config.json", pad_token_id=364), "pad_token_id is 364"),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_used_is_refused_by_name(folder: Path, what: str, use: Any) -> None:
    spoil, message = BROKEN[what]
    spoil(folder)
    found = refusal(folder, use)
    assert re.search(message, found), found


def test_names_without_the_prefix_of_the_head_are_for_decoding_alone(folder: Path) -> None:
    rename(folder, lambda name: name.removeprefix("model."))
    checkpoint.check(folder, "decode")
    for use in ("merge", "train"):
        assert "lack the prefix model." in refusal(folder, use)


@pytest.mark.parametrize("sign", [{"is_multilingual": False}, {"is_multilingual": False, "lang_to_id": None, "task_to_id": None}])
def test_an_english_only_model_is_not_trained(folder: Path, sign: dict) -> None:
    edit(folder, "generation_config.json", **sign)
    checkpoint.check(folder, "decode")
    assert "English-only" in refusal(folder, "train")


def test_the_vocabulary_alone_says_english_only(tmp_path: Path) -> None:
    folder = tiny.make_whisper(tmp_path / "model", vocab_size=companions.ENGLISH_VOCABULARY)
    (folder / "generation_config.json").unlink()
    checkpoint.check(folder, "merge")
    assert "English-only" in refusal(folder, "train")


def test_what_is_filled_in_is_said_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit(folder, "generation_config.json", lang_to_id=None, task_to_id=None)
    with caplog.at_level(logging.INFO, "wfc_dist"):
        checkpoint.check(folder)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: lang_to_id, task_to_id come from the tokenizer, generation_config.json lacks them"
    ]


WRONG = [None, True, "x", 0, -1, 1.5, [], {}, [[]], 10**30, float("nan"), float("inf"), "x" * 5000]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize(
    "key", [*checkpoint._MOST, "pad_token_id", "decoder_start_token_id", "activation_function", *checkpoint._RATES]
)
def test_absurd_values_are_refused_or_harmless(folder: Path, key: str, value: object) -> None:
    tree = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(tree))
    try:
        checkpoint.check(folder)
    except InputError as error:
        assert "config.json" in error.message
    else:
        assert key in (*checkpoint._RATES, "pad_token_id")


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'{"a":' + b"[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", INDEX])
def test_damaged_files_are_named(folder: Path, file: str, data: bytes) -> None:
    if file == INDEX:
        shard(folder)
    (folder / file).write_bytes(data)
    assert file in refusal(folder)


@pytest.mark.parametrize("weight_map", [None, [], "a.safetensors", {"x": 1}, {"x": "/etc/passwd"}, {"x": "a/b.safetensors"}, {}])
def test_an_index_that_is_none_is_refused(folder: Path, weight_map: object) -> None:
    shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert "weight_map" in refusal(folder) or weight_map == {}


def test_no_model_at_all(tmp_path: Path) -> None:
    assert "neither model.safetensors nor" in refusal(tmp_path)
    with pytest.raises(InputError, match="is no folder and the hub did not give it"):
        checkpoint.resolve_root("no such/name/at all")
