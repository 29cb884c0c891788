"""What a format of `wfc export` is: it writes a folder from a checkpoint, and reads the folder back to transcribe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.evaluation.windows import Audio
from wfc_dist.runs.cards import Use

Reader = Callable[[Audio, str | None], str]
"""Samples and Whisper's language code (None: detected) -> the text that the exported model writes."""


@dataclass(frozen=True)
class Options:
    """What a format may be asked for.

    Attributes:
        quantization: One of the format's; "" for its default.
        shard_size_bytes: The most that one file may hold; None for a single file.
        converter: whisper.cpp's convert-h5-to-ggml.py, or the optimum-cli of an environment for ONNX.
    """

    quantization: str = ""
    shard_size_bytes: int | None = None
    converter: Path | None = None


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        quantizations: What `quantization` may be; the first one is the default.
        write: (checkpoint folder, empty folder, options) -> who made the files, such as "ctranslate2 4.8".
        reader: (written folder, options) -> a function that transcribes with it.
        use: Who loads it, and how, for its card.
        takes: The options it reads, besides `quantization`.
        is_exact: The tensors are the same, so that another text is an error.
    """

    quantizations: tuple[str, ...]
    write: Callable[[Path, Path, Options], str]
    reader: Callable[[Path, Options], Reader]
    use: Use
    takes: tuple[str, ...] = ()
    is_exact: bool = False
