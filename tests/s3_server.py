"""A real S3 API over HTTP on loopback (moto in a process of its own) behind a proxy that fails requests on order.

A plan names, for a kind of request, how the first ones of it fail, one after the other:
403 (AccessDenied), 500, 503 (SlowDown), reset (before it is served), lost (served, the answer is not), cut (half a body),
corrupt (another byte).
"""

import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BUCKET = "runs"
CONTROL = "/.faults"
CODES = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown"}
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
               "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}  # fmt: skip


def kind_of(method: str, path: str, headers: Mapping[str, str]) -> str:
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if method == "PUT":
        return "part" if "partNumber" in query else "conditional put" if headers.get("If-None-Match") else "put"
    if method == "POST":
        return "create multipart" if "uploads" in query else "complete multipart" if "uploadId" in query else "delete many"
    if method == "DELETE":
        return "abort multipart" if "uploadId" in query else "delete"
    if method == "GET":
        is_list = "list-type" in query or "delimiter" in query or "prefix" in query
        return "list" if is_list else "ranged get" if headers.get("Range") else "get"
    return method.lower()


class _Plan:
    """Which requests fail, and what was seen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.orders: dict[str, list[str]] = {}
        self.seen: dict[str, int] = {}
        self.fired: list[list[str]] = []

    def take(self, kind: str, path: str) -> str | None:
        with self.lock:
            self.seen[kind] = self.seen.get(kind, 0) + 1
            orders = self.orders.get(kind)
            if not orders:
                return None
            self.fired.append([kind, orders[0], path])
            return orders.pop(0)


def _handler(plan: _Plan, target_port: int) -> type[BaseHTTPRequestHandler]:
    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path == CONTROL:
                return self._control(body)
            fault = plan.take(kind_of(self.command, self.path, self.headers), self.path)
            if fault == "reset":
                return self._reset()
            if fault in CODES:
                code = CODES[fault]
                text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
                return self._answer(int(fault), {"Content-Type": "application/xml"}, text)
            connection = http.client.HTTPConnection("127.0.0.1", target_port, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            response = connection.getresponse()
            data = response.read()
            connection.close()
            if fault == "lost":
                return self._reset()
            if fault == "corrupt" and data:
                data = data[:-1] + bytes([data[-1] ^ 1])
            return self._answer(response.status, dict(response.getheaders()), data, cut=fault == "cut")

        def _answer(self, status: int, headers: Mapping[str, str], data: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            size = headers.get("Content-Length", str(len(data))) if self.command == "HEAD" else str(len(data))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", size)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.wfile.flush()
                self._reset()

        def _reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.close_connection = True
            self.connection.close()

        def _control(self, body: bytes) -> None:
            with plan.lock:
                if self.command == "POST":
                    plan.orders, plan.seen, plan.fired = json.loads(body), {}, []
                answer = json.dumps({"seen": plan.seen, "fired": plan.fired, "left": plan.orders}).encode()
            self._answer(200, {"Content-Type": "application/json"}, answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

    return Proxy


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # connections it closed itself


class S3:
    """The client side of a started server: its address, and what is to fail."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint}

    def _call(self, orders: Mapping[str, Sequence[str]] | None) -> dict[str, Any]:
        data = None if orders is None else json.dumps(orders).encode()
        with urllib.request.urlopen(urllib.request.Request(self.endpoint + CONTROL, data), timeout=10) as answer:
            return json.loads(answer.read())

    def fail(self, **orders: Sequence[str]) -> None:
        """Makes coming requests fail: kind (spaces as underscores) -> faults, in order; forgets what was seen."""
        self._call({kind.replace("_", " "): list(faults) for kind, faults in orders.items()})

    def fired(self) -> list[list[str]]:
        """Returns [kind, fault, path] of every fault since `fail`."""
        return self._call(None)["fired"]

    def left(self) -> dict[str, list[str]]:
        """Returns the faults that have not fired yet."""
        return {kind: faults for kind, faults in self._call(None)["left"].items() if faults}

    def seen(self) -> dict[str, int]:
        """Returns kind -> number of requests since `fail`."""
        return self._call(None)["seen"]


@contextlib.contextmanager
def s3_server(folder: Path, host: str = "127.0.0.1") -> Iterator[S3]:
    """Starts the server with one empty bucket, on loopback or where only a test's own hosts reach it; ends it after.

    This process then forgets what it opened: fsspec keeps file systems by their options, not by the endpoint of the environment,
    and the next test would ask the server that is gone.
    """
    import s3fs

    address = folder / "s3-address"
    with open(folder / "s3-server.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(address), host], stdout=log, stderr=log, env=os.environ | ENVIRONMENT
        )
    try:
        end = time.monotonic() + 60
        while not address.exists():
            assert process.poll() is None and time.monotonic() < end, (folder / "s3-server.log").read_text()
            time.sleep(0.05)
        yield S3(address.read_text())
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        process.kill()
        process.wait()


def _main(address: Path, host: str) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, moto_port = moto.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{moto_port}").create_bucket(Bucket=BUCKET)
    proxy = _Server((host, 0), _handler(_Plan(), moto_port))
    address.with_suffix(".new").write_text(f"http://{host}:{proxy.server_port}")
    os.replace(address.with_suffix(".new"), address)
    proxy.serve_forever()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
