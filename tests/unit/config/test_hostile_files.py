"""Files that are no configuration, comparison or sweep: refused with exit code 2 and their place, whatever they hold."""

from collections.abc import Callable
from pathlib import Path

import pytest

from wfc_dist.compare import settings, sweep
from wfc_dist.config.loading import load_config
from wfc_dist.errors import ConfigError

READERS = {"configuration": load_config, "comparison": settings.load, "sweep": sweep.load}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
FILES: dict[str, tuple[bytes, str]] = {
    "Latin-1": ("run:\n  name: français\n".encode("latin-1"), "line 2, is not UTF-8"),
    "UTF-16": ("run: {name: x}\n".encode("utf-16"), "line 1, is not UTF-8"),
    "a NUL": (b"run: {name: a\0b}\n", "special characters are not allowed"),
    "an escaped NUL": (b'run: {name: "a\\0b"}\n', "run.name has a NUL character"),
    "half a pair": (b'run: {dir: "\\ud800"}\n', "run.dir has a character that is not UTF-8"),
    "brackets": (b"a: " + b"[" * 100_000, "nested too deep"),
    "braces": (b"a: " + b"{a: " * 100_000, "nested too deep"),
    "indents": (b"\n".join(b" " * depth + b"a:" for depth in range(1500)), "nested too deep"),
    "aliases": (BOMB.encode(), "more than 100000 values"),
    "part of itself": (b"a: &a {b: *a}\n", "nested too deep"),
    "a key twice": (b"run:\n  name: x\n  name: y\n", "line 3"),
    "many megabytes": (b"# " + b"x" * (5 << 20), "more than 4 MiB"),
    "nothing": (b"", "expected blocks"),
    "a list": (b"- run\n", "expected blocks"),
    "a number": (b"7\n", "expected blocks"),
    "a key of a list": (b"[a, b]: 1\n", "not YAML"),
    "a program": (b"run: !!python/object/apply:os.system [true]\n", "not YAML"),
}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("name", FILES)
def test_it_is_refused_with_its_place(tmp_path: Path, kind: str, name: str) -> None:
    data, place = FILES[name]
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    reader: Callable[..., object] = READERS[kind]
    with pytest.raises(ConfigError, match=place) as caught:
        reader(path)
    assert caught.value.exit_code == 2 and "x.yaml" in str(caught.value) and len(str(caught.value)) < 9000


def test_a_device_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 4 MiB"):
        load_config("/dev/zero")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfrun: {name: x}\n")
    with pytest.raises(ConfigError, match="base: is missing"):
        load_config(path)
