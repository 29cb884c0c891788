"""Finished adapters and decoded texts that runs share: what one run has made, another that would make the same takes.

An adapter is known by everything that its bytes depend on (`adapter_identity`), a text by the header of its hypotheses file and
where the audio comes from.
Nothing is trusted by name: an adapter is verified against its manifest, a text against its header.
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist import __version__
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import Config
from wfc_dist.config.training import TrainConfig, marked
from wfc_dist.errors import IntegrityError
from wfc_dist.rounds import Base
from wfc_dist.seeds import derived_seed
from wfc_dist.storage import durable

logger = logging.getLogger(__name__)


def init_seed(config: Config, round_index: int) -> int:
    """Returns the seed of lora_A: one for all adapters of a round."""
    return derived_seed(config.run.seed, "lora_A", round_index)


def data_seed(config: Config, round_index: int, dataset: str) -> int:
    """Returns the seed of an adapter's data order, masks and dropout."""
    return derived_seed(config.run.seed, "data", round_index, dataset)


def adapter_identity(
    config: Config, fingerprints: Mapping[str, str], base: Base, dataset: str, earlier: Sequence[str]
) -> dict[str, Any]:
    """Returns what the bytes of an adapter of the round after `base` depend on, as JSON.

    Args:
        config: The run's configuration.
        fingerprints: `<data set>/<split>` -> sha256 of its rows.
        base: The base it is trained against.
        dataset: Its data set.
        earlier: sha256 of the adapters of all rounds before, in order: some objectives look at what they left.
    """
    train = config.train.model_dump(mode="json", exclude=set(marked(TrainConfig, "adapter")))
    cluster, evaluate, stopping, index = config.cluster, config.evaluate, config.train.early_stopping, base.index + 1
    by_error = stopping is not None and stopping.metric == "error"  # its best step is the one with the least dev error
    replayed = [name for names in config.round_list()[: base.index] for name in names] if config.train.replay else []
    return {
        "version": __version__,
        "base_sha256": base.sha256,
        "earlier": list(earlier),
        "data": [*(fingerprints.get(f"{dataset}/{split}") for split in ("train", "dev")), source_of(config.datasets[dataset])],
        "replayed": [
            [fingerprints.get(f"{name}/train"), source_of(config.datasets[name]), config.train.replay] for name in replayed
        ],
        "lora": config.lora.model_dump(mode="json"),
        "train": train,
        "dev_error": {"metric": evaluate.metric, "normalizer": evaluate.normalizer, **evaluate.decoding()} if by_error else None,
        "seeds": [init_seed(config, index), data_seed(config, index, dataset)],
        "workers": [cluster.workers_per_trainer, cluster.threads_per_worker, cluster.gpus_per_worker > 0],
    }


_PLACE_OF_AUDIO = {"columns", "time_unit", "audio_dir", "path_parts", "tar", "data_dir", "data_files"}


def source_of(dataset: DatasetConfig) -> list[Any]:
    """Returns where a data set's audio comes from, as JSON: a fingerprint knows the sizes of files, not their samples."""
    parts = {name: source_of(part) for name, part in dataset.parts.items()}
    place = [dataset.source, dataset.subset, dataset.revision, parts]
    more = dataset.model_dump(mode="json", exclude_defaults=True, include=_PLACE_OF_AUDIO)
    return [*place, more] if more else place


class Pool:
    """A folder that several runs write to, at the same time if they like: what appears in it is whole.

    Args:
        folder: On a file system that all of them see; made when something is put there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take_adapter(self, identity: Mapping[str, Any], staged: Path) -> dict[str, Any] | None:
        """Links the files of a finished adapter into `staged` and returns its facts; None when there is none, or no whole one."""
        source = self._folder / "adapters" / durable.sha256_json(identity)
        try:
            manifest = durable.verify_folder(source) if durable.is_committed(source) else None
        except IntegrityError as error:
            logger.warning("the pool's adapter is passed over: %s", error)
            return None
        if manifest is not None:
            _link_files(source, staged, manifest["files"])
        return manifest

    def put_adapter(self, identity: Mapping[str, Any], adapter: Path) -> None:
        """Makes a committed adapter known. Of two runs that bring the same one the first is kept."""
        final = self._folder / "adapters" / durable.sha256_json(identity)
        if durable.is_committed(final):
            return
        staged = durable.staging_path(final, os.getpid())
        manifest = durable.verify_folder(adapter)
        _link_files(adapter, staged, [*manifest["files"], durable.MANIFEST])
        with contextlib.suppress(OSError):  # another run was faster
            os.rename(staged, final)
            durable.fsync_path(final.parent)
        shutil.rmtree(staged, ignore_errors=True)

    def _text(self, header: Mapping[str, Any], dataset: DatasetConfig) -> Path:
        return self._folder / "texts" / f"{durable.sha256_json({**header, 'source': source_of(dataset)})}.jsonl"

    def take_text(self, header: Mapping[str, Any], dataset: DatasetConfig, path: Path) -> bool:
        """Copies a file of hypotheses to `path`; says whether there was one. The reader verifies its header."""
        source = self._text(header, dataset)
        if source.is_file():
            durable.write_bytes(path, source.read_bytes())
        return source.is_file()

    def put_text(self, header: Mapping[str, Any], dataset: DatasetConfig, path: Path) -> None:
        """Makes a file of hypotheses known."""
        if not self._text(header, dataset).is_file():
            durable.write_bytes(self._text(header, dataset), path.read_bytes())


def _link_files(source: Path, target: Path, names: Sequence[str] | Mapping[str, Any]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source / name, target / name)
