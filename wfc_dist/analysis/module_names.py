"""Where a module of a model stands, read from its name."""

import re


def place_of(module: str) -> tuple[str, str, int]:
    """Returns (kind, projection, depth) of a module's name, such as ("decoder cross", "v_proj", 3) for Whisper's."""
    *path, projection = module.removeprefix("model.").split(".")
    depth = next((int(part) for part in path if part.isdigit()), -1)
    words = [{"encoder_attn": "cross", "self_attn": "self", "layers": ""}.get(part, part) for part in path if not part.isdigit()]
    return re.sub(" +", " ", " ".join(words)).strip() or "all", projection, depth
