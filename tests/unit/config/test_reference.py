"""The reference of the configuration is whole, finds what is asked for, and is what the command prints."""

import re
import sys
import textwrap
from typing import Any

import pytest

from wfc_dist.cli import main
from wfc_dist.config import reference
from wfc_dist.config.schema import Config
from wfc_dist.config.training import marked
from wfc_dist.errors import ConfigError

KEYS = {key.path: key for block in reference.blocks() for key in block.keys}


def printed(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["wfc", "config", *words])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("path", KEYS)
def test_every_key_has_a_meaning_in_sentences(path: str) -> None:
    key = KEYS[path]
    assert len(key.meaning.split()) >= 3, "a string below the field in the schema says what it is"
    assert key.takes
    assert key.default is not None or key.path in ("run", "base", "datasets", "rounds", "run.name", "base.model")


def test_keys_say_what_they_take_and_where_a_default_comes_from() -> None:
    assert (KEYS["train.lr"].takes, KEYS["train.lr"].default, KEYS["train.lr"].origin) == ("number, more than 0", "0.001", "[C]")
    assert KEYS["train.betas"].default == "[0.9, 0.999]"
    assert KEYS["cluster.backend"].takes == "`ray`, `slurm` or `in_process`"
    assert KEYS["datasets.NAME.splits"].takes == "block of `train`, `dev` or `test`: text"
    assert KEYS["train.loader_workers"].takes == "whole number, at least 0, at most 1024 or `auto`"
    assert "datasets.NAME.parts" in KEYS
    assert "datasets.NAME.parts.NAME.source" not in KEYS, "blocks in themselves end"


def test_what_a_resume_may_change_is_what_the_schema_marks() -> None:
    may_change = {path.replace(".NAME.", ".*.") for path, key in KEYS.items() if key.may_change}
    assert may_change - marked(Config, "resume") == {path for path in KEYS if path.startswith("cluster.slurm.")}
    assert {"run.pool", "cluster.address"} <= may_change


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("train.lr", ["train.lr"]), ("lr", ["train.lr"]), ("lora.prior", ["lora.prior.sigma", "lora.prior.beta"]),
        ("datasets.seame.source", ["datasets.NAME.source"]), ("datasets.a.splits.train", ["datasets.NAME.splits"]),
        ("evaluate.protected.en.source", ["evaluate.protected.NAME.source"]), ("run.seed", ["run.seed"]),
        ("metric", ["datasets.NAME.metric", "train.early_stopping.metric", "evaluate.metric", "evaluate.protected.NAME.metric"]),
    ],
)  # fmt: skip
def test_a_path_names_keys(path: str, found: list[str]) -> None:
    assert [key.path for block in reference.find(path) for key in block.keys] == found


@pytest.mark.parametrize(
    ("path", "meant"),
    [("train.learning_rate", "'lr'"), ("lora.rank", "'r'"), ("trian", "'train'"), ("datasets.a.lang", "'language'")],
)
def test_another_name_is_an_error_that_says_the_right_one(path: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"^{path}: unknown key; did you mean {meant}"):
        reference.find(path)


def test_markdown_has_a_row_for_every_key_and_no_tag(capsys: Any, monkeypatch: Any) -> None:
    page = printed("docs", "--markdown", capsys=capsys, monkeypatch=monkeypatch)
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == sum(block.like == block.path and len(block.keys) for block in reference.blocks())
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}
    assert re.findall(r"<(?=[a-z/])", re.sub("`[^`]*`", "", page)) == []
    assert "[training](training.md)" in page
    assert "docs/" not in page
    assert "## `evaluate.protected.NAME`\n\nThe same keys as `datasets.NAME`.\n" in page


def test_text_fits_the_terminal_and_says_what_a_resume_may_change(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = printed("docs", "cluster.backend", capsys=capsys, monkeypatch=monkeypatch)
    assert text == textwrap.dedent(
        """\
        cluster.backend: ray, slurm or in_process; default ray
            `slurm` submits one small job per adapter instead of
            holding all nodes at once.
            A resume may change it.

        Where a default comes from: [P] the paper (arXiv
        2506.16574), [C] the authors' code, [H] this project's
        choice.
        """
    )
    whole = printed("docs", capsys=capsys, monkeypatch=monkeypatch)
    assert max(map(len, whole.splitlines())) <= 60
    assert all(f"\n{path}: " in whole for path in KEYS if not path.startswith("evaluate.protected."))


def test_the_json_schema_says_the_meanings() -> None:
    schema = reference.json_schema()
    assert schema["$defs"]["TrainConfig"]["properties"]["lr"]["description"] == KEYS["train.lr"].meaning
    assert schema["properties"]["rounds"]["description"].startswith("The data sets of each round")
