"""Who may ask the page, for what; all else is refused before Gradio sees it."""

import asyncio
from typing import Any

import pytest

from wfc_dist.tryout.guard import Guard, is_loopback

HOME = "127.0.0.1:7860"


def ask(path: str = "/", *, token: str = "", loopback_only: bool = True, query: str = "", **headers: str) -> tuple[int, dict]:
    """Returns status and headers of an answer; 200 means that the page itself answered."""
    sent: list[dict[str, Any]] = []

    async def page(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message) -> None:
        sent.append(message)

    guard = Guard(page, token=token, uploads="/tmp/clips", loopback_only=loopback_only)
    lines = [(name.encode(), value.encode("latin-1")) for name, value in {"host": HOME, **headers}.items()]
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": lines, "scheme": "http"}
    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index.js", "/gradio_api/queue/join", "/gradio_api/upload",
     "/gradio_api/file=/tmp/clips/0a/talk.wav"],
)  # fmt: skip
def test_the_page_gets_what_it_needs(path: str) -> None:
    assert ask(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/file=/tmp/clips/../../etc/passwd", "/gradio_api/file=/tmp/clips2/a.wav",
        "/gradio_api/file=http://127.0.0.1/", "/gradio_api/proxy=http://127.0.0.1/", "/gradio_api/run/predict", "/monitoring",
        "/gradio_api/call/compare", "/docs", "/login", "/assets/../../etc/passwd", "/static/..\\..\\secret", "//", "/assets",
        "/gradio_api/file=", "/gradio_api/file=/tmp/clips/",
    ],
)  # fmt: skip
def test_nothing_else_is_there(path: str) -> None:
    assert ask(path)[0] == 404


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "[::1]:7860", "127.0.0.2:7860"])
def test_every_name_of_this_machine_is_answered(host: str) -> None:
    assert ask(host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "[::1", "10.0.0.5:7860"])
def test_a_name_of_another_machine_that_leads_here_is_not(host: str) -> None:
    assert ask(host=host)[0] == 403
    assert ask(host=host, loopback_only=False)[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"http://{HOME}.evil.example", "http://127.0.0.1:9000"])
def test_other_sites_may_not_ask(origin: str) -> None:
    assert ask("/gradio_api/queue/join", origin=origin)[0] == 403
    assert ask("/gradio_api/queue/join", origin=f"http://{HOME}")[0] == 200


def test_a_token_is_shown_once_and_leaves_the_address() -> None:
    def known(path: str, **more: str) -> tuple[int, dict]:
        return ask(path, token="s3cret", loopback_only=False, host="cluster:7860", **more)

    assert {known(path)[0] for path in ("/", "/config", "/gradio_api/upload", "/gradio_api/file=/tmp/clips/a", "/none")} == {401}
    assert known("/", query="token=wrong")[0] == known("/", query="token=")[0] == known("/", cookie="wfc-try=wrong")[0] == 401
    assert known("/", cookie="wfc-try=\u00e4")[0] == known("/", cookie="a b; =;")[0] == 401
    status, headers = known("/", query="token=s3cret")
    assert status == 303 and headers["location"] == "/" and headers["set-cookie"].endswith("; HttpOnly; SameSite=Strict; Path=/")
    assert known("/config", cookie=headers["set-cookie"].partition(";")[0])[0] == 200


def test_a_browser_may_load_from_here_only() -> None:
    for status, headers in (ask(), ask("/none"), ask(host="evil.example")):
        assert "default-src 'self'" in headers["content-security-policy"] and headers["referrer-policy"] == "no-referrer", status
        assert "http" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("node7", False), ("", False)],
)
def test_which_addresses_are_of_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
