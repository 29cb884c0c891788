"""A pool of finished adapters and hypotheses that several runs share. A run takes from the pool what another run has made.

The key of an adapter is everything that its bytes depend on (`adapter_identity`). The key of hypotheses is the header of their
file and the source of the audio. Names are not trusted: an adapter is verified against its manifest, hypotheses against the
header.
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
    """Returns the seed of lora_A, which all adapters of a round share."""
    return derived_seed(config.run.seed, "lora_A", round_index)


def data_seed(config: Config, round_index: int, dataset: str) -> int:
    """Returns the seed of an adapter's data order, masks and dropout."""
    return derived_seed(config.run.seed, "data", round_index, dataset)


def adapter_identity(
    config: Config, fingerprints: Mapping[str, str], base: Base, dataset: str, earlier: Sequence[str]
) -> dict[str, Any]:
    """Returns everything that the bytes of an adapter depend on, as JSON. The adapter belongs to the round after `base`.

    Args:
        config: The run's configuration.
        fingerprints: `<data set>/<split>` -> sha256 of its rows.
        base: The base against which the adapter is trained.
        dataset: The data set of the adapter.
        earlier: sha256 of the adapters of all earlier rounds, in order, because some objectives use them.
    """
    train = config.train.model_dump(mode="json", exclude=set(marked(TrainConfig, "adapter")) | config.train.unused())
    cluster, stopping, index = config.cluster, config.train.early_stopping, base.index + 1
    evaluate = config.evaluate.of(config.datasets[dataset])
    by_error = stopping is not None and stopping.metric == "error"  # the best step is the one with the lowest dev error
    replayed = [name for names in config.round_list()[: base.index] for name in names] if config.train.replay else []
    at_base = config.train.curvature_at == "base" and base.index > 0
    measured = config.round_list()[base.index - 1] if at_base else []
    return {
        "version": __version__,
        "base_sha256": base.sha256,
        "earlier": list(earlier),
        "data": [*(fingerprints.get(f"{dataset}/{split}") for split in ("train", "dev")), source_of(config.datasets[dataset])],
        "replayed": [
            [fingerprints.get(f"{name}/train"), source_of(config.datasets[name]), config.train.replay] for name in replayed
        ],
        "lora": config.lora.model_dump(mode="json", exclude=config.lora.unused()),
        "train": train,
        "dev_error": {"metric": evaluate.metric, "normalizer": evaluate.normalizer, **evaluate.decoding()} if by_error else None,
        "seeds": [init_seed(config, index), data_seed(config, index, dataset)],
        "workers": [cluster.workers_per_trainer, cluster.threads_per_worker, cluster.gpus_per_worker > 0],
    } | (
        {"measured": [[fingerprints.get(f"{name}/train"), source_of(config.datasets[name])] for name in measured]}
        if measured
        else {}
    )


_PLACE_OF_AUDIO = {"columns", "time_unit", "audio_dir", "path_parts", "tar", "data_dir", "data_files"}


def source_of(dataset: DatasetConfig) -> list[Any]:
    """Returns the source of a data set's audio, as JSON. A fingerprint covers the sizes of audio files, not their samples."""
    parts = {name: source_of(part) for name, part in dataset.parts.items()}
    place = [dataset.source, dataset.subset, dataset.revision, parts]
    more = dataset.model_dump(mode="json", exclude_defaults=True, include=_PLACE_OF_AUDIO)
    return [*place, more] if more else place


class Pool:
    """A folder that several runs may write to at the same time. Entries appear in it only when they are complete.

    Args:
        folder: A folder on a file system that all the runs share. The first entry creates it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take_adapter(self, identity: Mapping[str, Any], staged: Path) -> dict[str, Any] | None:
        """Links the files of a finished adapter into `staged` and returns its facts; None if there is no intact one."""
        source = self._folder / "adapters" / durable.sha256_json(identity)
        try:
            manifest = durable.verify_folder(source) if durable.is_committed(source) else None
        except IntegrityError as error:
            logger.warning("the adapter in the pool is not used: %s", error)
            return None
        if manifest is not None:
            _link_files(source, staged, manifest["files"])
        return manifest

    def put_adapter(self, identity: Mapping[str, Any], adapter: Path) -> None:
        """Adds a committed adapter to the pool. If two runs add the same adapter, the first one is kept."""
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
        """Copies a file of hypotheses to `path` and returns whether there was one. The reader must verify its header."""
        source = self._text(header, dataset)
        if source.is_file():
            durable.write_bytes(path, source.read_bytes())
        return source.is_file()

    def put_text(self, header: Mapping[str, Any], dataset: DatasetConfig, path: Path) -> None:
        """Adds a file of hypotheses to the pool."""
        if not self._text(header, dataset).is_file():
            durable.write_bytes(self._text(header, dataset), path.read_bytes())


def _link_files(source: Path, target: Path, names: Sequence[str] | Mapping[str, Any]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, target / name)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source / name, target / name)
