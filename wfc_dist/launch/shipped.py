"""Files that users copy or submit: example configurations, batch scripts, cluster descriptions.

They lie at the top of the repository. A wheel carries them in wfc_dist/shipped.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import wfc_dist
from wfc_dist.errors import InputError, nearest

FOLDERS = ("configs", "launch", "slurm")


def folder(name: str) -> Path:
    """Returns one of `FOLDERS`, from the wheel or from the checkout whose package runs."""
    package = Path(wfc_dist.__file__).parent
    packed = package / "shipped" / name
    return packed if packed.is_dir() else package.parent / name


def all_files() -> dict[str, Path]:
    """Returns name, such as slurm/round.sh, -> file; sorted by name."""
    found = {f"{name}/{path.name}": path for name in FOLDERS for path in folder(name).iterdir() if path.is_file()}
    return dict(sorted(found.items()))


def selected(names: Sequence[str]) -> dict[str, Path]:
    """Returns the files of these names; the name of a folder stands for its files. Raises InputError for an unknown name."""
    files, chosen = all_files(), dict[str, Path]()
    for name in (name.rstrip("/") for name in names):
        matching = {key: path for key, path in files.items() if name in (key, key.partition("/")[0])}
        if not matching:
            raise InputError(f"{name!r} is no file or folder of wfc{nearest(name, [*FOLDERS, *files])}")
        chosen |= matching
    return chosen


def copy(files: dict[str, Path], out: Path) -> list[Path]:
    """Writes files of `selected` below `out` and returns their paths.

    Raises:
        InputError: A file is there with another content, or cannot be written. No file is written over.
    """
    targets = {out / name: source for name, source in files.items()}
    try:
        for target, source in targets.items():
            if target.exists() and (not target.is_file() or target.read_bytes() != source.read_bytes()):
                raise InputError(f"{target} is there and differs; nothing was written: move it away, or give another --out")
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            if source.suffix == ".sh":
                target.chmod(target.stat().st_mode | 0o111)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}; give another --out") from error
    return list(targets)
