"""A run on object storage and its mirror, a local folder at the same path on every node. All other code works on the mirror.

    fetch    remote -> here: a committed folder; each file is verified by the sha256 in its manifest
    publish  here -> remote: files first, manifest.json last; writing the manifest is the commit, as there is no rename

`NoMirror` stands for a run in a local or shared folder. It has the same methods, which do nothing.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.storage import durable, faults
from wfc_dist.storage.durable import MANIFEST
from wfc_dist.storage.objects import Objects, at_once

logger = logging.getLogger(__name__)
OWN = ".mirror"  # locks, unfinished downloads and the id of the run; never published
CONTROL = "control"  # the lock and the request to stop; never mirrored
_NUM_DOWNLOADS = 3


def mirror_folder(url: str, cache_dir: str | None, name: str) -> Path:
    """Returns the folder of the mirror of a run on object storage; the path is the same on every node."""
    cache = Path(cache_dir).expanduser() if cache_dir else Path.home() / ".cache" / "wfc_dist" / "runs"
    return cache.absolute() / f"{name}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class NoMirror:
    """Stands for the mirror of a run directory that all processes share."""

    is_remote = False

    def adopt(self) -> None:
        """Does nothing."""

    def fetch(self, folder: Path, shared: Path | None = None) -> bool:
        """Returns whether the folder is committed."""
        return durable.read_manifest(folder) is not None

    def publish(self, folder: Path) -> None:
        """Does nothing."""

    def publish_staged(self, folder: Path) -> None:
        """Does nothing."""

    def publish_file(self, path: Path) -> None:
        """Does nothing."""

    def fetch_file(self, path: Path) -> bool:
        """Returns whether the file exists."""
        return path.is_file()

    def discard(self, folder: Path) -> bool:
        """Returns False, because there is no other copy."""
        return False

    def folders(self, parent: Path) -> list[str]:
        """Returns the names of the committed folders in `parent`."""
        return sorted(path.parent.name for path in parent.glob(f"*/{MANIFEST}"))

    def remove(self, folder: Path) -> None:
        """Does nothing; the caller removes the local folder."""


@dataclass(frozen=True)
class Mirror:
    """The URL of a run and its local mirror. It can be sent to other processes and nodes.

    Attributes:
        folder: The local folder.
        objects: The objects below the URL of the run.
        run_id: Id of the run. Files of another run at the same URL are moved aside and never mixed with those of this run.
    """

    folder: Path
    objects: Objects
    run_id: str = ""

    is_remote = True

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def own(self) -> Path:
        """Returns the folder of the mirror's own files. Raises InputError if this node cannot create it."""
        own = self.folder / OWN
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the mirror {self.folder} of {self.objects.url} cannot be created on this node ({error.strerror}); "
                "set cluster.cache_dir to a folder that can be written on every node"
            ) from error
        return own

    @contextlib.contextmanager
    def _alone(self, what: str) -> Iterator[Path]:
        """Locks one folder for this process on this node. Yields a path for unfinished downloads."""
        path = self.own() / hashlib.sha256(what.encode()).hexdigest()[:16]
        with open(path.with_suffix(".lock"), "a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield path

    def adopt(self) -> None:
        """Makes the local folder the mirror of this run. Files of another run are moved aside. Every process calls it first."""
        with self._alone("run_id"):
            path = self.folder / OWN / "run_id"
            known = path.read_text(encoding="utf-8") if path.is_file() else None
            if known == self.run_id:
                return
            found = [entry for entry in self.folder.iterdir() if entry.name not in (OWN, "lock")]
            if found:
                aside = self.folder.with_name(f"{self.folder.name}.aside-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
                aside.mkdir()
                for entry in found:
                    os.replace(entry, aside / entry.name)
                logger.warning("%s mirrored another run at %s; its files are in %s", self.folder, self.objects.url, aside)
            durable.write_text(path, self.run_id)

    def fetch(self, folder: Path, shared: Path | None = None) -> bool:
        """Fetches a committed folder, unless the same version is here already.

        Args:
            folder: A folder below the mirror. Another version of it is replaced.
            shared: Holds the files that the manifest of the folder names as links. Linked files are never uploaded.

        Returns:
            Whether the folder is committed on object storage.

        Raises:
            IntegrityError: A file on object storage does not match its manifest, after three downloads.
        """
        name = self._name(folder)
        with self._alone(name) as unfinished:
            data = self.objects.read(f"{name}/{MANIFEST}")
            if data is None:
                return False
            manifest = durable.unseal_manifest(data, self.objects.where(name))
            if _has(folder, data, manifest["files"]):
                return True
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            links = manifest.get("links", {})
            for link, path in links.items():
                assert shared is not None, f"{folder} links to the root's files"
                durable.link(shared / Path(path).name, unfinished / link)
            at_once(
                lambda file: self._download(name, file, manifest["files"][file], unfinished), manifest["files"].keys() - links
            )
            durable.remove_folder(folder)
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished, folder)
            durable.write_text(folder / MANIFEST, data.decode())
        logger.info("fetched %s", self.objects.where(name))
        return True

    def _download(self, name: str, file: str, fact: Mapping[str, Any], into: Path) -> None:
        target, found = into / file, "is missing"
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_NUM_DOWNLOADS):
            if self.objects.download(f"{name}/{file}", target):
                if target.stat().st_size != fact["size_bytes"]:
                    found = f"has {target.stat().st_size} bytes, not {fact['size_bytes']}"
                elif durable.sha256_file(target) != fact["sha256"]:
                    found = "does not have the sha256 of its manifest"
                else:
                    return
            logger.warning("%s/%s %s", self.objects.where(name), file, found)
        raise IntegrityError(
            f"{self.objects.where(name)}/{file} {found}, downloaded {_NUM_DOWNLOADS} times: it was changed or is damaged; "
            f"remove {self.objects.where(name)} and run again"
        )

    def publish(self, folder: Path) -> None:
        """Uploads a folder that is committed here: files first, manifest last, which commits it on object storage.

        Another version on object storage is replaced. Its manifest is removed first, so that it never looks complete.
        """
        name, data = self._name(folder), (folder / MANIFEST).read_bytes()
        before = self.objects.read(f"{name}/{MANIFEST}")
        if before == data:
            return
        manifest = durable.unseal_manifest(data, folder)
        links = manifest.get("links", {})
        wanted = {f"{name}/{file}": fact["size_bytes"] for file, fact in manifest["files"].items() if file not in links}
        if before is not None:
            self.objects.remove(f"{name}/{MANIFEST}")
        at_once(lambda key: self.objects.upload(self.folder / key, key), wanted)
        found = self.objects.list(name)
        if missing := sorted(key for key, size in wanted.items() if found.get(key) != size):
            raise IntegrityError(
                f"{self.objects.where(missing[0])} has {found.get(missing[0])} bytes right after it was written, "
                f"not {wanted[missing[0]]}; does another process write there?"
            )
        self.objects.remove(*(found.keys() - wanted.keys()))
        faults.reached("publish_manifest")
        self.objects.write(f"{name}/{MANIFEST}", data)

    def publish_staged(self, folder: Path) -> None:
        """Publishes a finished staging folder under its own name. The coordinator fetches and commits it."""
        facts = {
            path.relative_to(folder).as_posix(): {"size_bytes": path.stat().st_size, "sha256": durable.sha256_file(path)}
            for path in durable.files_in(folder)
        }
        durable.write_sealed(folder / MANIFEST, {"staged": True, "files": facts})
        self.publish(folder)

    def publish_file(self, path: Path) -> None:
        """Uploads the present content of a file outside committed folders. Does nothing if the file does not exist."""
        with contextlib.suppress(FileNotFoundError):
            self.objects.write(self._name(path), path.read_bytes())

    def fetch_file(self, path: Path) -> bool:
        """Replaces a file by the version on object storage and returns whether there is one."""
        data = self.objects.read(self._name(path))
        if data is not None:
            durable.write_bytes(path, data)
        return data is not None

    def discard(self, folder: Path) -> bool:
        """Removes the local folder if object storage has a committed copy to fetch again. Returns whether it was removed."""
        if self.objects.read(f"{self._name(folder)}/{MANIFEST}") is None:
            return False
        durable.remove_folder(folder)
        return True

    def folders(self, parent: Path) -> list[str]:
        """Returns the names of the folders in `parent` that are committed on object storage."""
        found = [Path(name) for name in self.objects.list(self._name(parent))]
        return sorted(path.parent.name for path in found if path.name == MANIFEST and path.parent.parent.name == parent.name)

    def remove(self, folder: Path) -> None:
        """Removes a folder from object storage, its manifests first."""
        names = self.objects.list(self._name(folder))
        self.objects.remove(*(name for name in names if name.endswith(f"/{MANIFEST}")))
        self.objects.remove(*(name for name in names if not name.endswith(f"/{MANIFEST}")))


AnyMirror: TypeAlias = Mirror | NoMirror
NO_MIRROR = NoMirror()


def _has(folder: Path, manifest: bytes, files: Mapping[str, Mapping[str, Any]]) -> bool:
    """Returns whether a folder is complete. Its files were verified when they were fetched, so comparing sizes is enough."""
    with contextlib.suppress(OSError):
        same = (folder / MANIFEST).read_bytes() == manifest
        return same and all((folder / name).stat().st_size == fact["size_bytes"] for name, fact in files.items())
    return False
