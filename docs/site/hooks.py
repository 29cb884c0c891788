"""What mkdocs does besides rendering docs/: pages from files outside the folder, and the reference from the package.

The documents have relative links, for a code host. On the site, a link that leaves docs/ leads to a page that is made of
the file: Markdown becomes a page, another file a page that shows its text. Nothing that is made here is in git.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

import wfc_dist
from wfc_dist.cli.commands import app
from wfc_dist.config import reference
from wfc_dist.reports import as_json

REPO = Path(__file__).parents[2]
FRONT = "README.md"
"""The document that becomes the site's first page."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(?=[)#])")
"""The path of a relative link in Markdown, without its anchor."""
LETTERS = re.compile(r"(?:^ .*\+-- data set a .*\n)(?:^ .*\n)+", re.M)
"""The picture of a round in letters, on the front page."""
ROUND = "![Three data sets train three adapters against base 0; their exact mean makes base 1](images/round.svg)\n"
SHOWN = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".json": "json", ".html": "html"}


# Which page shows which file of the repository


def page_of(path: str) -> str:
    """Returns the place on the site of a file of the repository; both are relative and have forward slashes."""
    if path == FRONT:
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".ipynb"):
        return path.replace(".ipynb", ".md")
    return path if path.endswith(".md") else f"files/{path}.md"


def linked(path: str, markdown: str) -> Iterator[str]:
    """Yields the files of the repository that a document links to; a folder stands for its README.md."""
    for target in LINK.findall(without_code(markdown)):
        yield resolved(path, target)


def resolved(path: str, target: str) -> str:
    """Returns the file of the repository that a relative link in a document means."""
    found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return f"{found}/README.md" if (REPO / found).is_dir() else found


def without_code(markdown: str) -> str:
    """Returns the text without fenced blocks and code in backticks, whose brackets are no links."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", markdown, flags=re.M | re.S)


def site_links(path: str, markdown: str) -> str:
    """Returns a document with its relative links as they are on the site."""
    here = posixpath.dirname(page_of(path)) or "."

    def on_the_site(match: re.Match[str]) -> str:
        return posixpath.relpath(page_of(resolved(path, match[1])), here)

    code = r"(^```.*?^```|`[^`\n]*`)"
    parts = re.split(code, markdown, flags=re.M | re.S)
    return "".join(part if index % 2 else LINK.sub(on_the_site, part) for index, part in enumerate(parts))


def document(path: str) -> str:
    """Returns the Markdown of a file of the repository: a document, a notebook, or a page that shows the file's text."""
    if path.endswith(".md"):
        return (REPO / path).read_text(encoding="utf-8")
    return notebook(path) if path.endswith(".ipynb") else shown(path)


def notebook(path: str) -> str:
    """Returns a notebook as Markdown, with the texts and pictures that its cells have shown."""
    parts = []
    for cell in json.loads((REPO / path).read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                parts.append(f'<img alt="What the cell above draws" src="data:image/png;base64,{"".join(picture).strip()}">')
            elif text := "".join(output.get("text", [])).rstrip():
                parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def shown(path: str) -> str:
    """Returns the page of a file that is no Markdown: its text."""
    language = SHOWN.get(Path(path).suffix, "text")
    text = (REPO / path).read_text(encoding="utf-8")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"


def outside(files: Files) -> Iterator[tuple[str, str]]:
    """Yields place and text of the pages that files outside docs/ make: those that the documents link to, and so on."""
    waiting = [FRONT, "CHANGELOG.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not (REPO / path).is_file():
            continue  # mkdocs reports the link
        text = document(path)
        links = set(linked(path, text)) if path.endswith((".md", ".ipynb")) else set()
        if not path.startswith("docs/"):
            yield page_of(path), site_links(path, text) if path.endswith((".md", ".ipynb")) else text
        waiting += sorted(name for name in links - seen if name.endswith(".md") or not name.startswith("docs/"))
        seen |= links


# The reference


def cell(text: str) -> str:
    """Returns a text for one cell of a table."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def commands(command: click.Command, name: str = "wfc", level: int = 1) -> Iterator[str]:
    """Yields the Markdown of a command and those below it: usage, help, a table of its options."""
    context = click.Context(command, info_name=name)
    yield f"{'#' * min(level, 3)} {name if level > 1 else 'Commands'}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield re.sub(r"(?m)^ +", "", (command.help or "").split("\f")[0]) + "\n"
    options = [param for param in command.params if getattr(param, "help", None)]
    if options:
        yield "| argument, option | default | meaning |\n|---|---|---|"
        yield "\n".join(option_row(param) for param in options) + "\n"
    below = getattr(command, "commands", {})
    for short in below:
        yield from commands(below[short], f"{name} {short}", level + 1)


def option_row(param: click.Parameter) -> str:
    """Returns the row of an argument or option."""
    is_option = param.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in (param.opts if is_option else [param.metavar or str(param.name).upper()]))
    default = "" if param.default is None or param.default is False or callable(param.default) else f"`{param.default}`"
    return f"| {names} | {default} | {cell(getattr(param, 'help', '') or '')} |"


def python_interface() -> str:
    """Returns the page of the public names, which mkdocstrings fills from the docstrings."""
    names = sorted(wfc_dist.__all__, key=lambda name: (name[0].isupper(), name))
    text = "# Python interface\n\nEvery public name of `wfc_dist`. [From Python](../api.md) is the tour.\n\n"
    return text + "\n".join(f"::: wfc_dist.{name}\n" for name in names)


def schemas() -> str:
    """Returns the page of the JSON schemas of `--json`."""
    text = "# JSON schemas\n\nWhat `wfc config schema --of COMMAND` prints ([JSON for programs](../json.md)).\n"
    for name in as_json.COMMANDS:
        text += f"\n## wfc {name}\n\n```json\n{json.dumps(as_json.schema_of(name), indent=1)}\n```\n"
    return text


GENERATED = {
    "reference/commands.md": lambda: "\n".join(commands(typer.main.get_command(app))),
    "configuration.md": lambda: reference.as_markdown(reference.blocks()),
    "reference/python.md": python_interface,
    "reference/json-schemas.md": schemas,
}
"""Place of a page -> what makes its text."""


# What mkdocs calls


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the pages of a folder where the navigation names the folder."""
    for section in config.nav or []:
        for title, entries in section.items():
            if isinstance(entries, list):
                section[title] = [page for entry in entries for page in pages_of(entry)]
    return config


def pages_of(entry: Any) -> list[Any]:
    """Returns an entry of the navigation as entries of pages: `{title: folder/}` has those of the folder, `folder/` is them."""
    title, target = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
    if not target.endswith("/"):
        return [entry]
    names = sorted((REPO / "docs" / target).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    pages = [f"{target}{path.name}" for path in names]
    return [{title: pages}] if title else pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that have no file in docs/."""
    made = {**dict(outside(files)), **{uri: make() for uri, make in GENERATED.items()}}
    for uri, text in made.items():
        in_nav = f": {uri}" in Path(config.config_file_path).read_text(encoding="utf-8")
        level = InclusionLevel.INCLUDED if in_nav else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, uri, content=text, inclusion=level))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads the links of docs/ that leave the folder to the pages on the site, and draws the front page's picture."""
    if page.file.generated_by is None:
        return site_links(f"docs/{page.file.src_uri}", markdown)
    if page.file.src_uri == "index.md":
        return LETTERS.sub(ROUND, markdown)
    return markdown


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Gives the search dialog the name that the theme leaves out, for screen readers."""
    return output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
