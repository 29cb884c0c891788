"""The documents: links, quoted commands, named files and configuration keys exist; lines are short; nothing tells history."""

import argparse
import contextlib
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
import pytest
import typer
from pydantic import BaseModel
from unit.test_layers import MAY_IMPORT

import wfc_dist
from wfc_dist.cli.commands import app
from wfc_dist.compare.settings import CompareSettings
from wfc_dist.compare.sweep import SweepSettings
from wfc_dist.config.schema import Config

REPO = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "launch/*.md", "slurm/*.md", "examples/**/*.md", "tests/**/*.md")
    for path in REPO.glob(pattern) if "site-packages" not in path.parts
)  # fmt: skip
BLOCKS = {**{name: field.annotation for name, field in Config.model_fields.items()},
          "compare": CompareSettings, "sweep": SweepSettings}  # fmt: skip
YOURS = {"configs/my.yaml", "my.yaml", "config.yaml", "largest.py"}
"""Files that a reader makes."""
HISTORY = re.compile(
    r"\b(no longer(?! than)|any longer|used to|not any ?more|previously|formerly|was renamed|since version|issue #?\d+)\b", re.I
)
MACHINE = re.compile(r"(?<![\w.])/(work|home/\w+|root|Users)/")
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(REPO).as_posix())


class Refused(Exception):
    """A command line that its parser does not take."""


class Taken(Exception):
    """A command line that its parser takes, as far as it goes."""


# What a document says


def blocks(text: str) -> Iterator[str]:
    """Yields the lines of code blocks, fenced or indented; a line that ends in a backslash is joined with the next."""
    fenced, before = False, ""
    for line in text.replace("\\\n", " ").split("\n"):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or (line.startswith("    ") and (not before.strip() or before.startswith("    "))):
            yield line.strip()
        before = line


def prose(text: str) -> str:
    """Returns the text without its code blocks."""
    inside = set(blocks(text))
    return "\n".join(line for line in text.split("\n") if line.strip() not in inside or not line.startswith("    "))


def spans(text: str) -> list[str]:
    """Returns what stands between single backticks, outside code blocks."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(text))]


# Links


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub makes of the headings."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)$", prose(text), re.M):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        found.add(plain if plain not in found else f"{plain}-{sum(name.startswith(plain) for name in found)}")
    return found


def broken_links(path: Path, text: str) -> list[str]:
    """Returns the links, of the kind [text](target), that lead to no file or no heading."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(text))):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or (anchor and anchor not in anchors(text if not name else file.read_text(encoding="utf-8"))):
            wrong.append(target)
    return wrong


