"""A hub on loopback that speaks as much of its API as a push of a model needs: create, list, preupload, LFS, commit."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from loopback import serving


class Hub:
    """What the server holds.

    Attributes:
        url: For HF_ENDPOINT.
        files: Path -> bytes of the repository, after all commits.
        is_private: Of the repository; None before it is made.
        requests: "METHOD path" of every request, in order.
        token: The one that may write; others get 401.
    """

    def __init__(self, token: str) -> None:
        self.url, self.token = "", token
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.is_private: bool | None = None
        self.requests: list[str] = []

    def answer(self, method: str, path: str, body: bytes) -> object:  # noqa: PLR0911 - one for each path
        """Returns what a request is answered with, as JSON; None where there is no such path."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.is_private = asked.get("private", asked.get("visibility") == "private")
            return {"url": f"{self.url}/{asked['organization']}/{asked['name']}", "id": "1"}
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/tree/" in path:
            return [{"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in self.files.items()]
        if path.startswith("/api/models/") and method == "GET":
            return {"id": "org/name", "siblings": [{"rfilename": name} for name in self.files], "sha": "0" * 40}
        if "/preupload/" in path:
            names = [item["path"] for item in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            return {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
        if path.endswith("/objects/batch"):
            asked = json.loads(body)["objects"]
            places = [{"upload": {"href": f"{self.url}/large/{item['oid']}"}} for item in asked]
            return {
                "transfer": "basic",
                "objects": [{**item, "actions": place} for item, place in zip(asked, places, strict=True)],
            }
        if path.startswith("/large/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/large/")
            self.large[path.removeprefix("/large/")] = body
            return {}
        if "/commit/" in path:
            self._commit([json.loads(line) for line in body.splitlines()])
            return {"commitUrl": f"{self.url}/org/name/commit/1", "commitOid": "1"}
        return None

    def _commit(self, operations: list[dict]) -> None:
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del self.files[value["path"]]
            elif operation["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                self.files[value["path"]] = self.large[value["oid"]]


@contextmanager
def hub_on_loopback(token: str) -> Iterator[Hub]:
    """Yields a hub that answers on a free port of this machine until the context ends."""
    hub = Hub(token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0]
            hub.requests.append(f"{self.command} {path}")
            is_known = path.startswith("/large/") or self.headers.get("Authorization") == f"Bearer {hub.token}"
            found = hub.answer(self.command, path, body) if is_known else {"error": "Invalid credentials"}
            data = json.dumps(found).encode()
            self.send_response(401 if not is_known else 404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *_: object) -> None: ...

    with serving(Handler) as hub.url:
        yield hub
