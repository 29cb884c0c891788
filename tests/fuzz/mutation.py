"""Makes a hostile input of a valid one: bytes are changed, or values of a JSON text or lines of a file are."""

import json
from random import Random
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), "",
    "a", "0", "1e400", "nan", "a\0b", "\ud800", "\u202e", "/dev/zero", "../../x", "x" * 300, "base-0001", "a\nb", [], {}, [[]],
    [None], [0], {"a": 1}, [1, "a"], {"": None}, json.loads("[" * 200 + "]" * 200),
]  # fmt: skip
"""Values where others are expected."""
WORDS = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\n\n", b"%%\n", b'"', b"'", b"{", b"[" * 3000, b"{a: " * 500,
    b":", b"-", b"1e400", b".nan", b".inf", b"nan", b"NaN", b"Infinity", b"-0", b"9" * 30, b"9" * 5000, b"null", b"*a", b"&a ",
    b"<<: ", b"!!python/name:os.system ", b"\xe9", b"\xed\xa0\x80", "\u2028".encode(), b"\x1b[2J", b"[/x]", b"/dev/zero", b"|",
    b" ", b"\t", b",", b"=", b"..", b"2026-13-41", b"0x1f", b"1_0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0",
    b"x" * 300,
]  # fmt: skip
"""Bytes that mean something to a parser."""


def mutated(data: bytes, chance: Random) -> bytes:
    """Returns `data` changed in one to four places."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = _with_other_value(data, chance) if chance.random() < 0.5 else _with_other_bytes(data, chance)
    return data


def _with_other_bytes(data: bytes, chance: Random) -> bytes:
    at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    kind = chance.randrange(6)
    if kind == 0:
        return data[:at] + chance.choice(WORDS) + data[at:]
    if kind == 1:
        return data[:at] + chance.choice(WORDS) + data[at + 1 :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data[:at] + data[min(at + chance.randrange(1, 9), end) :]
    if kind == 4:
        return data[:end] + data[at:end][:200] + data[end:]
    flipped = bytearray(data)
    if flipped:
        flipped[at % len(flipped)] ^= 1 << chance.randrange(8)
    return bytes(flipped)


def _with_other_value(data: bytes, chance: Random) -> bytes:
    """Returns a text of JSON, or one line of a file of JSON lines, with another value, without a key, or with a key twice."""
    lines = data.split(b"\n")
    whole = chance.random() < 0.5
    index = chance.randrange(len(lines))
    try:
        tree = json.loads(data if whole else lines[index])
    except (ValueError, RecursionError):
        return _with_other_bytes(data, chance)
    text = json.dumps(_changed(tree, chance), ensure_ascii=chance.random() < 0.9).encode(errors="surrogatepass")
    if whole:
        return text + b"\n"
    lines[index] = text
    return b"\n".join(lines)


def _changed(tree: Any, chance: Random) -> Any:
    """Returns a tree of which one node is another: each node is as likely."""
    if not isinstance(tree, list | dict) or not tree or chance.random() < 1 / _num_nodes(tree):
        return chance.choice(VALUES)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = chance.choices(keys, [_num_nodes(tree[key]) for key in keys])[0]
    if isinstance(tree, list):
        return [*tree[:key], _changed(tree[key], chance), *tree[key + 1 :]]
    kind = chance.randrange(6)
    if kind == 0:
        return {name: value for name, value in tree.items() if name != key}
    if kind == 1:
        return tree | {str(chance.choice(VALUES))[:300]: tree[key]}
    return tree | {key: _changed(tree[key], chance)}


def _num_nodes(tree: Any) -> int:
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return 1 + min(sum(map(_num_nodes, values)), 1000)
