"""The documentation site: it builds strictly and without a network, its links lead somewhere, Chromium shows it."""

import html.parser
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from browser import Visit

REPO = Path(__file__).parents[2]
LOOKED_AT = [("index.html", 390, "light"), ("index.html", 1400, "dark"), ("data.html", 390, "dark"), ("data.html", 1400, "light"),
             ("reference/python.html", 390, "light"), ("reference/python.html", 1400, "dark"),
             ("reference/commands.html", 1400, "light"), ("results/demo.html", 390, "light"),
             ("concepts.html", 390, "light"), ("examples/notebook/round.html", 1400, "dark")]  # fmt: skip


def build(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out), *options]
    return subprocess.run(
        command, cwd=REPO, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once for all tests."""
    out = tmp_path_factory.mktemp("site")
    done = build(out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def hooks() -> Any:
    """docs/site/hooks.py as a module."""
    spec = importlib.util.spec_from_file_location("site_hooks", REPO / "docs" / "site" / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class References(html.parser.HTMLParser):
    """Collects what a page links to, what it loads, and the names of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given["id"]} if "id" in given else set()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loads.append(given["href"])
        elif tag in ("script", "img", "iframe", "audio", "video", "source") and "src" in given:
            self.loads.append(given["src"])


def wrong_references(site: Path) -> list[str]:
    """Returns links of the pages to pages or anchors that are not there, and what they would load from elsewhere."""
    # A server shows 404.html for any address, so its links are absolute.
    pages = {path: References(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    wrong = []
    for path, found in pages.items():
        for reference in (*found.links, *found.loads):
            parts = urlsplit(reference)
            if parts.scheme or parts.netloc:
                wrong += [f"{path.name} loads {reference}"] if reference in found.loads and parts.scheme != "data" else []
                continue
            target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in {*pages[target].names, "__toc"}):
                wrong.append(f"{path.name} links to {reference}")
    return wrong


@pytest.mark.process
def test_the_site_builds_and_everything_it_links_to_or_loads_is_in_it(site: Path) -> None:
    assert wrong_references(site) == []
    styles = [path for path in site.rglob("*.css") if re.search(r"url\(['\"]?https?:", path.read_text(encoding="utf-8"))]
    assert styles == []


@pytest.mark.process
def test_it_has_the_documents_the_files_they_name_and_the_reference(site: Path) -> None:
    documents = {path.relative_to(REPO / "docs").with_suffix(".html").as_posix() for path in (REPO / "docs").rglob("*.md")}
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html"}
    index = {name.replace("README.html", "index.html") for name in documents}
    assert index - pages == set() and {"slurm/index.html", "files/configs/example.yaml.html"} <= pages
    front = (site / "index.html").read_text(encoding="utf-8")
    assert 'src="images/round.svg"' in front and "+-- data set" not in front and "Two commands" in front
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert 'id="wfc-run"' in commands and 'id="wfc-config-show"' in commands and "--verbose" not in commands
    interface = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert 'id="wfc_dist.average"' in interface and "Writes the new folder" in interface
    assert 'id="train"' in (site / "configuration.html").read_text(encoding="utf-8")
    schemas = (site / "reference" / "json-schemas.html").read_text(encoding="utf-8")
    assert 'id="wfc-status"' in schemas and "additionalProperties" in schemas


@pytest.mark.process
def test_a_page_outside_the_navigation_a_broken_link_and_a_broken_anchor_fail_the_build(tmp_path: Path) -> None:
    shutil.copytree(REPO / "docs", tmp_path / "docs")
    (tmp_path / "docs" / "orphan.md").write_text("# Orphan\n\n[a](gone.md) [b](data.md#gone) [c](../gone.yaml)\n")
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {REPO}/mkdocs.yml\ndocs_dir: {tmp_path}/docs\nhooks: [{REPO}/docs/site/hooks.py]\n"
    )
    done = build(tmp_path / "out", "--config-file", str(tmp_path / "mkdocs.yml"))
    assert done.returncode != 0
    for said in ("- orphan.md", "'gone.md'", "'#gone'", "gone.yaml"):
        assert said in done.stderr