# Commands


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of the commands that code blocks and backticks quote; optional parts in brackets are left out."""
    for quoted in [*blocks(text), *spans(text)]:
        line = re.sub(r"\s\[[^\]\s]*[A-Z.][^\]]*\](\.\.\.)?", "", quoted)
        for part in re.split(r"; | && | -- (?=wfc )", re.sub(r"(^|\s)# .*", "", line)):
            if not re.match(r"([A-Z_]+=\S+ )*(\.venv/bin/|\$ )?(wfc|python3?|make|sbatch) [\w.-]", part):
                continue
            words = shlex.split(part)
            while "=" in words[0]:
                words = words[1:]
            program, *rest = [word for word in words if word != "..."]
            for choice in rest[0].split("|") if rest else ():
                yield [program.removeprefix(".venv/bin/"), choice, *rest[1:]]


@cache
def module_of(script: str) -> ModuleType:
    """Returns a script as a module."""
    sys.path.insert(0, str((REPO / script).parent))
    spec = importlib.util.spec_from_file_location(f"script_{Path(script).stem}", REPO / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.pop(0)
    return module


def parse_as_script(script: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a script's own parser read a command line, and nothing more. Raises Refused; prose may leave arguments out."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *_: Any) -> None:
        parse_args(parser, words)
        raise Taken

    def refuse(_: argparse.ArgumentParser, message: str) -> None:
        raise Taken if "are required" in message else Refused(message)

    if not (REPO / script).is_file():
        raise Refused(f"{script} is not there")
    if not re.search(r"ArgumentParser|import main\b", (REPO / script).read_text(encoding="utf-8")):
        return
    module = module_of(script)
    module = sys.modules.get(module.main.__module__, module)  # where an entry point's main comes from
    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "error", refuse)
        with contextlib.suppress(Taken):
            if hasattr(module, "parse_arguments"):
                module.parse_arguments(words)
                return
            patched.setattr(argparse.ArgumentParser, "parse_args", parse_only)
            module.main()
            raise AssertionError(f"{script} reads no command line")


def parse_as_wfc(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the command line's own parser read the words. Raises Refused; prose may leave arguments out."""
    if words[0] == "launch" and len(words) > 2:  # whose commands read their words themselves
        script = {"ray": "submit_ray", "slurm": "submit_slurm", "spot-notice": "drain_on_spot_notice"}[words[1]]
        parse_as_script(f"launch/{script}.py", words[2:], monkeypatch)
        return
    command: Any = typer.main.get_command(app)
    for parameter in command.params:  # --install-completion acts while it is parsed, on the home of who runs the tests
        parameter.callback = None
    words = [re.sub(r"^[A-Z]+$|^[A-Z]+(\.\.\.)$", "1", word) for word in words]
    try:
        while isinstance(command, click.Group) or hasattr(command, "commands"):
            if words[0].startswith("--"):
                break
            if words[0] not in command.commands:
                raise Refused(f"{words[0]} is no command")
            command, words = command.commands[words[0]], words[1:]
            if not words:
                return
        command.make_context("wfc", list(words))
    except Exception as error:
        if type(error).__name__ in ("MissingParameter", "Exit"):
            return
        raise Refused(getattr(error, "message", str(error))) from error


def has_key(annotation: Any, parts: list[str]) -> bool:
    """Says whether a configuration has a key below a field of this type."""
    if not parts:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(parts[0])
        return field is not None and has_key(field.annotation, parts[1:])
    if getattr(annotation, "__origin__", None) is dict:
        return has_key(get_args(annotation)[1], parts[1:])
    return annotation is Any or any(has_key(choice, parts) for choice in get_args(annotation) if not isinstance(choice, str))


def is_key(key: str) -> bool:
    """Says whether a dotted key is one of the configuration."""
    block, *parts = key.split(".")
    return block in BLOCKS and has_key(BLOCKS[block], parts)


