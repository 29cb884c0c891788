"""Looks at a data set of the Hugging Face hub, or at a copy of its repository in a folder. No remote code runs."""

import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from wfc_dist.data.detection.groups import Group, groups_of
from wfc_dist.data.detection.roles import split_of
from wfc_dist.data.detection.units import Unit
from wfc_dist.data.readers.cells import first_reason, told
from wfc_dist.errors import InputError

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps a copy of a data set as parquet files, CONFIGURATION/SPLIT/0000.parquet."""
HELD_BACK, _LEAST_TO_HOLD_BACK = 5, 100
"""Percent of the only split of a repository that become its test split, where it has that many rows."""
NUM_STREAMED = 32
"""Rows of a split that are fetched to look at them."""
_ID = re.compile(r"^([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?::([\w.-]+))?$")
_READ_WHOLE = ("parquet", "arrow", "json", "csv")
_TIMEOUT_S = 15.0
_MOST_NAMED, _MOST_FILES = 8, 24
_NETWORK = ("http", "requests", "urllib3", "socket", "ssl")
"""How modules begin whose errors say that the hub does not answer."""
_CELL = {"bytes": "binary", "path": "string"}


def hub_id(source: str) -> tuple[str, str] | None:
    """Returns (repository, configuration or "") of `org/name:subset`; None for a path, such as one into a folder that is here."""
    match = _ID.match(source)
    if match is None or (Path(match[1]).parts[0] and Path(Path(match[1]).parts[0]).exists() and not Path(match[1]).is_dir()):
        return None
    return match[1], match[2] or ""


def has_card(folder: Path) -> bool:
    """Says whether a folder is a repository of the hub whose card names the files of its splits."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return text.startswith("---") and re.search(r"^configs:", text.split("\n---", 1)[0], re.M) is not None


def hub_groups(name: str, subset: str) -> list[Group]:
    """Returns the corpora of a configuration of a data set: one, or one for each training split.

    Args:
        name: The repository, or a folder with a copy.
        subset: The configuration; "" takes the only one.

    Raises:
        InputError: The hub cannot be reached, or has no such data set or configuration; or there are several configurations.
    """
    options = _configuration(name, subset)
    with told(f"look at {name}", "check the name and the configuration"):
        sizes, builder = _splits(name, tuple(options.items()))
    if builder not in _READ_WHOLE:
        options["streaming"] = True
    units = []
    for split in sizes:
        ours, rest = split_of(split)
        units.append(Unit("hub", Path(name), split, ours, (rest,) if rest else (), (), tuple(options.items())))
    if not units:
        raise InputError(f"{name} has no splits; name another data set")
    if len(units) == 1 and not options.get("streaming") and _is_large(units[0], sizes[units[0].value]):
        return [_held_back(units[0])]
    return groups_of(units)


def _is_large(unit: Unit, size: int | None) -> bool:
    """Says whether a split has rows enough to hold some back; where their number is not known, whether it has NUM_STREAMED."""
    return size >= _LEAST_TO_HOLD_BACK if size else len(sample_of(unit)) == NUM_STREAMED


def _held_back(unit: Unit) -> Group:
    """Returns the corpus of the only split, the last part of which is not trained on."""
    first, last = f"{unit.value}[:{100 - HELD_BACK}%]", f"{unit.value}[{100 - HELD_BACK}%:]"
    return Group({"train": replace(unit, value=first, split="train"), "test": replace(unit, value=last, split="test")})


def _facts_of(name: str) -> Any:
    """Returns what the hub says of a data set: the commit of its main branch, its files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        return HfApi().dataset_info(name, timeout=_TIMEOUT_S)
    except GatedRepoError as error:
        raise InputError(
            f"{name}: the data set is gated; accept its terms on its page, and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: there is no such folder here, and no such data set on the Hugging Face hub (a private one needs "
            "`hf auth login`); correct the name"
        ) from error
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise _unreachable(name, error) from error
    except Exception as error:
        if not type(error).__module__.startswith(_NETWORK):
            raise
        raise _unreachable(name, error) from error


def _unreachable(name: str, error: BaseException) -> InputError:
    return InputError(
        f"{name}: there is no such folder here, and the Hugging Face hub cannot be reached ({first_reason(error)}). Without "
        "network: load it where there is one, save_to_disk(FOLDER), copy the folder here, and name the folder"
    )


def _configuration(name: str, subset: str) -> dict[str, Any]:
    """Returns the keys that name a configuration and its commit; where there is a loading script, the branch with a copy.

    A program is known by its file: the library passes over it where its cache has a copy of the data set.
    """
    import datasets

    script, options = f"{Path(name).name}.py", dict[str, Any]()
    if not Path(name).is_dir():
        facts = _facts_of(name)
        if any(file.rfilename == script for file in facts.siblings or ()):
            return {"revision": CONVERTED, "data_dir": _chosen(name, subset, _converted(name))}
        options["revision"] = str(facts.sha)
    elif (Path(name) / script).is_file():
        raise InputError(f"{name} has a loading script, which is not run; name the folder of its files")
    with told(f"look at {name}", "check the name"):
        names = datasets.get_dataset_config_names(name, **options)
    chosen = _chosen(name, subset, names)
    return options if chosen == "default" else options | {"subset": chosen}


def _converted(name: str) -> list[str]:
    """Returns the configurations that the hub has as parquet files."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFolder

    try:
        found = HfApi().list_repo_tree(name, repo_type="dataset", revision=CONVERTED)
        return sorted(entry.path for entry in found if isinstance(entry, RepoFolder))
    except HfHubHTTPError as error:
        raise InputError(
            f"{name} has a loading script, which is not run, and the hub has no copy of it in parquet ({first_reason(error)}); "
            "download the files, and name their folder"
        ) from error


