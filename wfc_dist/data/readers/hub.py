"""Reads Hugging Face data sets: from the hub, a repository in a folder, or saved on disk. No remote code runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfc_dist import activity
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.readers.cells import cell_rows, told
from wfc_dist.data.readers.parquet import has_parquet, parquet_rows
from wfc_dist.data.readers.streams import stream_rows
from wfc_dist.data.rows import SourceRow
from wfc_dist.errors import InputError


def hub_rows(dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    """Yields the rows of `datasets.load_dataset(source, subset, split=split_name, ...)`; with `streaming` through a spool.

    A folder in which `subset` is a sub-folder with parquet files, as the hub's conversion has it, is read like format parquet.

    Raises:
        InputError: The hub cannot be reached, or has no such data set, subset or split; or it is a loading script.
    """
    if _is_folder_of_configurations(dataset):
        yield from parquet_rows(dataset, split_name)
    elif dataset.streaming:
        yield from stream_rows(dataset, split_name, lambda: _load(dataset, split_name, streaming=True))
    else:
        yield from cell_rows(_load(dataset, split_name), dataset, split_name)


def _is_folder_of_configurations(dataset: DatasetConfig) -> bool:
    source = Path(dataset.source)
    if not dataset.subset or dataset.data_dir or dataset.data_files or not has_parquet(source / dataset.subset):
        return False
    card = source / "README.md"
    return not (card.is_file() and "config_name" in card.read_text(encoding="utf-8", errors="replace"))


def _load(dataset: DatasetConfig, split_name: str, *, streaming: bool = False) -> Any:
    import datasets

    files: Any = dataset.data_files
    if files is not None:
        patterns = [files] if isinstance(files, str) else files
        files = {split_name: [pattern.replace("{split}", split_name) for pattern in patterns]}
    is_folder = Path(dataset.source).is_dir()
    todo = "check source, subset, data_dir, data_files and splits"
    if not is_folder:
        todo += (
            " and `hf auth login`. Without network: load it where there is one, save_to_disk(FOLDER), copy the folder and set "
            "source: FOLDER, format: saved"
        )
    what = f"load split {split_name!r} of {dataset.source!r}{'' if is_folder else ' from the Hugging Face hub'}"
    with told(what, todo), activity.excused():
        return datasets.load_dataset(
            dataset.source, name=dataset.subset, data_dir=dataset.data_dir, data_files=files, revision=dataset.revision,
            split=split_name, streaming=streaming,
        )  # fmt: skip


def saved_rows(dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a folder written by `save_to_disk`: one split of a DatasetDict, or a single Dataset.

    Raises:
        InputError: The folder is missing, is no saved data set, or has no such split.
    """
    import datasets

    with told(f"open {dataset.source}", "it is no data set saved by save_to_disk, or a damaged one; check source and format"):
        loaded = datasets.load_from_disk(dataset.source)
    if isinstance(loaded, datasets.DatasetDict):
        if split_name not in loaded:
            raise InputError(f"{dataset.source} has no split {split_name!r}; it has: {', '.join(loaded)}")
        loaded = loaded[split_name]
    elif len(dataset.splits) > 1:
        raise InputError(f"{dataset.source} holds one split, but splits names {len(dataset.splits)}; save a DatasetDict instead")
    with told(f"read {dataset.source} ({split_name})", "the folder is damaged, copy or save it again"):
        loaded.data.validate(full=True)  # offsets and letters, not audio; wrong offsets would end the process
    yield from cell_rows(loaded, dataset, split_name)
