"""Stands before the page: who may ask, for what, and what a browser may load. An ASGI application around another one."""

import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_COOKIE = "wfc-try"
_ROUTES = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info|startup-events|upload|upload_progress|queue/(join|data)|cancel|heartbeat/[a-z0-9]+|file=.*)"
)
"""What the page itself asks for. Everything else that Gradio offers (proxies, monitoring, other calls) is not there."""
_FILE = "/gradio_api/file="
_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; object-src 'none'; "
    "frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Says whether a name or an address stands for this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """Lets through what the page needs, from those who may ask.

    Args:
        app: The page.
        token: What a browser must have shown once, in the address; "" where no token is needed.
        uploads: The folder that files may be fetched from.
        loopback_only: Whether only addresses of this machine are answered, so that no other site can use the page through a
            name that leads here.
    """

    def __init__(self, app: App, *, token: str, uploads: str, loopback_only: bool) -> None:
        self._app, self._token, self._uploads, self._loopback_only = app, token, uploads.rstrip("/"), loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # the page opens no web sockets; the server closes the connection
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = [(name, value) for name, value in message["headers"] if name.decode("latin-1").lower() not in _HEADERS]
                message["headers"] = [*kept, *((name.encode(), value.encode()) for name, value in _HEADERS.items())]
            await send(message)

        await self._app(scope, receive, with_headers)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, dict[str, str]] | None:
        """Returns status, text and headers of an answer that the page does not give itself; None where the page answers."""
        host = headers.get("host", "")
        if self._loopback_only and not is_loopback(_hostname(host)):
            return 403, "This page answers on this machine only: open it as http://127.0.0.1 with its port.", {}
        origin = headers.get("origin", "")
        if origin and origin.partition("://")[2] != host:
            return 403, "This page takes no requests from other sites.", {}
        if self._token and not self._is_known(headers):
            return self._first_visit(scope)
        return None if self._is_served(scope["path"]) else (404, "There is nothing here.", {})

    def _is_known(self, headers: dict[str, str]) -> bool:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(headers.get("cookie", ""))
        except CookieError:
            return False
        return _COOKIE in cookies and secrets.compare_digest(cookies[_COOKIE].value.encode(), self._token.encode())

    def _first_visit(self, scope: Scope) -> tuple[int, str, dict[str, str]]:
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if not secrets.compare_digest(given.encode(), self._token.encode()):
            return 401, "Open the address that `wfc try` printed, with its token.", {}
        cookie = f"{_COOKIE}={self._token}; HttpOnly; SameSite=Strict; Path=/"
        return 303, "", {"location": "/", "set-cookie": cookie}  # so that the token leaves the address bar

    def _is_served(self, path: str) -> bool:
        if not _ROUTES.fullmatch(path) or "\\" in path or ".." in path.split("/"):
            return False
        file = path.removeprefix(_FILE)
        return file == path or (file.startswith(f"{self._uploads}/") and not file.endswith("/"))


async def _answer(send: Send, status: int, text: str, headers: dict[str, str]) -> None:
    body = text.encode()
    lines = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), **_HEADERS, **headers}
    named = [(name.encode(), value.encode()) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})
