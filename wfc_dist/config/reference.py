"""The reference of the configuration, made from the schema: every key, what it takes, its default, what it means."""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from wfc_dist.config.messages import unknown_key
from wfc_dist.config.schema import Config
from wfc_dist.config.training import leaves
from wfc_dist.errors import ConfigError

NAME = "NAME"
"""Stands for the name that a user gives to an entry, such as a data set."""
ORIGINS = "[P] the paper (arXiv 2506.16574), [C] the authors' code, [H] this project's choice"
DEFAULTS = "those of its keys"
_PLAIN = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null", Any: "value"}
_LIMITS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


@dataclass(frozen=True)
class Key:
    """A key of a configuration.

    Attributes:
        path: Such as `train.lr` or `datasets.NAME.source`.
        takes: What may stand there, in words.
        default: As YAML writes it; None where the key is required.
        origin: Where the default comes from, in the letters of `ORIGINS`; "" where the default says nothing about the method.
        meaning: In sentences.
        may_change: Whether another attempt of a run may have another value.
        may_help: Whether it may after an attempt that has failed, for the round that failed and those after it.
    """

    path: str
    takes: str
    default: str | None
    origin: str
    meaning: str
    may_change: bool
    may_help: bool

    @property
    def change(self) -> str:
        """Returns when another attempt of a run may change it, in a sentence; "" where it never may."""
        if self.may_help:
            return "A resume may change it after a round has failed."
        return "A resume may change it." if self.may_change else ""


@dataclass(frozen=True)
class Block:
    """Keys that stand together.

    Attributes:
        path: Such as `train`; "" for the top of the file.
        meaning: In sentences.
        keys: In the order of the schema.
        like: The path of the first block with these keys.
    """

    path: str
    meaning: str
    keys: tuple[Key, ...]
    like: str


@dataclass(frozen=True)
class _Field:
    """What the source text says of a field: the string below it, and the comment behind its default."""

    meaning: str
    origin: str


@cache
def blocks() -> tuple[Block, ...]:
    """Returns every block of a configuration, each after the one that it stands in."""
    return tuple(_blocks("", Config, (), {}))


def _blocks(
    path: str, model: type[BaseModel], above: Sequence[type[BaseModel]], first: dict[type[BaseModel], str]
) -> Iterator[Block]:  # fmt: skip
    told = _told(model)
    keys, inner = [], []
    for name, field in model.model_fields.items():
        key_path = f"{path}.{name}".lstrip(".")
        keys.append(_key(key_path, field, told[name]))
        for kind, is_named in _models(field.annotation):
            if kind not in above and kind is not model:
                inner.append((f"{key_path}.{NAME}" if is_named else key_path, kind))
    yield Block(path, inspect.cleandoc(model.__doc__ or ""), tuple(keys), first.setdefault(model, path))
    for inner_path, kind in inner:
        yield from _blocks(inner_path, kind, (*above, model), first)


def _key(path: str, field: FieldInfo, told: _Field) -> Key:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        shown: str | None = DEFAULTS
    else:
        shown = None if default is PydanticUndefined else _as_yaml(default)
    meaning = told.meaning or next((inspect.cleandoc(kind.__doc__ or "") for kind, _ in _models(field.annotation)), "")
    changes = [leaves(mark, path, Config) for mark in ("resume", "remedy")]
    return Key(path, _takes(field.annotation, field.metadata), shown, told.origin, meaning, *changes)


@cache
def _told(model: type[BaseModel]) -> dict[str, _Field]:
    text = textwrap.dedent(inspect.getsource(model))
    lines, found = text.splitlines(), {}
    body = ast.parse(text).body[0].body  # type: ignore[attr-defined]
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        value = following.value if isinstance(following, ast.Expr) else None
        meaning = inspect.cleandoc(str(value.value)) if isinstance(value, ast.Constant) else ""
        comment = re.search(r"# (\[[PCH]\].*)$", lines[(node.end_lineno or 1) - 1])
        found[node.target.id] = _Field(meaning, comment[1] if comment else "")
    return found


