"""What the base's tokenizer says of labels before anything is loaded: their length, and the languages it knows."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from wfc_dist.config.schema import BaseModelConfig
from wfc_dist.data.packing import MAX_TEXT_TOKENS
from wfc_dist.errors import InputError

if TYPE_CHECKING:
    pass


class LabelTokens:
    """Asks the base's tokenizer.json. Without one on this machine nothing is known.

    Args:
        base: A folder, or a hub id whose tokenizer.json is in the hub's cache; nothing is downloaded.

    Raises:
        InputError: The file is no tokenizer.
    """

    def __init__(self, base: BaseModelConfig) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Tokenizer | None = None
        self.knows = cache(self._knows)
        path = _tokenizer_file(base)
        try:
            if path and path.is_file():
                self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise InputError(f"{path} is no tokenizer: {error}; fetch the base again") from error

    def is_too_long(self, text: str) -> bool:
        """Says whether a text has more tokens than the decoder has positions for text."""
        labels = f" {text}"
        if len(labels.encode(errors="replace")) <= MAX_TEXT_TOKENS or self._tokenizer is None:  # a token has at least one byte
            return False
        return len(self._tokenizer.encode(labels, add_special_tokens=False).ids) > MAX_TEXT_TOKENS

    def _knows(self, language: str) -> bool:
        return self._tokenizer is None or self._tokenizer.token_to_id(f"<|{language}|>") is not None


def _tokenizer_file(base: BaseModelConfig) -> Path | None:
    if Path(base.model).is_dir():
        return Path(base.model, "tokenizer.json")
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(base.model, "tokenizer.json", revision=base.revision)
    except HFValidationError:  # the error comes when the run is opened
        return None
    return Path(path) if isinstance(path, str) else None
