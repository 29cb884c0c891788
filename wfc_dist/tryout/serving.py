"""Serves the page until somebody ends it: `wfc try`."""

import importlib.util
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfc_dist.errors import InputError
from wfc_dist.tryout.choices import Choice, list_choices
from wfc_dist.tryout.clips import MAX_MB
from wfc_dist.tryout.guard import App, Guard, is_loopback
from wfc_dist.tryout.shelf import Shelf

if TYPE_CHECKING:
    from wfc_dist.evaluation.any_model import LoadedModel

_SHARE_OF_MEMORY = 0.5


def serve(models: Sequence[str], host: str, port: int, say: Callable[[str], None], *, opens_browser: bool) -> None:
    """Serves the page until SIGINT or SIGTERM, which end the process at once: nothing is lost but the clips.

    Args:
        models: See `list_choices`.
        host: Address to listen on. Where it is not one of loopback, a token is needed to open the page.
        port: 0 takes a free one.
        say: Told the address, once.
        opens_browser: Whether a browser of the desktop, if there is one, shows the page.

    Raises:
        InputError: A model that is none, Gradio is not installed, or an address or a port that cannot be had.
    """
    if importlib.util.find_spec("gradio") is None:
        raise InputError("wfc try needs Gradio; run `pip install 'wfc-dist[try]'`")
    list_choices(models)
    door = _listen(host, port)
    uploads = Path(tempfile.mkdtemp(prefix="wfc-try-")).resolve()  # only this user may open it
    token = "" if is_loopback(host) else secrets.token_urlsafe(24)
    try:
        app = make_app(lambda: list_choices(models), uploads, token)
        address = _address(host, door.getsockname()[1], token)
        _tell(address, token, uploads, say)
        if opens_browser and _has_desktop():
            webbrowser.open(address)
        _run(app, door, uploads)
    finally:
        _clean(uploads)


def make_app(list_models: Callable[[], Sequence[Choice]], uploads: Path, token: str) -> App:
    """Returns the page behind its guard, as an ASGI application.

    Args:
        list_models: Returns the models to offer.
        uploads: An empty folder for clips.
        token: See `Guard`. Without one only addresses of this machine are answered.
    """
    # Gradio reads these when it is imported: no telemetry, and no folder for clips beside this one.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(uploads)}
    import fastapi
    import gradio

    from wfc_dist.tryout.cards import CSS
    from wfc_dist.tryout.page import THEME, make_page

    for name in ("gradio", "httpx", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    page = make_page(list_models, Shelf(_limit_bytes(), _size_bytes), uploads)
    page.has_launched = True  # Gradio checks the paths of requests only then
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gradio.mount_gradio_app(
        app, page, path="/", allowed_paths=[], max_file_size=MAX_MB * 1_000_000, show_error=False, ssr_mode=False, pwa=False,
        footer_links=[], run_history=False, enable_monitoring=False, mcp_server=False, css=CSS, theme=THEME,
    )  # fmt: skip
    return Guard(app, token=token, uploads=str(uploads), loopback_only=not token)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        door = socket.socket(family, socket.SOCK_STREAM)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(64)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"cannot listen on port {port} of {host} ({error}); choose another --port (0 takes a free one), or another --host"
        ) from error
    return door


def _address(host: str, port: int, token: str) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _tell(address: str, token: str, uploads: Path, say: Callable[[str], None]) -> None:
    """Says the address. A token goes to a terminal, or to a file that only this user reads: never to a log."""
    if token and not sys.stdout.isatty():
        secret = _address_file(uploads)
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{address}\n")
        say(f"the address with its token is in {secret}; Ctrl-C ends")
    else:
        say(f"{address}  (Ctrl-C ends)")


def _address_file(uploads: Path) -> Path:
    return uploads.with_name(f"{uploads.name}.address")


def _clean(uploads: Path) -> None:
    shutil.rmtree(uploads, ignore_errors=True)
    _address_file(uploads).unlink(missing_ok=True)


def _has_desktop() -> bool:
    """Says whether there is a desktop. Without one Python would start a browser that takes the terminal."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _run(app: App, door: socket.socket, uploads: Path) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            # A decoding in another thread would hold the process up for minutes.
            _clean(uploads)
            sys.stdout.flush()
            os._exit(0 if sig == signal.SIGINT else 128 + sig)

    Server(uvicorn.Config(app, log_level="critical", access_log=False, ws="none")).run(sockets=[door])


def _limit_bytes() -> int:
    """Returns how much of the memory that is free now the models may hold."""
    import psutil
    import torch

    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
    return int(_SHARE_OF_MEMORY * free)


def _size_bytes(model: "LoadedModel") -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.model.parameters())
