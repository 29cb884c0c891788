"""Completion in a real bash, and by the protocol of zsh."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
pytestmark = pytest.mark.process


def bash(script: str, home: Path) -> list[str]:
    environment = os.environ | {"HOME": str(home), "PATH": f"{home}:{os.environ['PATH']}"}
    (home / "wfc").write_text(f"#!{sys.executable}\nfrom wfc_dist.cli import main\n\nmain()\n")  # as pip writes it
    (home / "wfc").chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, cwd=REPO, env=environment, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def offered(home: Path, *words: str) -> list[str]:
    """Returns what bash's function offers for the last word."""
    cut = [part for word in words for part in re.split("(=)", word) if part or not word] if "=" in "".join(words) else words
    line = f"COMP_WORDS=(wfc {shlex.join(cut)}); COMP_CWORD={len(cut)}"
    return bash(f"source <(wfc --show-completion); {line}; _wfc_completion wfc; printf '%s\\n' \"${{COMPREPLY[@]}}\"", home)


def test_bash_completes_commands_options_and_overrides(tmp_path: Path) -> None:
    assert offered(tmp_path, "sta") == ["status"] and offered(tmp_path, "config", "") == ["schema", "docs", "show"]
    assert offered(tmp_path, "status", "runs/demo", "--") == ["--json", "--watch", "--help"]
    assert offered(tmp_path, "run", "configs/demo.yaml", "train.l") == ["train.lr=", "train.loader_workers="]
    assert offered(tmp_path, "run", "configs/demo.yaml", "train.lr=1", "train.schedule=co") == ["cosine", "constant"]
    assert offered(tmp_path, "evaluate", "m", "--on", "configs/demo.yaml", "evaluate.protected.en.max") == [
        "evaluate.protected.en.max_clips="
    ]
    assert "datasets.cs-en-es." in offered(tmp_path, "run", "configs/demo.yaml", "datasets.")


def test_bash_completes_files_itself_where_nothing_is_offered(tmp_path: Path) -> None:
    assert offered(tmp_path, "run", "configs/d") == [""] and offered(tmp_path, "no-command", "x") == [""]
    assert bash("source <(wfc --show-completion); complete -p wfc", tmp_path) == ["complete -o default -F _wfc_completion wfc"]


def test_completion_is_installed_for_new_shells_and_always_of_wfc(tmp_path: Path) -> None:
    home, python = tmp_path, shlex.quote(sys.executable)
    bash(f"{python} -m wfc_dist --install-completion && true", home)  # alone, it would replace the shell that is asked for
    assert bash("source ~/.bashrc; complete -p wfc", home) == ["complete -o default -F _wfc_completion wfc"]


def test_zsh_gets_meanings_with_their_brackets(tmp_path: Path) -> None:
    asked = {"_WFC_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "wfc run configs/demo.yaml "}
    lines = bash(" ".join(f"export {name}={shlex.quote(text)};" for name, text in asked.items()) + " wfc", tmp_path)
    assert lines[0].startswith('_arguments \'*: :(("run.":"Name and place of the run') and len(lines) == 9
    assert any('"rounds=":"The data sets of each round, such as [[es, it], [fr]]' in line for line in lines)
