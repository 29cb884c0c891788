"""One base of a run to a repository on the hub: a complete checkpoint with its card."""

import tempfile
from pathlib import Path
from typing import NamedTuple

from wfc_dist.errors import InputError, StorageError
from wfc_dist.exporting.formats import Options
from wfc_dist.exporting.full_card import full_card
from wfc_dist.exporting.models import open_base
from wfc_dist.exporting.safetensors_format import write
from wfc_dist.runs.handle import RunBase
from wfc_dist.runs.root_model import CARD
from wfc_dist.storage import durable

_REPLACED = ["*.safetensors", "*.safetensors.index.json"]
"""Weights that an earlier push may have left in other files: a loader could read them beside the new ones."""


class Pushed(NamedTuple):
    """What was sent, or would be.

    Attributes:
        base: The base.
        files: Name -> size in bytes, in order.
        url: Of the commit; "" for a dry run.
    """

    base: RunBase
    files: dict[str, int]
    url: str


def push(
    run: str | Path,
    repo: str,
    *,
    base: int | None = None,
    private: bool = False,
    dry_run: bool = False,
    shard_size_bytes: int | None = None,
) -> Pushed:
    """Sends a base to the hub in one commit; makes the repository where it does not exist.

    The checkpoint is written to a temporary folder first (see TMPDIR), also for a dry run, which sends nothing. The token is the
    one of `hf auth login` or HF_TOKEN; it is neither read nor shown here.

    Args:
        run: A run directory, or the URL of one.
        repo: OWNER/NAME on the hub.
        base: Index of the base; the last one by default.
        private: Make the repository private, where it does not exist yet.
        dry_run: Send nothing.
        shard_size_bytes: The most that one file holds; one file by default.

    Raises:
        InputError: No such run or base, no name of a repository, or the hub refuses.
        IntegrityError: The base is not the one that was committed.
        StorageError: The hub does not answer.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"{repo!r} is no name of a repository such as OWNER/NAME: {error}") from error
    opened, found = open_base(run, base)
    with tempfile.TemporaryDirectory(prefix="wfc-push-") as scratch:
        folder = Path(scratch)
        write(found.path, folder, Options(shard_size_bytes=shard_size_bytes))
        (folder / CARD).write_text(full_card(opened, found.index), encoding="utf-8")
        files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in durable.files_in(folder)}
        url = "" if dry_run else _send(folder, repo, f"Base {found.index} ({found.sha256[:12]})", private=private)
    return Pushed(found, files, url)


def _send(folder: Path, repo: str, message: str, *, private: bool) -> str:
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        name = api.create_repo(repo, private=private, exist_ok=True).repo_id
        sent = api.upload_folder(repo_id=name, folder_path=folder, commit_message=message, delete_patterns=_REPLACED)
    except errors.HfHubHTTPError as error:
        status, said = error.response.status_code, error.server_message or error.response.reason_phrase
        hint = "; log in with `hf auth login`, or set HF_TOKEN to a token that may write there" if status in (401, 403) else ""
        raise InputError(f"the hub refused {repo} (HTTP {status}): {said}{hint}") from None
    except (_http_error(), OSError, RuntimeError, ValueError) as error:
        raise StorageError(
            f"{repo} was not sent ({type(error).__name__}: {error}); nothing was committed, the same command tries again"
        ) from error
    return str(sent.commit_url)


def _http_error() -> type[Exception]:
    """Returns the error of the library that huggingface_hub sends with: which one that is depends on its version."""
    from huggingface_hub import errors

    return next(kind for kind in errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError" and issubclass(kind, Exception))
