"""What YAML passes over in silence is refused with its place."""

from pathlib import Path

import pytest

from wfc_dist.config.loading import load_config
from wfc_dist.config.yaml_text import read_yaml, read_yaml_file
from wfc_dist.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lr: 1.0\n  seed: 1\n  lr: 2.0\n", r"'lr' stands in this block already, in line 2(.|\n)*line 4"),
        ("run: {name: a, name: b}\n", "'name' stands in this block already, in line 1"),
        ("- {a: 1}\n- {a: 1, a: 2}\n", "'a' stands in this block already, in line 2"),
        ("train: {lr: .nan}\n", r"x\.yaml: train\.lr is nan; give a finite number"),
        ("train: {lr: -.inf}\n", r"train\.lr is -inf"),
        ("a: [0.5, 1.0e+999]\n", r"a\[1\] is inf"),
        ("train: {max_steps: 99999999999999999999}\n", r"train\.max_steps has 20 digits"),
        ("a: " + "9" * 5000, "digits"),
        ("a: " + "[" * 5000, "nested too deep|not YAML"),
        ("a: &a [*a]\n", "nested too deep"),
        (BOMB, "more than 100000 values"),
        ("a: [1, 2\n", "is not YAML"),
        ("a: 2026-13-41\n", "quotes around the value"),
        ("a: !!python/object/apply:os.system [true]\n", "is not YAML"),
        ("run: {dir: 's3://KEY:hunter2@bucket/runs'}\n", r"run\.dir is a URL with a password"),
        ("run: {dir: 's3://:hunter2@bucket'}\n", "URL with a password"),
    ],
)
def test_doubtful_yaml_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(text, "x.yaml")
    assert caught.value.exit_code == 2 and "hunter2" not in str(caught.value)


def test_what_is_meant_is_read() -> None:
    text = "base: &base {lr: 1.0, r: 4}\nother:\n  <<: *base\n  r: 8\n"
    text += "url: 's3://bucket/a@b:c'\nmail: a:b@c\nbig: 9223372036854775807\n"
    assert read_yaml(text, "x") == {
        "base": {"lr": 1.0, "r": 4}, "other": {"lr": 1.0, "r": 8}, "url": "s3://bucket/a@b:c", "mail": "a:b@c", "big": 2**63 - 1,
    }  # fmt: skip
    assert read_yaml("", "x") is None


def test_a_file_of_another_encoding_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("run:\n  name: français\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml, line 2, is not UTF-8"):
        read_yaml_file(path)
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_config(path)


@pytest.mark.parametrize("override", ["train.lr=.inf", "train.lr=.nan", "run.dir=s3://k:hunter2@b/x", "train={lr: 1, lr: 2}"])
def test_overrides_are_read_as_strictly(tmp_path: Path, override: str) -> None:
    (tmp_path / "x.yaml").write_text("run: {name: x}\n")
    with pytest.raises(ConfigError, match=r"override (train|run)") as caught:
        load_config(tmp_path / "x.yaml", [override])
    assert "hunter2" not in str(caught.value)


def test_no_command_repeats_a_password_or_tries_again(tmp_path: Path) -> None:
    from wfc_dist import open_run

    with pytest.raises(ConfigError, match="the address of the run is a URL with a password") as caught:
        open_run("s3://KEY:hunter2@bucket/runs/x")
    assert "hunter2" not in str(caught.value)