def test_links_that_leave_the_folder_lead_to_pages_of_the_site(hooks: Any) -> None:
    text = "[a](metrics.md#decoding) [b](../slurm/README.md) [c](../configs/example.yaml) [d](#g) [e](https://x.org)"
    assert hooks.site_links("docs/data.md", text) == (
        "[a](metrics.md#decoding) [b](slurm/README.md) [c](files/configs/example.yaml.md) [d](#g) [e](https://x.org)"
    )
    assert (
        hooks.site_links("docs/study/checks.md", "[a](../study.md) [b](../../launch)")
        == "[a](../study.md) [b](../launch/README.md)"
    )
    assert hooks.site_links("README.md", "[a](docs/decisions) `[b](docs/x.md)`") == "[a](decisions/README.md) `[b](docs/x.md)`"
    assert hooks.site_links("docs/data.md", "```\n[a](../README.md)\n```\n") == "```\n[a](../README.md)\n```\n"


def test_a_notebook_becomes_a_page_with_what_its_cells_have_shown(
    hooks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [{"text": ["a\n", "b\n"]}, {"data": {"image/png": "aGk=\n"}}, {"data": {"text/plain": "<Figure>"}}]
    cells = [{"cell_type": "markdown", "source": ["# T"]}, {"cell_type": "code", "source": ["f(1)"], "outputs": shown}]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    monkeypatch.setattr(hooks, "REPO", tmp_path)
    assert hooks.document("n.ipynb") == (
        "# T\n\n```python\nf(1)\n```\n\n```text\na\nb\n```\n\n"
        '<img alt="What the cell above draws" src="data:image/png;base64,aGk=">\n'
    )


def test_the_picture_of_forgetting_shows_figures_of_the_study() -> None:
    picture = (REPO / "docs" / "images" / "forgetting.svg").read_text(encoding="utf-8")
    systems = (REPO / "docs" / "study" / "systems.md").read_text(encoding="utf-8")
    drawn = re.findall(r'class="bold"[^>]*>([\w-]+)<.*?y="\d+">([\d.]+)</text>.*?y="\d+">([\d.]+)</text>', picture, re.S)
    rows = {row[0]: row for row in (line.strip("| ").split(" | ") for line in systems.splitlines() if line.startswith("|"))}
    assert [name for name, *_ in drawn] == ["untouched", "full", "mean-3"]
    assert [(rows[name][2].split()[0], rows[name][3].split()[0]) for name, *_ in drawn] == [tuple(row[1:]) for row in drawn]
    described = re.findall(r"[\d.]+\d", picture[picture.index("<desc") : picture.index("</desc>")])
    assert described == [figure for row in drawn for figure in row[1:]]


def test_what_a_page_loads_from_elsewhere_and_links_to_nothing_is_found(tmp_path: Path) -> None:
    text = '<script src="https://x.org/y.js"></script><a href="b.html"><a href="#c"><p id="d"><a href="#d"><img src="data:,"><a href="https://x.org">'
    (tmp_path / "a.html").write_text(text)
    assert wrong_references(tmp_path) == ["a.html links to b.html", "a.html links to #c", "a.html loads https://x.org/y.js"]


@pytest.mark.process
@pytest.mark.parametrize(("name", "width", "scheme"), LOOKED_AT)
def test_chromium_shows_a_page_from_the_folder(
    site: Path, visit: Callable[..., Visit], name: str, width: int, scheme: str
) -> None:
    shown = visit(site / name, width, scheme)
    shown.page.wait_for_timeout(100)
    shown.check()


@pytest.mark.process
def test_the_search_finds_a_word_without_a_server(site: Path, visit: Callable[..., Visit]) -> None:
    shown = visit(site / "index.html")
    field = shown.page.locator("input.md-search__input")
    field.click()
    field.press_sequentially("exactness")  # the theme listens to keys
    found = shown.page.locator(".md-search-result__link").first
    found.wait_for(timeout=20_000)
    assert ".html" in (found.get_attribute("href") or "") and shown.problems == []
