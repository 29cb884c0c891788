"""docs/troubleshooting.md: each message that it explains is one that the package can say."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PAGE = (REPO / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = [
    title.strip("` ") if "``" not in title else title.strip()[2:-2].strip() for title in re.findall(r"^### (.*)$", PAGE, re.M)
]
HOLE = "\0"
"""Stands where an f-string puts a value."""


@cache
def texts() -> tuple[str, ...]:
    """Returns the texts of the package, docstrings left out; neighbours are joined as Python joins them."""
    found = []
    for path in sorted((REPO / "wfc_dist").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else HOLE for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside | said:
                found.append(node.value)
    return tuple(found)


def is_said(message: str) -> bool:
    """Says whether a text of the package has a message's words in one piece, with something where the message has dots."""
    fragments = [re.escape(fragment.strip()) for fragment in message.split("...")]
    return any(re.search(r".*".join(fragments), text, re.S) for text in texts())


def test_the_page_has_many_messages_each_once_with_an_answer() -> None:
    assert len(MESSAGES) >= 40 and len(set(MESSAGES)) == len(MESSAGES)
    answers = re.split(r"^#+ .*$", PAGE, flags=re.M)
    assert all(len(answer.strip()) > 20 for answer in answers[-len(MESSAGES) :] if answer.strip())


@pytest.mark.parametrize("message", MESSAGES)
def test_the_package_says_it(message: str) -> None:
    assert is_said(message), "no text of wfc_dist has these words"


def test_a_message_that_nobody_says_is_found() -> None:
    assert is_said("... is not YAML: ...") and not is_said("... is not TOML: ...")
    assert not is_said("one configuration has changed its data ... since the run began: ...")
