"""Models as they lie on disks: the text of the whole model, or a refusal that names what is wrong; no random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation import any_model, decoding
from wfc_dist.evaluation.transcribing import transcribe
from wfc_dist.weights import peft_folder

RATE, GENERATION = 16_000, "generation_config.json"
IDS = ("lang_to_id", "task_to_id", "no_timestamps_token_id", "is_multilingual")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("speech") / "a.wav"
    sf.write(path, 0.1 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32), RATE)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose text depends on its layers."""
    folder = tiny.make_whisper(tmp_path_factory.mktemp("whole"), positions=20)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "layers." in name and tensor.dim() == 2:
            tensors[name] = 15 * tensor
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture(scope="module")
def adapter(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = get_peft_model(
        WhisperForConditionalGeneration.from_pretrained(whole),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "fc1", "out_proj"]),
    )
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter)
    model.save_pretrained(out := tmp_path_factory.mktemp("adapter"))
    return out


def text_of(model: Path, speech: Path, language: str | None = "en") -> str:
    return next(transcribe(model, [speech], language=language)).text


def edit(path: Path, **keys: object) -> None:
    tree = json.loads(path.read_text()) | keys
    path.write_text(json.dumps({key: value for key, value in tree.items() if value is not None}))


MADE_UP_FOR: dict[str, Callable[[Path], object]] = {
    "no generation_config.json": lambda folder: (folder / GENERATION).unlink(),
    "that of early releases": lambda folder: edit(folder / GENERATION, **dict.fromkeys(IDS)),
    "no languages": lambda folder: edit(folder / GENERATION, lang_to_id=None),
    "no prefix of the head": lambda folder: save_file(
        {name.removeprefix("model."): tensor for name, tensor in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
    ),
}


@pytest.mark.parametrize("language", ["en", None])
@pytest.mark.parametrize("what", MADE_UP_FOR)
def test_the_text_is_that_of_the_whole_model(whole: Path, folder: Path, speech: Path, what: str, language: str | None) -> None:
    wanted = text_of(whole, speech, language)
    MADE_UP_FOR[what](folder)
    assert text_of(folder, speech, language) == wanted


def test_other_layers_write_another_text(whole: Path, folder: Path, speech: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {name: -tensor for name, tensor in tensors.items() if "layers.1.fc" in name}, folder / "model.safetensors"
    )
    assert text_of(folder, speech) != text_of(whole, speech)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "no feature extractor"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer"),
        (lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}'), "holds adapter_config.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "model.safetensors cannot be read"),
        (lambda folder: edit(folder / "config.json", decoder_layers=3), "decoder.layers.2.* missing"),
    ],
)
def test_what_is_not_whole_is_refused(folder: Path, speech: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(folder)
    with pytest.raises(InputError, match=message):
        text_of(folder, speech)


def test_an_adapter_writes_what_pefts_reader_makes_it_write(whole: Path, adapter: Path, speech: Path) -> None:
    model = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(whole), adapter).eval()
    samples = sf.read(speech, dtype="float32")[0]
    wanted, _ = decoding.transcribe_clip(model, WhisperProcessor.from_pretrained(whole), samples, "en")
    assert text_of(adapter, speech) == wanted != text_of(whole, speech)


