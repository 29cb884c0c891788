"""Objects below a URL (s3://, gs://, any fsspec file system). A request is repeated if its failure may be temporary.

No other file talks to fsspec. This file knows nothing about runs.
"""

import contextlib
import errno
import logging
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wfc_dist import activity
from wfc_dist.errors import ConfigError, InputError, StorageError, require

logger = logging.getLogger(__name__)
_WITH_SECRET = re.compile(r"\s*[A-Za-z][\w+.-]*:/{1,3}[^/\s@]*(?::(?!\d+/)|%3[Aa])\S*@")  # a key may hold a slash, a port is none
_BUCKET = re.compile(r"[\w.-]{1,255}|arn:\S+", re.ASCII)
T = TypeVar("T")
RETRY_FOR_S = 120.0  # a longer outage ends the command; the same command resumes
_NUM_AT_A_TIME = 8
_EXTRAS = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}
_NEVER_AGAIN = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    NotImplementedError,
    ValueError,
    TypeError,
)
_LOCAL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOSYS)
_REFUSED = ("NoSuchBucket", "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "ProfileNotFound")


def is_url(text: str) -> bool:
    """Returns whether a run directory is a URL and not a path."""
    return "://" in text


def require_no_secret(text: str, where: str) -> None:
    """Raises ConfigError for a URL with a password or a key in it, which would reach logs and records. Never repeats it."""
    if _WITH_SECRET.match(text):
        raise ConfigError(
            f"{where} is a URL with a password or a key in front of '@', which would reach files and logs; take it out, "
            "and give it the way the service documents: for s3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )


def at_once(function: Callable[[Any], T], items: Any) -> list[T]:
    """Returns `function` of every item, in order. Several calls run at a time, because object storage answers slowly."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(_NUM_AT_A_TIME) as pool:
        return list(pool.map(function, items))


def require_file_system(url: str) -> None:
    """Raises ConfigError if the package for URLs of this kind is not installed."""
    package, extra = _EXTRAS.get(url.partition("://")[0], ("", ""))
    if package:
        require(package, extra, url)


def _options(protocol: str) -> dict[str, Any]:
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}  # other processes write here, too
    if protocol in ("file", "local"):
        options["auto_mkdir"] = True
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # Only this file repeats requests, because retries of several layers multiply. A silent connection ends after 30 s.
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 30}
    return options


def _open(url: str) -> tuple[Any, str]:
    import fsspec

    require_no_secret(url, "the address of the run")
    protocol = url.partition("://")[0]
    if protocol in _EXTRAS and not _BUCKET.fullmatch(bucket := url.partition("://")[2].partition("/")[0]):
        raise ConfigError(f"{url}: {bucket!r} is no name of a bucket, which has letters, digits, '.', '_' and '-' alone")
    require_file_system(url)
    if protocol in ("http", "https"):
        raise ConfigError(f"{url} can only be read; a run needs a folder, or object storage such as s3:// or gs://")
    try:
        file_system, path = fsspec.url_to_fs(url, **_options(protocol))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url} cannot be opened: {error}") from error
    return file_system, path.rstrip("/")


def _code(error: BaseException) -> str:
    """Returns the error code of the service, which s3fs does not pass on, or the name of the exception's class."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def _is_refused(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or _code(error) in _REFUSED


def _may_pass(error: BaseException) -> bool:
    if _code(error) == "NoSuchUpload":  # the answer to "complete" was lost, and s3fs tried to abort a complete upload
        return True
    return not isinstance(error, _NEVER_AGAIN) and getattr(error, "errno", None) not in _LOCAL_ERRNOS


@dataclass(frozen=True)
class Objects:
    """The objects below one URL. Names are relative to the URL. An instance can be sent to other processes.

    Every method raises InputError if access is refused or the bucket is missing, and StorageError if the service fails for
    longer than `RETRY_FOR_S`. Both messages name the operation and the URL.
    """

    url: str

    def where(self, name: str) -> str:
        """Returns the URL of one object."""
        return f"{self.url.rstrip('/')}/{name}"

    def _request(self, operation: str, name: str, call: Callable[[Any, str], T]) -> T:
        """Runs one request. Repeats it with growing pauses while its failure may be temporary."""
        file_system, root = _open(self.url)
        end, pause_s = time.monotonic() + RETRY_FOR_S, 0.2
        told = False
        while True:
            try:
                return call(file_system, f"{root}/{name}" if name else root)
            except Exception as error:  # each library has its own error classes; a permanent error is raised again
                if _is_refused(error):
                    raise InputError(
                        f"{operation} {self.where(name)} was refused ({_code(error)}: {error}); check that the bucket is there, "
                        "and that the credentials may list, get, put and delete below it"
                    ) from error
                if not _may_pass(error):
                    raise
                if time.monotonic() + pause_s > end:
                    raise StorageError(
                        f"{operation} {self.where(name)} failed for {RETRY_FOR_S:g} s ({_code(error)}: {error}); "
                        "check the endpoint and the network; the same command goes on"
                    ) from error
                if pause_s > 5 and not told:
                    told = True
                    logger.warning("%s %s: %s (%s); trying again", operation, self.where(name), _code(error), error)
            time.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, 10.0)

    def read(self, name: str) -> bytes | None:
        """Returns an object's bytes, or None if there is no such object."""
        try:
            return self._request("reading", name, lambda file_system, path: bytes(file_system.cat_file(path)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Writes an object. A reader sees either all old bytes or all new bytes."""
        self._request("writing", name, lambda file_system, path: file_system.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object unless it exists (a conditional put), and returns whether it was written. `data` must be unique."""

        def put(file_system: Any, path: str) -> bool:
            try:
                file_system.pipe_file(path, data, mode="create")
            except OSError as error:
                if isinstance(error, FileExistsError) or _code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

        # If the answer to a put was lost, the repeated put fails, but the object holds `data`.
        return self._request("creating", name, put) or self.read(name) == data

    def upload(self, path: Path, name: str) -> None:
        """Writes an object from a file. Large files go up in parts of fsspec's `default_block_size`."""

        def put(file_system: Any, target: str) -> None:
            options = {"chunksize": file_system.default_block_size} if hasattr(file_system, "default_block_size") else {}
            file_system.put_file(str(path), target, **options)

        self._request("uploading", name, put)
        activity.moved()

    def download(self, name: str, path: Path) -> bool:
        """Writes an object to a file and returns whether there was one. The caller must verify the file."""
        try:
            self._request("downloading", name, lambda file_system, source: file_system.get_file(source, str(path)))
        except FileNotFoundError:
            return False
        activity.moved()
        return True

    def list(self, folder: str = "") -> dict[str, int]:
        """Returns name -> size in bytes of every object below a folder."""

        def find(file_system: Any, path: str) -> dict[str, int]:
            start = len(path) - len(folder)
            found = file_system.find(path, detail=True)
            return {key[start:].lstrip("/"): info["size"] for key, info in found.items() if info["type"] == "file"}

        try:
            return self._request("listing", folder, find)
        except FileNotFoundError as error:
            if _is_refused(error):
                raise
            return {}

    def remove(self, *names: str) -> None:
        """Removes objects. A missing object is not an error."""

        def remove_one(name: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                self._request("removing", name, lambda file_system, path: file_system.rm_file(path))

        at_once(remove_one, names)