def check_command(program: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises Refused where a program, a target, a file or an option is not there."""
    files_named = [word for word in words if re.match(r"tests/|slurm/.*\.sh$", word)]
    if missing := [word for word in files_named if not (REPO / word).exists()]:
        raise Refused(f"{missing[0]} is not there")
    if program == "wfc":
        parse_as_wfc(words, monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([\w./-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.M)
        if words[0] not in targets and not words[0].isupper():
            raise Refused("is no target")
    elif words[0].endswith(".py"):
        parse_as_script(words[0], words[1:], monkeypatch)
    elif words[0] == "-m":
        importlib.import_module(words[1])


def wrong_commands(text: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns what is wrong with the quoted commands: also keys of overrides that the configuration does not have."""
    wrong = []
    for program, *words in commands(text):
        try:
            check_command(program, words, monkeypatch)
            keys = [found[1] for word in words if (found := re.match(r"([a-z_]+\.[a-z_.]+)=", word))]
            if unknown := [key for key in keys if not is_key(key)]:
                raise Refused(f"{unknown[0]} is no key of the configuration")
        except Refused as error:
            wrong.append(f"{program} {' '.join(words)}: {error}")
    return wrong


# Names


@cache
def files() -> frozenset[str]:
    """Returns the files of the repository and their folders."""
    tops = [path for path in REPO.iterdir() if not path.name.startswith(".") and path.name not in ("runs", "models", "corpora")]
    return frozenset(str(path.relative_to(REPO)) for top in tops for path in (top, *top.rglob("*")))


def unknown_names(path: Path, text: str) -> list[str]:
    """Returns the files, modules and configuration keys in backticks that are not there."""
    wrong, tops = [], {name for name in files() if "/" not in name}
    for span in spans(text):
        for word in span.split() if not re.search(r"[{(=]", span) else ():
            name = word.split("::")[0].strip(",;:").rstrip("/")
            is_file = re.fullmatch(r"[\w./-]+\.(py|sh|md|yaml|toml|html)", name) or ("/" in name and name.split("/")[0] in tops)
            if (
                is_file
                and not re.search(r"[A-Z]{3}|[<*]", name.replace("README", "").replace("LICENSE", ""))
                and name not in YOURS
            ):
                there = (path.parent / name).exists() or any(f"/{file}".endswith(f"/{name}") for file in files())
                wrong += [] if there or name.startswith(("runs", "models")) else [name]
            elif re.fullmatch(r"wfc_dist(\.\w+)+", name):
                wrong += [] if is_attribute(name) else [name]
            elif (
                re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)
                and name.split(".")[0] in BLOCKS
                and name[-5:] != ".json"
                and not is_key(name)
            ):
                wrong.append(name)
    return wrong


def is_attribute(name: str) -> bool:
    """Says whether a dotted name is a module, or something in one."""
    module, _, last = name.rpartition(".")
    try:
        return importlib.util.find_spec(name) is not None or hasattr(importlib.import_module(module), last)
    except ModuleNotFoundError:
        return bool(module) and hasattr(importlib.import_module(module), last)


# Lines


def long_lines(text: str, limit: int = 140, *, tables: bool = False) -> list[int]:
    """Returns the numbers of the lines beyond the limit; those of tables count where asked for."""
    lines = enumerate(text.splitlines(), 1)
    return [number for number, line in lines if len(line) > limit and (tables or not line.startswith("|"))]


def import_table(text: str) -> dict[str, str]:
    """Returns the table of imports on the page: first cell, in backticks -> second cell, sorted."""
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*\|)? ([a-z_ ,]*) \|$", text, re.M)
    return {name: " ".join(sorted(may.replace(",", " ").replace("nothing", "").split())) for name, may in rows}


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text(encoding="utf-8")) == []


@each_document
def test_quoted_commands_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong_commands(path.read_text(encoding="utf-8"), monkeypatch) == []


@each_document
def test_named_files_modules_and_keys_exist(path: Path) -> None:
    assert unknown_names(path, path.read_text(encoding="utf-8")) == []


