"""A hub on loopback that speaks as much of its API as reading a data set needs: facts, trees, files."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, unquote

from loopback import serving

SHA = "1" * 40
"""The commit of the first branch; that of the second is of twos, and so on."""


class DatasetHub:
    """What the server holds.

    Attributes:
        url: For HF_ENDPOINT.
        branches: Branch -> folder with the files of the repository org/name.
        requests: "METHOD path" of every request, in order.
    """

    def __init__(self, branches: dict[str, Path]) -> None:
        self.url, self.branches = "", branches
        self.requests: list[str] = []

    def commit(self, revision: str) -> str | None:
        """Returns the commit of a branch, or of a commit; None where there is none."""
        known = {branch: str(number) * 40 for number, branch in enumerate(self.branches, start=1)}
        return revision if revision in known.values() else known.get(revision)

    def folder(self, revision: str) -> Path | None:
        """Returns the files of a branch or a commit; None where there is none."""
        commit = self.commit(revision)
        return None if commit is None else [*self.branches.values()][int(commit[0]) - 1]

    def entries(self, folder: Path, below: str, *, recursive: bool) -> list[dict]:
        """Returns files and folders as the API lists them."""
        start = folder / below
        paths = sorted(start.rglob("*") if recursive else start.iterdir())
        return [self.entry(folder, path) for path in paths]

    def entry(self, folder: Path, path: Path) -> dict:
        name = path.relative_to(folder).as_posix()
        kind = "directory" if path.is_dir() else "file"
        size = 0 if path.is_dir() else path.stat().st_size
        return {"type": kind, "path": name, "size": size, "oid": hashlib.sha1(name.encode()).hexdigest()}

    def answer(self, path: str, query: str, body: bytes) -> object:
        """Returns what an API request is answered with, as JSON; None where there is nothing."""
        found = re.fullmatch(r"/api/datasets/org/name(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?", path)
        revision = unquote((found and found[2]) or "main")
        folder = self.folder(revision)
        if found is None or folder is None:
            return None
        if found[1] == "tree":
            below = unquote(found[3])
            return self.entries(folder, below, recursive="true" in query.lower()) if (folder / below).is_dir() else None
        if found[1] == "paths-info":
            asked = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode())["paths"]
            return [self.entry(folder, folder / name) for name in asked if (folder / name).exists()]
        files = [{"rfilename": file.relative_to(folder).as_posix()} for file in sorted(folder.rglob("*")) if file.is_file()]
        return {"id": "org/name", "sha": self.commit(revision), "siblings": files, "private": False, "gated": False, "tags": []}


@contextmanager
def dataset_hub(branches: dict[str, Path]) -> Iterator[DatasetHub]:
    """Yields a hub that answers on a free port of this machine until the context ends."""
    hub = DatasetHub(branches)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            hub.requests.append(f"{self.command} {path}")
            if path.startswith("/datasets/org/name/resolve/"):
                revision, _, name = path.removeprefix("/datasets/org/name/resolve/").partition("/")
                folder = hub.folder(unquote(revision))
                file = None if folder is None else folder / unquote(name)
                data = file.read_bytes() if file is not None and file.is_file() else None
                self.send_file(data, hub.commit(unquote(revision)))
                return
            found = hub.answer(path, query, body)
            if found is None:
                code = "EntryNotFound" if "/org/name" in path else "RepoNotFound"
                self.send(404, b'{"error": "not found"}', {"X-Error-Code": code})
            else:
                self.send(200, json.dumps(found).encode(), {})

        def send_file(self, data: bytes | None, commit: str | None) -> None:
            if data is None or commit is None:
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            facts = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
            asked = (self.headers.get("Range") or "").removeprefix("bytes=").partition("-")
            if asked[0]:
                first, last = int(asked[0]), int(asked[2]) if asked[2] else len(data) - 1
                part = data[first : last + 1]
                self.send(206, part, facts | {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})
            else:
                self.send(200, data, facts)

        def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_HEAD = handle_any

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as hub.url:
        yield hub