def _models(annotation: Any) -> list[tuple[type[BaseModel], bool]]:
    """Returns the blocks that a field holds, and whether the user names them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, False)]
    is_named = get_origin(annotation) is dict
    return [(kind, is_named or named) for part in get_args(annotation) for kind, named in _models(part)]


def _takes(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _takes(parts[0], [*metadata, *parts[1:]])
    if origin in (Union, types.UnionType, Literal):
        options = [f"`{part}`" if origin is Literal else _takes(part, metadata) for part in parts]
        return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))
    if origin in (list, tuple):
        return f"list of {' and '.join(_takes(part) for part in parts)}"
    if origin is dict:
        return f"block of {NAME if get_origin(parts[0]) is Annotated else _takes(parts[0])}: {_takes(parts[1])}"
    return _PLAIN.get(annotation, "block") + "".join(_limits(metadata) if annotation in (int, float) else ())


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    for item in [item for one in metadata for item in (one.metadata if isinstance(one, FieldInfo) else [one])]:
        yield from (f", {words} {getattr(item, name)}" for name, words in _LIMITS if hasattr(item, name))


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def find(path: str) -> list[Block]:
    """Returns what a path names: a block with those in it, one key, or every key whose last part it is.

    A block that is there for one of its keys holds that key alone.

    Raises:
        ConfigError: No key has that name; says which one is meant.
    """
    wanted = path.split(".")
    if whole := [block for block in blocks() if block.path and _names(wanted, block.path.split(".")[: len(wanted)])]:
        return whole
    chosen = []
    for block in blocks():
        keys = tuple(key for key in block.keys if _is_key(wanted, key))
        chosen += [replace(block, meaning="", keys=keys, like=block.path)] if keys else []
    if not chosen:
        raise ConfigError(f"{path}: {unknown_key(wanted, Config)}")
    return chosen


def _names(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    return len(wanted) == len(parts) and all(part in (word, NAME) for word, part in zip(wanted, parts, strict=True))


def _is_key(wanted: Sequence[str], key: Key) -> bool:
    parts = key.path.split(".")
    return wanted == parts[-1:] or _names(wanted[: len(parts)] if re.search("block of .*: text", key.takes) else wanted, parts)


def as_text(chosen: Sequence[Block], width: int) -> str:
    """Returns blocks for a terminal of that many columns."""
    lines = []
    for block in chosen:
        if block.meaning:
            lines += ["", *_wrapped(f"{block.path or 'The file'}: {_meaning(block, chosen)}", width, "")]
        for key in _keys(block, chosen):
            default = "required" if key.default is None else f"default {key.default}"
            head = f"{key.path}: {key.takes.replace('`', '')}; {default}{f'  {key.origin}' if key.origin else ''}"
            lines += ["", *_wrapped(head, width, "    "), *(f"    {line}" for line in _wrapped(key.meaning, width - 4, ""))]
            lines += [f"    {key.change}"] if key.change else []
    return "\n".join([*lines[1:], "", *_wrapped(f"Where a default comes from: {ORIGINS}.", width, "")])


def _wrapped(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width, subsequent_indent=indent, break_on_hyphens=False)


def as_markdown(chosen: Sequence[Block]) -> str:
    """Returns blocks as a page of Markdown; links lead to the pages of docs/, from a page beside them."""
    lines = [
        "# Configuration",
        "",
        f"Made from the schema by `wfc config docs --markdown`. Where a default comes from: {ORIGINS}.",
    ]
    for block in chosen:
        lines += ["", f"## {f'`{block.path}`' if block.path else 'The file'}", ""]
        lines += [_linked(_meaning(block, chosen)), ""] if block.meaning else []
        lines += ["| key | takes | default | meaning |", "|---|---|---|---|"] if _keys(block, chosen) else []
        for key in _keys(block, chosen):
            default = (
                f"`{key.default}` {key.origin}".strip() if key.default not in (None, DEFAULTS) else key.default or "required"
            )
            meaning = _linked(" ".join(key.meaning.split())) + (f" **{key.change}**" if key.change else "")
            cells = [f"`{key.path.rpartition('.')[2]}`", key.takes, default, meaning]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _keys(block: Block, chosen: Sequence[Block]) -> tuple[Key, ...]:
    """Returns the keys that are shown of a block: none where another block that is shown has the same."""
    return () if block.like != block.path and any(other.path == block.like for other in chosen) else block.keys


def _meaning(block: Block, chosen: Sequence[Block]) -> str:
    return block.meaning if _keys(block, chosen) else f"The same keys as `{block.like}`."


def _linked(text: str) -> str:
    """Returns a text in which the name of a page of docs/ is a link, and no < outside of backquotes begins a tag."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"docs/([\w-]+)\.md", r"[\1](\1.md)", piece.replace("<", "&lt;")) for piece in pieces[::2]]
    return "`".join(pieces)


def json_schema() -> dict[str, Any]:
    """Returns the JSON schema of a configuration, with the meaning of every key, for editors."""
    schema = Config.model_json_schema()
    models: list[type[BaseModel]] = [Config, *_kinds(Config)]
    kinds = {kind.__name__: kind for kind in models}
    for name, definition in [("Config", schema), *schema["$defs"].items()]:
        for key, told in _told(kinds[name]).items():
            if told.meaning:
                definition["properties"][key]["description"] = " ".join(told.meaning.split())
    return schema


def _kinds(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for kind, _ in _models(field.annotation):
            if kind is not model:
                yield kind
                yield from _kinds(kind)