def test_a_wrapped_and_named_adapter_writes_what_the_plain_one_does(adapter: Path, speech: Path, tmp_path: Path) -> None:
    wrapped = shutil.copytree(adapter, tmp_path / "wrapped")
    tensors = load_file(wrapped / peft_folder.WEIGHTS)
    renamed = {f"_orig_mod.{name.replace('.weight', '.spanish.weight')}": tensor for name, tensor in tensors.items()}
    save_file(renamed, wrapped / peft_folder.WEIGHTS, {"format": "pt"})
    assert text_of(wrapped, speech) == text_of(adapter, speech)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: edit(folder / peft_folder.CONFIG, base_model_name_or_path="/no/such/folder"), "is no folder"),
        (lambda folder: edit(folder / peft_folder.CONFIG, base_model_name_or_path=None), "names no base"),
        (lambda folder: edit(folder / peft_folder.CONFIG, base_model_name_or_path=["a"]), "names no base"),
        (lambda folder: edit(folder / peft_folder.CONFIG, revision=3), "names no base"),
        (lambda folder: edit(folder / peft_folder.CONFIG, init_lora_weights="pissa"), "pissa"),
        (lambda folder: edit(folder / peft_folder.CONFIG, rank_pattern={"(a+)+$": 4}), "rank_pattern"),
        (lambda folder: (folder / peft_folder.CONFIG).write_bytes(b"[]"), "not a PEFT adapter"),
        (lambda folder: (folder / peft_folder.WEIGHTS).unlink(), r"cannot read adapter_model\.safetensors"),
        (
            lambda folder: (folder / peft_folder.WEIGHTS).write_bytes((folder / peft_folder.WEIGHTS).read_bytes()[:-64]),
            r"adapter_model\.safetensors has .* cut off",
        ),
        (
            lambda folder: save_file(
                {name: tensor[:, :2].contiguous() for name, tensor in load_file(folder / peft_folder.WEIGHTS).items()},
                folder / peft_folder.WEIGHTS,
            ),
            "r = 4",
        ),
    ],
)
def test_a_damaged_or_hostile_adapter_is_refused(
    adapter: Path, speech: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    spoil(folder)
    with pytest.raises(InputError, match=message):
        text_of(folder, speech)


@pytest.mark.timeout(60)
def test_regular_expressions_of_a_foreign_adapter_are_not_run(adapter: Path, speech: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    edit(folder / peft_folder.CONFIG, target_modules="(model|decoder|.*)*(.*)*x", exclude_modules="((a|.)*)*x")
    assert text_of(folder, speech) == text_of(adapter, speech)


def make_config(root: Path, **dataset: object) -> Config:
    tiny.make_dataset(root / "a", seed=0, language="es", train=1, test=1)
    return loading.parse(
        {
            "run": {"name": "x"},
            "base": {"model": "none"},
            "datasets": {"a": {"source": str(root / "a"), "splits": {"train": "train.jsonl", "test": "test.jsonl"}, **dataset}},
            "rounds": [["a"]],
        }
    )


def test_an_english_only_model_is_not_asked_for_another_language(folder: Path, speech: Path, tmp_path: Path) -> None:
    edit(folder / GENERATION, is_multilingual=False, lang_to_id=None, task_to_id=None)
    assert text_of(folder, speech) == text_of(folder, speech, None)  # decoded with the prompt that it knows
    with pytest.raises(InputError, match=r"language 'es': .* is an English-only model"):
        text_of(folder, speech, "es")
    with pytest.raises(InputError, match=r"language 'es': .* is an English-only model"):
        any_model.evaluate(folder, make_config(tmp_path))
    assert any_model.evaluate(folder, make_config(tmp_path / "en", language="en")).keys() == {"a"}


def test_a_language_that_the_model_has_no_token_for_is_refused(folder: Path, speech: Path) -> None:
    languages = json.loads((folder / GENERATION).read_text())["lang_to_id"]
    edit(folder / GENERATION, lang_to_id={key: value for key, value in languages.items() if key != "<|yue|>"})
    for language in ("yue", "Cantonese"):
        with pytest.raises(InputError, match=r"language 'yue'.*has no token for it"):
            text_of(folder, speech, language)
    for language in ("xx", ""):
        with pytest.raises(InputError, match=rf"language '{language}' is none of Whisper's languages"):
            text_of(folder, speech, language)
    assert text_of(folder, speech, "English") == text_of(folder, speech)


def test_a_configuration_without_test_sets_is_refused_with_the_key(folder: Path) -> None:
    splits = {"source": "x", "splits": {"train": "t"}}
    config = loading.parse({"run": {"name": "r"}, "base": {"model": "m"}, "datasets": {"es": splits}, "rounds": [["es"]]})
    with pytest.raises(ConfigError, match=r"no test set to score on; set datasets\.es\.splits\.test, or name sets in evaluate\."):
        any_model.evaluate(folder, config)


def test_a_file_url_is_the_folder(folder: Path) -> None:
    assert any_model.load_model(f"file://{folder}").folder == folder
