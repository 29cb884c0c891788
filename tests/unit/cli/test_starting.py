"""`wfc init` writes a file that `wfc audit` and `wfc plan` take, and writes over nothing."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from processes import wfc
from typer.testing import CliRunner

from wfc_dist.cli.commands import app
from wfc_dist.errors import ConfigError, InputError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Works in a folder with a tiny model, and three corpora."""
    monkeypatch.chdir(tmp_path)
    tiny.make_whisper(tmp_path / "model", taciturn=True)
    for seed, name in enumerate(("es", "größe über alles", "other/es")):
        tiny.make_dataset(tmp_path / "data" / name, seed=seed, language="es")
    return tmp_path


def init(*words: str):
    return CliRunner().invoke(app, ["init", *words], catch_exceptions=True)


def test_the_file_is_taken_by_audit_and_plan(here: Path) -> None:
    done = init("data/es", "data/größe über alles", "data/other/es", "--model", "model", "--name", "mine")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    tree = yaml.safe_load(Path("mine.yaml").read_text(encoding="utf-8"))
    assert list(tree["datasets"]) == ["data-es", "grosse-uber-alles", "other-es"]
    commands = [shlex.split(line) for line in done.output.split("next:\n")[1].splitlines()]
    assert [words[:2] for words in commands] == [["wfc", "audit"], ["wfc", "plan"], ["wfc", "run"]]
    for words in commands[:2]:
        again = CliRunner().invoke(app, words[1:])
        assert again.exit_code == 0, again.output


def test_a_file_that_is_there_is_not_written_over(here: Path) -> None:
    Path("mine.yaml").write_text("old")
    for words in (["--out", "mine.yaml"], ["--name", "mine"]):
        done = init("data/es", "--model", "model", *words)
        assert isinstance(done.exception, ConfigError) and "mine.yaml is there already" in str(done.exception)
        assert done.exception.exit_code == 2
    assert Path("mine.yaml").read_text() == "old"
    assert [path.name for path in here.iterdir() if "tmp" in path.name] == []


def test_the_language_may_be_given(here: Path) -> None:
    manifest = Path("data/es/train.jsonl")
    manifest.write_text(manifest.read_text().replace('"lang"', '"unknown"'))
    manifest.rename("data/other/x.jsonl")
    Path("data/es/audio").rename("data/other/audio")
    assert init("data/other/x.jsonl", "--model", "model", "--out", "a.yaml", "--language", "Czech").exit_code == 0
    assert yaml.safe_load(Path("a.yaml").read_text())["datasets"]["x"]["language"] == "cs"
    done = init("data/other/x.jsonl", "--language", "Klingon")
    assert isinstance(done.exception, ConfigError) and "no language of Whisper" in str(done.exception)


def test_splits_that_are_named_one_by_one_are_one_data_set(here: Path) -> None:
    assert init("data/es/train.jsonl", "data/es/test.jsonl", "data/es", "--model", "model", "--out", "a.yaml").exit_code == 0
    assert list(yaml.safe_load(Path("a.yaml").read_text())["datasets"]) == ["es"]


def test_a_folder_for_the_file_that_is_not_there(here: Path) -> None:
    done = init("data/es", "--model", "model", "--out", "gone/a.yaml")
    assert isinstance(done.exception, ConfigError) and "cannot write gone/a.yaml: No such file" in str(done.exception)


def test_an_error_leaves_nothing(here: Path) -> None:
    before = sorted(here.iterdir())
    assert isinstance(init("data/es/audio").exception, InputError)
    assert sorted(here.iterdir()) == before


@pytest.mark.process
def test_from_data_to_a_base(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wfc_dist", "init", "data/es", "--model", "model"], capture_output=True, text=True, check=True
    )
    assert "written: es.yaml" in done.stdout
    wfc("run", "es.yaml", "train.max_steps=2", "train.warmup_steps=1", "--plain")
    assert (here / "runs/es/base-0001").is_dir()
