"""What is known of a root model: its id and revision on the hub, and its licence, from what lies on this machine."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wfc_dist.storage import durable

CARD = "README.md"
_LICENCES = {"MIT License": "mit", "Apache License": "apache-2.0"}


@dataclass(frozen=True)
class Root:
    """What is known of the root model, base 0.

    Attributes:
        name: How a card calls it: a hub id, or the name of its folder.
        hub_id: Its id on the hub; "" where none is known.
        revision: The commit on the hub that was loaded; "" for a folder.
        licence: A hub licence id; "" where none is known.
        sha256: Of the tensors of base 0.
        is_cast: Base 0 is a copy in another data type.
    """

    name: str
    hub_id: str
    revision: str
    licence: str
    sha256: str
    is_cast: bool

    @property
    def is_on_hub(self) -> bool:
        """Says whether `hub_id` and `revision` load base 0 itself."""
        return bool(self.hub_id and self.revision and not self.is_cast)


def describe_root(facts: Mapping[str, Any]) -> Root:
    """Returns what is known of the root model, from the manifest of base 0 and the files of the root."""
    model, folder = str(facts.get("model", "unknown")), Path(facts.get("root", "unknown"))
    found, sha256 = Path(facts.get("found", folder)), str(facts.get("sha256", "?"))
    is_cast = facts.get("root_tensors") != facts.get("tensors")
    licence = _licence(folder)
    if f"models--{model.replace('/', '--')}" in found.parts:  # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        return Root(model, model, found.name, licence, sha256, is_cast)
    hub_id = _recorded_id(folder)
    return Root(hub_id or Path(model).name, hub_id, "", licence, sha256, is_cast)


def _recorded_id(folder: Path) -> str:
    """Returns the hub id that the manifest of a model folder names; "" where there is none."""
    try:
        manifest = json.loads((folder / durable.MANIFEST).read_text(encoding="utf-8"))
        hub_id = str(manifest["model"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return hub_id if re.fullmatch(r"[\w.-]+/[\w.-]+", hub_id) else ""


def _licence(folder: Path) -> str:
    """Returns the licence that the root's own card names, or that its LICENSE file is; "" where neither is known."""
    card = folder / CARD
    if card.is_file():
        licence = front_matter(card.read_text(encoding="utf-8", errors="replace")).get("license")
        if isinstance(licence, str):
            return licence
    for path in sorted(folder.glob("LICENSE*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        return next((licence for title, licence in _LICENCES.items() if title in text), "")
    return ""


def front_matter(card: str) -> dict[str, Any]:
    """Returns the YAML metadata of a card; {} where there is none."""
    _, separator, rest = card.partition("---\n")
    text, end, _ = rest.partition("\n---\n")
    if not separator or not end:
        return {}
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: such as a date 2026-13-01
        return {}
    return found if isinstance(found, dict) else {}
