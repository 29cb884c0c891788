"""Writes a configuration as YAML for people: beside each key what it is, in the schema's own words, and why it has its value."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from wfc_dist.config.reference import NAME, Key, blocks

WIDTH = 120
"""Columns of a line with its comment; a longer comment stands above its key."""
_INDENT = "  "


def commented(
    tree: Mapping[str, Any], reasons: Mapping[str, str], head: str = "", behind: Mapping[str, list[str]] | None = None
) -> str:
    """Returns a configuration as YAML with comments.

    Args:
        tree: The configuration, as `parse` takes it.
        reasons: Path of a key, such as train.lr -> why it has its value.
        head: Sentences for the top of the file.
        behind: Path of a block -> lines of comment at its end.
    """
    lines = [f"# {line}" for line in textwrap.wrap(head, WIDTH - 2)]
    writer = _Writer(reasons, behind or {})
    for key, value in tree.items():
        lines += ["", *writer.lines(key, value, key, "")]
    return "\n".join(lines) + "\n"


class _Writer:
    """Writes keys line by line; what a key means is told once, the first time that it comes."""

    def __init__(self, reasons: Mapping[str, str], behind: Mapping[str, list[str]]) -> None:
        self._reasons, self._behind = reasons, behind
        self._told: set[str] = set()

    def lines(self, key: str, value: Any, path: str, indent: str) -> Iterator[str]:
        """Yields the lines of a key and of what stands below it."""
        if isinstance(value, dict) and _is_block(path):
            yield from self._with_comment(f"{indent}{_scalar(key)}:", path, indent)
            for inner, one in value.items():
                yield from self.lines(inner, one, f"{path}.{inner}", indent + _INDENT)
            for line in self._behind.get(path, ()):
                yield from _above(line, indent + _INDENT)
        else:
            yield from self._with_comment(f"{indent}{_scalar(key)}: {_scalar(value)}", path, indent)

    def _with_comment(self, line: str, path: str, indent: str) -> Iterator[str]:
        comment = "; ".join(filter(None, (self._meaning(path), self._reasons.get(path, ""))))
        if not comment:
            yield line
        elif len(line) + len(comment) + 4 <= WIDTH:
            yield f"{line}  # {comment}"
        else:
            yield from _above(comment, indent)
            yield line

    def _meaning(self, path: str) -> str:
        key, canonical = _key_of(path)
        if key is None or canonical in self._told:
            return ""
        self._told.add(canonical)
        return half_sentence(key.meaning)


def half_sentence(text: str) -> str:
    """Returns a text up to its first full stop, semicolon or colon, without what stands in parentheses."""
    plain = re.sub(r"\s*\([^()]*\)", "", " ".join(text.split()))
    spans = plain.split("`")
    for number, span in enumerate(spans[::2]):
        outside = re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]", lambda match: "x" * len(match[0]), span)
        if end := re.search(r"[.:;](\s|$)", outside):
            spans = [*spans[: 2 * number], span[: end.start()]]
            break
    half = "`".join(spans)
    return half[:1].lower() + half[1:] if half[1:2].islower() or half[:2] == "A " else half


def _above(comment: str, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(comment, WIDTH - len(indent) - 2, break_on_hyphens=False)]


def _is_block(path: str) -> bool:
    """Says whether a block stands below a path, so that its keys have lines of their own; mappings such as `splits` have none."""
    return any(_fits(path, block.path) for block in blocks()) or any(_fits(f"{path}.x", block.path) for block in blocks())


def _key_of(path: str) -> tuple[Key | None, str]:
    """Returns the key of the schema that a path is, and its path in the first block that has such keys."""
    for block in blocks():
        for key in block.keys:
            if _fits(path, key.path):
                return key, f"{block.like}.{key.path.rpartition('.')[2]}"
    return None, ""


def _fits(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(word in (part, NAME) for part, word in zip(parts, wanted, strict=True))


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
