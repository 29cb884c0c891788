"""A Whisper model that turns pieces of audio into texts: greedy or beam search, with the language given or detected."""

import contextlib
import copy
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput

from wfc_dist.data.audio_files import RATE_HZ
from wfc_dist.evaluation.windows import Audio

_NGRAM = 4  # tokens; no n-gram of this length is written twice where `repeats` is False


class _Float32Head(torch.nn.Module):
    """The last product, of hidden states and all tokens' embeddings, in float32: logits in bfloat16 would be full of ties."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Returns (..., vocabulary) float32 of (..., width)."""
        return torch.nn.functional.linear(hidden.float(), self.weight)


def in_bfloat16(model: Any) -> Any:
    """Returns a Whisper whose layers calculate in bfloat16, its logits in float32. The model itself is unchanged.

    Args:
        model: A WhisperForConditionalGeneration, or a PeftModel around one. One that is in half precision is returned as it is.
    """
    whisper = _whisper(model)
    if whisper.dtype != torch.float32:
        return whisper
    tensors = itertools.chain(whisper.parameters(), whisper.buffers())
    # What deepcopy finds in its memo it takes, so that no second copy in float32 is ever made, and ties stay.
    memo: dict[int, Any] = {id(tensor): _rounded(tensor) for tensor in tensors if tensor.is_floating_point()}
    head = _Float32Head(whisper.proj_out.weight)
    rounded = copy.deepcopy(whisper, memo)
    rounded.proj_out = head
    return rounded.eval()


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    rounded = tensor.detach().to(torch.bfloat16)
    return torch.nn.Parameter(rounded, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else rounded


def _whisper(model: Any) -> Any:
    """Returns the Whisper in a PeftModel, which replaces layers of it, so that the Whisper generates with the adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


class Decoder:
    """A model, its processor and the options of its search.

    Args:
        model: A WhisperForConditionalGeneration, or a PeftModel around one, in eval mode.
        processor: Of the same checkpoint.
        device: Where the features go; by default where the model is.
        num_beams: 1 is greedy.
        no_repeat_ngram_size: Tokens of an n-gram that is never written twice; 0 allows all.

    Attributes:
        tokenizer: The model's.
        multilingual: Whether the model's prompt names a language.
    """

    def __init__(
        self,
        model: Any,
        processor: WhisperProcessor,
        device: torch.device | str | None = None,
        num_beams: int = 1,
        no_repeat_ngram_size: int = 0,
    ) -> None:
        self._model = _whisper(model)
        self._processor, self._device = processor, device or self._model.device
        self.tokenizer: WhisperTokenizer = processor.tokenizer
        self._config: Any = _generation_config(self._model, num_beams, no_repeat_ngram_size)
        self.multilingual = bool(getattr(self._config, "is_multilingual", True))

    def features(self, pieces: Sequence[Audio]) -> torch.Tensor:
        """Returns log-mel features, (pieces, n_mels, 3000), float32, on the CPU."""
        extracted = self._processor.feature_extractor(list(pieces), sampling_rate=RATE_HZ, return_tensors="pt")
        return extracted["input_features"]

    @torch.inference_mode()
    def texts(
        self, features: torch.Tensor, languages: Sequence[str] | None, *, repeats: bool = True
    ) -> tuple[list[str], list[str]]:
        """Returns the texts of pieces, and the languages detected ("" where they are given).

        Args:
            features: From `features`.
            languages: Whisper's code of every piece; None detects them.
            repeats: False writes no n-gram of 4 tokens twice.
        """
        features = features.to(device=self._device, dtype=self._model.dtype)
        mask = torch.ones(features.shape[0], features.shape[-1], dtype=torch.long, device=self._device)
        options: dict[str, Any] = {}
        inputs: torch.Tensor | None = features
        if features.device.type == "cpu":
            inputs, options["encoder_outputs"] = None, self._encoded(features)
        detected = [""] * len(features)
        if self.multilingual:
            if languages is None:
                languages = detected = self._detected(inputs, options.get("encoder_outputs"))
            options |= {"language": list(languages), "task": "transcribe"}
        config = copy.deepcopy(self._config)
        if not repeats:
            config.no_repeat_ngram_size = _NGRAM
        with _without_own_advice():
            tokens = self._model.generate(inputs, generation_config=config, attention_mask=mask, **options)
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)], detected

    def _detected(self, features: torch.Tensor | None, encoded: BaseModelOutput | None) -> list[str]:
        ids = self._model.detect_language(features, encoder_outputs=encoded, generation_config=self._config).tolist()
        return [token.strip("<|>") for token in self.tokenizer.convert_ids_to_tokens(ids)]

    def _encoded(self, features: torch.Tensor) -> BaseModelOutput:
        """Returns the encoder's states. They are computed one piece at a time: the states of one fit into a core's caches."""
        encoder = self._model.get_encoder()
        return BaseModelOutput(torch.cat([encoder(piece).last_hidden_state for piece in features.split(1)]))


def _generation_config(model: WhisperForConditionalGeneration, num_beams: int, no_repeat_ngram_size: int) -> GenerationConfig:
    config: Any = copy.deepcopy(model.generation_config)
    config.num_beams, config.no_repeat_ngram_size, config.do_sample = num_beams, no_repeat_ngram_size or None, False
    config.return_timestamps = False
    config.forced_decoder_ids = None  # old checkpoints have them; language and task are given instead
    prompt_length = 4 if getattr(config, "is_multilingual", True) else 2  # start, language, task, no timestamps
    # Transformers adds the prompt to max_length: together exactly the positions the decoder has.
    config.max_length, config.max_new_tokens = model.config.max_target_positions - prompt_length, None
    return config


@contextlib.contextmanager
def _without_own_advice() -> Iterator[None]:
    """Drops the warning that Transformers' Whisper raises about its own call of the generic generate; no caller can avoid it."""
    logger = logging.getLogger("transformers.generation.utils")

    def keep(record: logging.LogRecord) -> bool:
        return "Passing `generation_config` together" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
