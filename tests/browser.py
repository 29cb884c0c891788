"""Opens pages in a headless Chromium, at any width and in both colour schemes, and checks them with axe-core."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = (390, 800, 1400)
SCHEMES = ("light", "dark")
VIEWS = [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_HERE = {"127.0.0.1", "localhost", "::1"}
_WIDER = """() => {
    const width = document.documentElement.clientWidth;
    const clipped = element => {
        for (let parent = element.parentElement; parent && parent !== document.body; parent = parent.parentElement)
            if (getComputedStyle(parent).overflowX !== 'visible') return true;
        return false;
    };
    const found = document.documentElement.scrollWidth > width ? [`the page: ${document.documentElement.scrollWidth} px`] : [];
    for (const element of document.body.querySelectorAll('*')) {
        const box = element.getBoundingClientRect();
        if (box.width && box.right > width + 1 && !clipped(element))
            found.push(`${element.tagName} "${element.textContent.trim().slice(0, 40)}": ${Math.round(box.right)} px`);
    }
    return found;
}"""


@dataclass
class Visit:
    """A page that Chromium shows.

    Attributes:
        page: Playwright's page.
        problems: Errors in the console, uncaught exceptions, and requests that would leave this machine, as they come.
    """

    page: Any
    problems: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Asserts that there are no problems, nothing wider than the window, and no serious or critical finding of axe-core."""
        wider = self.page.evaluate(_WIDER)
        assert not self.problems, "\n".join(self.problems)
        assert not wider, "\n".join([f"wider than the window of {self.page.viewport_size}:", *wider])
        assert not (found := self.findings()), "\n".join(found)

    def findings(self) -> list[str]:
        """Returns the serious and critical findings of axe-core, one for each element."""
        from axe_playwright_python.sync_playwright import Axe

        violations = Axe().run(self.page).response["violations"]
        return [
            f"{found['id']} ({found['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
            for found in violations if found["impact"] in ("serious", "critical")
            for node in found["nodes"]
        ]  # fmt: skip


@contextmanager
def visiting(browser: Any, url: str | Path, width: int = 1400, scheme: str = "light", **options: Any) -> Iterator[Visit]:
    """Opens a file or an address of this machine in a fresh context, and closes the context at the end.

    Args:
        browser: Playwright's browser.
        url: A path, or an address.
        width: Of the window, in CSS pixels.
        scheme: What `prefers-color-scheme` says.
        options: More options of Playwright's `new_context`.
    """
    size = {"width": width, "height": 844 if width < 600 else 900}
    with browser.new_context(viewport=size, color_scheme=scheme, service_workers="block", **options) as context:
        page = context.new_page()
        visit = Visit(page)

        def hold_here(route: Any) -> None:
            address = urlsplit(route.request.url)
            if address.scheme in ("file", "data", "blob", "about") or address.hostname in _HERE:
                route.continue_()
            else:
                visit.problems.append(f"request to {route.request.url}")
                route.abort()

        context.route("**/*", hold_here)
        context.route_web_socket(lambda address: urlsplit(address).hostname not in _HERE, lambda socket: (
            visit.problems.append(f"web socket to {socket.url}"), socket.close()))  # fmt: skip
        page.on("console", lambda said: visit.problems.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: visit.problems.append(f"uncaught: {error}"))
        page.goto(url.absolute().as_uri() if isinstance(url, Path) else url)
        yield visit


@contextmanager
def chromium() -> Iterator[Any]:
    """Starts Chromium, and stops it at the end. While it runs, this thread cannot call `asyncio.run`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium for all tests of a file. A machine without one skips the test."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; Debian: apt-get install chromium")
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visit]]:
    """Opens pages (see `visiting`) that stay open until the end of the test."""
    with ExitStack() as stack:
        yield lambda url, width=1400, scheme="light", **options: stack.enter_context(
            visiting(browser, url, width, scheme, **options)
        )