@each_document
def test_a_document_is_plain(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert long_lines(text) == []
    assert MACHINE.findall(text) == []
    assert path.name == "CHANGELOG.md" or HISTORY.findall(text) == []


def test_the_readme_is_short_and_in_order() -> None:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 90 and long_lines(text, tables=True) == []
    chapters = ["Two commands", "The demo's result", "Your own data", "Your own cluster", "Where next"]
    assert re.findall(r"^## (.*)$", text, re.M) == chapters and "base 0 (frozen)" in text.partition("## ")[0]


def test_the_page_shows_which_folder_may_import_which() -> None:
    shown = import_table((REPO / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert shown == {name: " ".join(sorted(may.split())) for name, may in MAY_IMPORT.items()}


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    named = re.findall(r"(?:: |- )([\w./-]+(?:\.md|/))$", (REPO / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    pages = [path.relative_to(REPO / "docs").as_posix() for path in DOCUMENTS if path.is_relative_to(REPO / "docs")]
    folders = tuple(name for name in named if name.endswith("/"))
    assert [page for page in pages if page not in named and not page.startswith(folders)] == []


def test_documents_that_the_code_names_exist() -> None:
    paths = [path for top in ("wfc_dist", "launch", "slurm", "configs", "benchmarks") for path in (REPO / top).rglob("*")]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.suffix in (".py", ".sh", ".yaml")]
    named = {name for text in texts for name in re.findall(r"\bdocs/[\w./-]+\.md", text)}
    assert "docs/metrics.md" in named and {name for name in named if not (REPO / name).is_file()} == set()


def test_the_page_of_the_interface_names_every_public_name() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", (REPO / "docs" / "api.md").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(wfc_dist.__all__)


# Each check fires


def test_a_broken_link_is_found() -> None:
    text = "# A title, with `code`\n\n[a](test_docs.py) [b](gone.md) [c](#a-title-with-code) [d](#gone) [e](https://x.org/y)\n"
    assert broken_links(Path(__file__), text) == ["gone.md", "#gone"]
    assert broken_links(REPO / "README.md", "[a](docs/metrics.md#decoding) [b](docs/metrics.md#gone)") == ["docs/metrics.md#gone"]


@pytest.mark.parametrize(
    "command",
    [
        "wfc gone RUN", "wfc run configs/demo.yaml --gone", "wfc run configs/demo.yaml train.gone=1", "wfc config gone",
        "wfc compare C compare.gone=1", "make gone", "sbatch slurm/gone.sh configs/my.yaml", "python benchmarks/gone.py",
        "python benchmarks/report.py --gone", "python launch/submit_slurm.py --gone C", "python launch/submit_ray.py gone",
        "python launch/submit_ray.py stop my-run --gone", "python -m pytest tests/gone.py", "wfc average A --scale no --out DIR",
        "wfc launch ray stop my-run --gone", "wfc launch slurm --gone C",
    ],
)  # fmt: skip
def test_a_wrong_command_is_found(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (f"Do this:\n\n    {command}      # because\n", f"Do `{command}`.", f"```\n{command}\n```"):
        assert len(wrong_commands(text, monkeypatch)) == 1, text


def test_a_right_command_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = """Do this:

    mkdir -p logs; sbatch --nodes=3 slurm/round.sh configs/my.yaml [key.path=value ...]
    RAY_AUTH_MODE=token wfc run configs/my.yaml train.lr=5e-4 datasets.es.language=es   # or go on
    ray job submit --working-dir . -- wfc run configs/my.yaml run.dir=/shared/runs
    wfc status|lineage RUN
    python launch/submit_ray.py submit configs/my.yaml run.dir=/shared/runs \\
        --runtime-env launch/runtime-env-pip.yaml
    wfc compare CONFIG "compare.seeds=[2]" --only lwf
    wfc launch slurm --per-adapter configs/my.yaml
"""
    assert len(list(commands(right))) == 8 and wrong_commands(right, monkeypatch) == []


def test_an_unknown_name_is_found() -> None:
    page = REPO / "docs" / "x.md"
    text = "`gone.py`, `durable.py`, `wfc_dist/gone/`, `NAME.yaml`; `wfc_dist.rounds.Base`, `wfc_dist.rounds.gone`"
    text += "; `train.gone`, `train.lr`, `compare.json`"
    assert unknown_names(page, text) == ["gone.py", "wfc_dist/gone", "wfc_dist.rounds.gone", "train.gone"]


def test_long_lines_history_and_a_path_of_a_machine_are_found() -> None:
    assert long_lines("a" * 141 + "\n|" + "a" * 140) == [1] and long_lines("|" + "a" * 140, tables=True) == [1]
    assert HISTORY.search("It is no longer done.") and not HISTORY.search("no longer than a step")
    assert MACHINE.search("see /home/someone/x") and not MACHINE.search("/shared/runs and tests/work/")


def test_another_import_table_is_seen() -> None:
    assert import_table("| `a` | b, c |\n| `d` | what it holds | nothing |\n") == {"a": "b c", "d": ""}
