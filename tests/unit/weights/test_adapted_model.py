"""An adapter around a Whisper for decoding: the numbers of PEFT's own reader, and adapters of other models refused."""

from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import WhisperForConditionalGeneration

from wfc_dist.errors import InputError
from wfc_dist.weights import peft_folder
from wfc_dist.weights.adapted_model import with_adapter

VARIANTS = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": r".*decoder.*\.fc1", "use_rslora": True, "lora_dropout": 0.5},
    {"target_modules": "all-linear", "rank_pattern": {"fc1": 3, "q_proj": 2}, "alpha_pattern": {"v_proj": 11}},
]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_whisper(tmp_path_factory.mktemp("model"))


def fresh(model_dir: Path) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(model_dir).eval()


def make_adapter(model_dir: Path, out: Path, **settings: object) -> Path:
    model = get_peft_model(fresh(model_dir), LoraConfig(**{"r": 4, "lora_alpha": 6, **settings}))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.2 * torch.randn_like(parameter)
    model.save_pretrained(out)
    return out


def logits(model: torch.nn.Module) -> torch.Tensor:
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_features=features, decoder_input_ids=torch.tensor([[257, 260, 359]])).logits


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_numbers_are_those_of_pefts_reader(model_dir: Path, tmp_path: Path, variant: dict) -> None:
    folder = make_adapter(model_dir, tmp_path / "a", **variant)
    theirs = PeftModel.from_pretrained(fresh(model_dir), folder).eval()
    ours = with_adapter(fresh(model_dir), peft_folder.read_factors(folder), folder).eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert not torch.equal(logits(ours), logits(fresh(model_dir)))
    assert not any(parameter.requires_grad for name, parameter in ours.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("other", [{"d_model": 48}, {"layers": (1, 1)}])
def test_the_adapter_of_another_model_is_refused(model_dir: Path, tmp_path: Path, other: dict) -> None:
    folder = make_adapter(model_dir, tmp_path / "a", target_modules=["q_proj"])
    model = fresh(tiny.make_whisper(tmp_path / "other", **other))
    with pytest.raises(InputError, match=r"q_proj is no linear layer of \[32, 32\] in the base"):
        with_adapter(model, peft_folder.read_factors(folder), folder)
