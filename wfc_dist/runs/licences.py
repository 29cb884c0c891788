"""The licences of data sets, for model cards: what the configuration says, or the data set's own card. Nothing is guessed."""

from pathlib import Path

from wfc_dist.config.datasets import DatasetConfig, is_licence
from wfc_dist.runs.root_model import CARD, front_matter


def licences_of(data: DatasetConfig) -> tuple[str, ...]:
    """Returns the licences of a data set, of a mix those of its parts, each once; "" stands for one that is not known.

    A data set's own card is the README.md in the folder of `source`, or, of a hub data set, the one in the hub's cache on this
    machine. A file LICENSE counts for nothing: it may be that of a program which lies beside the data.
    """
    if data.licence:
        return (data.licence,)
    if data.parts:
        return tuple(dict.fromkeys(licence for part in data.parts.values() for licence in licences_of(part)))
    card = _card(data)
    found = front_matter(card.read_text(encoding="utf-8", errors="replace")).get("license") if card is not None else None
    named = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(str(licence) for licence in named if is_licence(licence)) or ("",)


def _card(data: DatasetConfig) -> Path | None:
    """Returns the card of a data set on this machine; None where there is none."""
    here = Path(data.source) / CARD
    if here.is_file() or data.format != "hub":
        return here if here.is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(data.source, CARD, repo_type="dataset", revision=data.revision)
    except HFValidationError:  # no name that a hub data set can have
        return None
    return Path(cached) if isinstance(cached, str) else None
