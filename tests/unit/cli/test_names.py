"""A word that is no command is answered with the command that is meant, and exit code 2."""

import re

import pytest
import typer
from typer.testing import CliRunner

from wfc_dist.cli.commands import app
from wfc_dist.cli.names import OTHER_NAMES

COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def error_of(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 2
    return " ".join(done.output.split())


@pytest.mark.parametrize("word", OTHER_NAMES)
def test_other_tools_words_lead_to_commands_that_there_are(word: str) -> None:
    assert word not in COMMANDS
    assert OTHER_NAMES[word] in COMMANDS
    assert f"no such command: {word!r}; did you mean {OTHER_NAMES[word]!r}?" in error_of(word, "x")


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["staus"], "status"), (["Run", "c.yaml"], "run"), (["trascribe"], "transcribe"), (["config", "shwo"], "show"),
     (["config", "doc"], "docs"), (["EVAL"], "evaluate")],
)  # fmt: skip
def test_a_typo_leads_to_the_command(words: list[str], meant: str) -> None:
    assert f"did you mean {meant!r}?" in error_of(*words)


def test_a_word_like_none_is_answered_with_all_commands() -> None:
    assert re.search("no such command: 'xyzzy'; there are: .*audit, .*run, ", error_of("xyzzy"))


def test_an_unknown_option_is_no_unknown_command() -> None:
    assert "--plan" in error_of("--plan")
    assert "--watch" in error_of("status", "x", "--wach")
