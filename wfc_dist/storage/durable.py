"""Durable files and folders. A file is complete if it exists; a folder is complete if it has a manifest.

The commit protocol: write to `X.tmp-<attempt>`, fsync, rename to `X`, write `X/manifest.json` last.
A folder without a manifest was never committed, whatever else it holds. Manifests and control files are sealed: they carry a
checksum of their own, so a changed bit is noticed when they are read.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Required, TypedDict

from wfc_dist import activity
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.storage import faults
from wfc_dist.storage.shapes import STRICT, Shape

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SCHEMA_VERSION = 2
"""Schema of sealed JSON. Version 1, and control files without a version, have no checksum; they are read and never written."""
_SCHEMA, _CHECKSUM = "schema", "checksum"
MOST_BYTES = 1 << 30
"""No record has more bytes."""


class _File(TypedDict):
    size_bytes: int
    sha256: str


class _Manifest(TypedDict, total=False):
    """The manifest of a folder; who commits one adds facts of its own."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    files: Required[dict[str, _File]]
    links: dict[str, str]


_MANIFEST = Shape(_Manifest)


def require_file(path: Path) -> None:
    """Raises OSError for a pipe or a device, whose reader may wait for ever; says nothing where nothing is."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))


def sha256_file(path: Path) -> str:
    """Returns the hex sha256 of a file's bytes. Raises OSError, also for a pipe or a device, whose reader may wait for ever."""
    digest = hashlib.sha256()
    require_file(path)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            activity.moved()
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Returns the hex sha256 of a value as JSON. The order of its keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fsync_path(path: Path) -> None:
    """Flushes a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def forget_cached(path: Path) -> None:
    """Asks the system to read a file that was flushed from the disk, not from memory, when it is read next."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the path to an OSError of the context that names no file, such as a full disk in the middle of a write."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `path` atomically: a reader sees either all old bytes or all new bytes. Raises OSError, which names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if path.is_dir():
            raise InputError(
                f"{path} is a folder, and a file belongs there; move it away, and run the same command again"
            ) from error
        raise
    fsync_path(path.parent)


def read_regular(path: Path, remedy: str) -> bytes:
    """Returns the bytes of a record. It waits for nobody: a pipe in the place of the file is not read, nor is a huge hole.

    Args:
        path: The file.
        remedy: What to do about something else that is there, for messages.

    Raises:
        FileNotFoundError: Nothing is there.
        IntegrityError: Something is there that is no file of at most MOST_BYTES.
        OSError: The file cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket, a link to itself
            raise IntegrityError(f"{path} is no file ({error.strerror}); {remedy}") from error
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError(f"{path} is no file; {remedy}")
        if found.st_size > MOST_BYTES:
            raise IntegrityError(f"{path} has {found.st_size} bytes, more than any record; {remedy}")
        with open(descriptor, "rb", closefd=False) as file, naming(path):
            return file.read()
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Writes `path` atomically (see `write_bytes`) as UTF-8; half a surrogate pair, which has no bytes, as JSON writes it."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_new_text(path: Path, text: str) -> None:
    """Writes a file that is not there yet, as UTF-8: no reader sees a part of it, and of two writers one fails.

    Raises:
        FileExistsError: Something is there already; it stays as it is.
        OSError: The folder is missing or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with naming(path), open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(path) from None
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, keys in the order given, atomically (see `write_text`)."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def seal(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `facts` with the schema version in front and the checksum of everything at the end."""
    assert not facts.keys() & {_SCHEMA, _CHECKSUM}, "these keys are the seal's own"
    tree = {_SCHEMA: SCHEMA_VERSION, **json.loads(json.dumps(facts))}  # as they will be read: text keys, lists
    return tree | {_CHECKSUM: sha256_json(tree)}


def unseal(text: str | bytes, where: object, remedy: str, unchecked: Collection[int | None] = (None, 1)) -> dict[str, Any]:
    """Returns the facts that `seal` got.

    Args:
        text: The JSON.
        where: Path or URL, for messages.
        remedy: What to do about a damaged one, for messages.
        unchecked: Schema versions without a checksum; None is an object without a version.

    Raises:
        IntegrityError: The text is not what was written, or its version is not read.
    """
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError
        raise IntegrityError(f"{where} is not JSON ({error}); {remedy}") from error
    if not isinstance(tree, dict):
        raise IntegrityError(f"{where} holds no JSON object; {remedy}")
    checksum, schema = tree.pop(_CHECKSUM, None), tree.get(_SCHEMA)
    is_whole = checksum == sha256_json(tree)
    if (is_whole and schema == SCHEMA_VERSION) or (checksum is None and schema in unchecked):
        tree.pop(_SCHEMA, None)
        return tree
    if schema != SCHEMA_VERSION and (is_whole or checksum is None):
        raise IntegrityError(
            f"{where} has schema {schema}, this version reads {SCHEMA_VERSION}; use the version of wfc_dist that wrote it"
        )
    raise IntegrityError(f"{where} is damaged: its content does not have its checksum; {remedy}")