def _chosen(name: str, subset: str, names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
    if subset and subset not in names:
        raise InputError(f"{name} has no configuration {subset!r}; it has: {shown}")
    if not subset and len(names) > 1:
        raise InputError(f"{name} has {len(names)} configurations: {shown}; name one: wfc init {name}:{names[0]}")
    return subset or (names[0] if names else "default")


@lru_cache(maxsize=32)
def _splits(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[dict[str, int | None], str]:
    """Returns (split -> number of its rows, or None, what the library reads the files as)."""
    import datasets

    subset = dict(options).get("subset")
    keys = {key: value for key, value in options if key != "subset"}
    builder = datasets.load_dataset_builder(name, subset, **keys)
    info = builder.info if builder.info.splits else datasets.get_dataset_config_info(name, subset, **keys)
    sizes = {split: _size_of(facts) or _rows_in(builder, split) for split, facts in (info.splits or {}).items()}
    return sizes, str(builder.name if builder.name in _READ_WHOLE else builder.__module__.rpartition(".")[2])


def _size_of(facts: Any) -> int | None:
    size = facts.get("num_examples") if isinstance(facts, dict) else facts.num_examples
    return int(size) if size else None


def _rows_in(builder: Any, split: str) -> int | None:
    """Returns the rows of a split's parquet files, by their ends; None for other files, and for many."""
    files = (builder.config.data_files or {}).get(split) or []
    if builder.name != "parquet" or not 0 < len(files) <= _MOST_FILES:
        return None
    import pyarrow.parquet as pq
    from datasets.utils.file_utils import xopen

    num_rows = 0
    for path in files:
        with xopen(str(path), "rb") as file:
            num_rows += pq.ParquetFile(file).metadata.num_rows
    return num_rows


def num_rows_of(unit: Unit) -> int | None:
    """Returns how many rows a split has, as the repository's card says; None where it does not."""
    name, part = unit.value.partition("[")[::2]
    options = tuple((key, value) for key, value in unit.options if key != "streaming")
    with told(f"look at {unit.base}", "check the name and the configuration"):
        size = _splits(str(unit.base), options)[0].get(name)
    if size is None or not part:
        return size
    held_back = size - round(size * (100 - HELD_BACK) / 100)
    return held_back if part.startswith(str(100 - HELD_BACK)) else size - held_back


@lru_cache(maxsize=32)
def sample_of(unit: Unit) -> Any:
    """Returns the first rows of a split as a `datasets.Dataset` with its audio still encoded. Raises InputError."""
    import datasets

    split = unit.value.partition("[")[0]
    with told(f"look at {unit.base} ({split})", "check the name, and whether you may read it (`hf auth login`)"):
        for kind in (datasets.Audio(decode=False), _CELL, datasets.Value("string")):
            stream = _stream(unit, split)
            audio = [name for name, feature in (stream.features or {}).items() if isinstance(feature, datasets.Audio)]
            for name, feature in (stream.features or {}).items():
                if name in audio:
                    stream = stream.cast_column(name, _with_values(kind))
                elif hasattr(feature, "decode_example"):
                    stream = stream.remove_columns([name])
            try:
                rows = list(stream.take(NUM_STREAMED))
            except (ImportError, AttributeError):  # some builders' rows go through a decoder, or are paths
                continue
            return _table(rows, audio)
    raise InputError(
        f"{unit.base} ({split}): its audio cannot be read without decoding; download the files, and name their folder"
    )


def _with_values(kind: Any) -> Any:
    import datasets

    return {key: datasets.Value(value) for key, value in kind.items()} if isinstance(kind, dict) else kind


def _stream(unit: Unit, split: str) -> Any:
    import datasets

    options = dict(unit.options)
    keys = {key: value for key, value in options.items() if key not in ("subset", "streaming")}
    return datasets.load_dataset(str(unit.base), options.get("subset"), split=split, streaming=True, **keys)


def _table(rows: list[dict[str, Any]], audio: list[str]) -> Any:
    """Returns rows as a table whose audio columns are bytes and paths."""
    import datasets
    import pyarrow as pa

    cells = {name: [_cell(row.pop(name)) for row in rows] for name in audio}
    table = pa.Table.from_pylist(rows)
    for name, column in cells.items():
        table = table.append_column(name, pa.array(column, pa.struct({"bytes": pa.binary(), "path": pa.string()})))
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def _cell(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {"bytes": value.get("bytes"), "path": value.get("path")}
    return {"bytes": value, "path": None} if isinstance(value, bytes) else {"bytes": None, "path": value}