def write_sealed(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes a control file: `facts`, sealed, atomically (see `write_json`)."""
    write_json(path, seal(facts))


def read_sealed(path: Path, remedy: str) -> dict[str, Any]:
    """Returns the facts of a control file. Raises FileNotFoundError, and IntegrityError if it is damaged (see `unseal`)."""
    return unseal(read_regular(path, remedy), path, remedy)


def append_line(path: Path, line: str) -> None:
    """Appends one line and flushes it. `read_lines(..., repair=True)` removes a line that a crash left incomplete.

    Raises:
        OSError: The disk is full or fails; it names the file, which ends as before, so that a later line stands by itself.
    """
    descriptor, data = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666), (line + "\n").encode()
    num_written = 0
    try:
        with naming(path):
            while num_written < len(data):  # the last bytes of a disk take a part of the line
                num_written += os.write(descriptor, data[num_written:])
            os.fsync(descriptor)
    except OSError:
        if 0 < num_written < len(data):
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - num_written)
        raise
    finally:
        os.close(descriptor)


def read_lines(path: Path, *, repair: bool = False) -> list[str]:
    """Returns the complete lines of an append-only file.

    Args:
        path: The file. A missing file has no lines.
        repair: Remove an incomplete last line from the file, so that the next append starts a new line.

    Raises:
        IntegrityError: Something else than a file is there (see `read_regular`).
    """
    try:
        data = read_regular(path, f"move {path.name} away, and run the same command again")
    except FileNotFoundError:
        return []
    whole = data[: data.rfind(b"\n") + 1]
    if repair and len(whole) < len(data):
        with open(path, "r+b") as file:
            file.truncate(len(whole))
            os.fsync(file.fileno())
    return whole.decode(errors="replace").split("\n")[:-1]  # not splitlines: a text may hold U+2028


def read_json_lines(
    path: Path,
    *,
    repair: bool = False,
    sealed: bool = False,
    fits: Callable[[object], bool] = lambda row: True,
    tell: Callable[[str], object] = logger.warning,
) -> list[dict[str, Any]]:
    """Returns the objects of an append-only file of JSON lines. Damaged lines are left out, and it is told how many.

    Args:
        path: The file; a missing one has no lines.
        repair: See `read_lines`.
        sealed: Each line was made by `seal`. Lines without a seal are those of an earlier version.
        fits: Says whether an object has the shape of a line; those that have not count as damaged.
        tell: Called with one sentence if lines are damaged.
    """
    rows = [_unsealed(line) if sealed else as_object(line) for line in read_lines(path, repair=repair)]
    whole = [row for row in rows if row is not None and fits(row)]
    if len(whole) < len(rows):
        tell(f"{path}: {len(rows) - len(whole)} of {len(rows)} lines are damaged and left out")
    return whole


def _unsealed(line: str) -> dict[str, Any] | None:
    try:
        return unseal(line, "", "")
    except IntegrityError:
        return None


def as_object(line: str | bytes) -> dict[str, Any] | None:
    """Returns the JSON object of a line; None if the line is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def link(source: Path, target: Path) -> None:
    """Makes `target` a hard link to the file `source`, or a symbolic link if a hard link is not possible."""
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        target.symlink_to(source)


def replace_link(link: Path, target: Path) -> None:
    """Makes `link` a symbolic link to `target`. An existing link is replaced atomically."""
    temporary = link.with_name(f".{link.name}.tmp-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)
    fsync_path(link.parent)


def files_in(folder: Path) -> Iterator[Path]:
    """Yields all files below a folder in order of their paths, except manifests."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            yield path


@contextlib.contextmanager
def new_folder(final: Path, *, may_be_empty: bool = False) -> Iterator[Path]:
    """Yields an empty folder that appears as `final` when the context ends without an error.

    Args:
        final: Must not exist.
        may_be_empty: `final` may also be an empty folder, which is replaced.

    Raises:
        InputError: `final` exists. It is left as it is.
    """
    if final.exists() and not (may_be_empty and final.is_dir() and not any(final.iterdir())):
        raise InputError(f"{final} exists and is not written over; choose another --out")
    staged = final.with_name(f".{final.name}.tmp-{os.getpid()}")
    staged.mkdir(parents=True)
    try:
        yield staged
        os.replace(staged, final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def staging_path(final: Path, attempt: int) -> Path:
    """Returns an empty folder `X.tmp-<attempt>` next to `final`. Leftovers of the same attempt are removed."""
    staged = final.with_name(f"{final.name}.tmp-{attempt}")
    remove(staged)
    staged.mkdir(parents=True)
    return staged


def await_files(folder: Path, names: Sequence[str], timeout_s: float = 60.0) -> None:
    """Waits until this node sees files that another node has written. A network file system may show them with a delay.

    Raises:
        IntegrityError: Some files did not appear in time; the message names them.
    """
    end = time.monotonic() + timeout_s
    while missing := [name for name in names if not (folder / name).is_file()]:
        if time.monotonic() > end:
            raise IntegrityError(
                f"{folder}: {', '.join(missing)} did not appear within {timeout_s:g} s of being written on another node; "
                "is run.dir on a file system that all nodes share?"
            )
        os.listdir(folder)  # a listing asks the server, while a lookup may be answered from a cache
        time.sleep(0.2)


def commit_folder(staged: Path, final: Path, facts: Mapping[str, Any], known: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Makes `staged` the committed folder `final` and returns its manifest.

    Args:
        staged: A complete folder, made by `staging_path`.
        final: The new name. An existing folder is replaced. Its manifest is removed first, so it never looks complete.
        facts: Recorded in the manifest beside sizes and sha256.
        known: Relative file name -> sha256 of files that need not be read again, such as links to a verified file.
    """
    known = known or {}
    files = {}
    for path in files_in(staged):
        name = path.relative_to(staged).as_posix()
        if name not in known:
            fsync_path(path)
        files[name] = {"size_bytes": path.stat().st_size, "sha256": known.get(name) or sha256_file(path)}
    manifest = {"files": files, **facts}
    for folder in {path.parent for path in files_in(staged)} | {staged}:
        fsync_path(folder)
    remove_folder(final)
    os.replace(staged, final)
    fsync_path(final.parent)
    faults.reached("write_manifest")
    write_sealed(final / MANIFEST, manifest)
    return manifest


def remove_folder(folder: Path) -> None:
    """Removes a folder, its manifest first, so that a crash leaves an uncommitted folder and not a damaged one.

    Anything else in its place is removed as well; of a link the link alone.
    """
    if folder.is_dir() and not folder.is_symlink():
        remove(folder / MANIFEST)
    remove(folder)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder with all that is in it, as far as that is possible; what is gone is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def is_committed(folder: Path) -> bool:
    """Returns whether a folder has its manifest, without reading it."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of a folder, or None if the folder was never committed. Raises IntegrityError for a damaged one."""
    try:
        text = read_regular(folder / MANIFEST, f"remove {folder} and run again")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return unseal_manifest(text, folder)


def unseal_manifest(text: bytes, folder: object) -> dict[str, Any]:
    """Returns the manifest of a folder from its bytes. Raises IntegrityError for a damaged one."""
    where, remedy = f"{folder}/{MANIFEST}", f"remove {folder} and run again"
    manifest = unseal(text, where, remedy, unchecked=(1,))
    _MANIFEST.require(manifest, where, remedy)
    for name in (*manifest["files"], *manifest.get("links", {})):
        if "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise IntegrityError(f"{where} lists {name!r}, which is no file of its folder; {remedy}")
    return manifest


def verify_folder(folder: Path, skip: frozenset[str] = frozenset(), leave_out: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Checks every file of a committed folder against its manifest and returns the manifest.

    Args:
        folder: The committed folder.
        skip: Names of files that are not hashed. Their sizes are still checked.
        leave_out: Names of files that are not looked at.

    Raises:
        IntegrityError: There is no manifest, or a file is missing or has another size or sha256; the message names the file.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise IntegrityError(f"{folder} was never committed (no {MANIFEST}); run the same command again")
    for name, fact in manifest["files"].items():
        path = folder / name
        if name in leave_out:
            continue
        if not path.is_file():
            raise IntegrityError(f"{path} is missing; remove {folder} and run again")
        if path.stat().st_size != fact["size_bytes"]:
            raise IntegrityError(
                f"{path} has {path.stat().st_size} bytes, its manifest says {fact['size_bytes']}; remove {folder} and run again"
            )
        if name not in skip and sha256_file(path) != fact["sha256"]:
            raise IntegrityError(
                f"{path} does not have the sha256 of its manifest: the file was changed or is damaged; "
                f"remove {folder} and run again"
            )
    return manifest
