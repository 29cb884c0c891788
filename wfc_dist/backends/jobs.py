"""Jobs of training and centralizing, made from the run store: every backend gets the same jobs, hence the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from wfc_dist.centralize.rank import CentralizeJob
from wfc_dist.centralize.weights import asked_for
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import Config
from wfc_dist.merging import catalog
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.shared_cache import data_seed, init_seed
from wfc_dist.runs.store import RunStore
from wfc_dist.seeds import derived_seed
from wfc_dist.training.job import EarlierData, TrainingJob


def training_data(config: Config, round_index: int, dataset: str) -> DatasetConfig:
    """Returns a data set of a round; `train.replay` mixes a share of the training clips of all earlier rounds into it."""
    own, share = config.datasets[dataset], config.train.replay
    names = [name for names in config.round_list()[: round_index - 1] for name in names if name != dataset]
    if not share or not names:
        return own
    parts = {dataset: own}
    for name in dict.fromkeys(names):
        earlier = config.datasets[name].model_copy(update={"splits": {"train": config.datasets[name].splits["train"]}})
        # The share is taken of what was trained on, after the set's own `share` and `max_clips`.
        parts[name] = DatasetConfig(format="mix", parts={name: earlier}, splits=earlier.splits, share=share)
    return DatasetConfig(format="mix", parts=parts, splits=own.splits, metric=own.metric)


def training_job(store: RunStore, base: Base, dataset: str) -> TrainingJob:
    """Returns the job that trains one adapter. Makes the empty output folder."""
    config, round_index = store.config, base.index + 1
    # The stop file does not reach the mirrors of other nodes, which may hold an old one: there the coordinator calls the workers.
    loaders = {"loader_workers": config.cluster.loader_threads()}
    by_call = store.mirror.is_remote and config.cluster.backend == "ray"
    return TrainingJob(
        round_index=round_index,
        dataset=dataset,
        data=training_data(config, round_index, dataset),
        lora=config.lora,
        train=config.train if config.train.loader_workers != "auto" else config.train.model_copy(update=loaders),
        evaluate=config.evaluate,
        init_seed=init_seed(config, round_index),
        data_seed=data_seed(config, round_index, dataset),
        base=base,
        checkpoint_dir=str(store.paths.checkpoints(round_index, dataset)),
        output_dir=str(store.stage_adapter(base, dataset)),
        metrics_file=str(store.paths.curve(round_index, dataset)),
        stop_file="" if by_call else str(store.paths.stop_file),
        attempt=store.attempt,
        threads=config.cluster.threads_per_worker,
        mirror=store.mirror,
        past_curvature=past_adapters(store, base) if config.train.ewc else (),
        earlier_data=earlier_data(store, base) if config.train.curvature_at == "base" else (),
    )


def earlier_data(store: RunStore, base: Base) -> tuple[EarlierData, ...]:
    """Returns the training data of the adapters that were merged into `base` last; none for base 0."""
    config, index = store.config, base.index
    names = store.merged_in(index) if index else []
    return tuple(EarlierData(name, training_data(config, index, name), data_seed(config, index, name)) for name in names)


def past_adapters(store: RunStore, base: Base) -> tuple[str, ...]:
    """Returns the folders of all adapters that are in `base`, round by round; all are committed."""
    rounds = range(1, base.index + 1)
    return tuple(str(store.paths.adapter(index, dataset)) for index in rounds for dataset in store.merged_in(index))


def previous_adapters(store: RunStore, base: Base, method: str, adapters: Sequence[Adapter]) -> tuple[str, ...]:
    """Returns the adapter folders with the curvature of the round that made `base`, if the method needs it; none for base 0.

    They are the adapters of that round, or, where `train.curvature_at` is base, the first of `adapters` whose data set the round
    names: all of those have measured the same. A late one of another round has measured another base.
    """
    if "previous" not in catalog.entry(method).needs or base.index == 0:
        return ()
    if store.config.train.curvature_at == "base":
        named = store.config.round_list()[base.index]
        return tuple(adapter.path for adapter in adapters if adapter.dataset in named)[:1]
    return tuple(str(store.paths.adapter(base.index, dataset)) for dataset in store.merged_in(base.index))


def merged_as(job: CentralizeJob, facts: Mapping[str, Any], store: RunStore) -> CentralizeJob:
    """Returns a job that merges the way a committed base was merged, whatever the configuration says now.

    Args:
        job: From `centralize_job`.
        facts: The manifest of the base, or its line in the ledger.
        store: The opened run.
    """
    return replace(
        job,
        weights=tuple(facts["weights"][adapter.dataset] for adapter in job.adapters),
        are_shares=True,
        previous_adapters=previous_adapters(store, job.base, facts["method"], job.adapters),
        **{key: facts[key] for key in ("method", "options", "norm", "scale", "seed")},
    )


def centralize_job(store: RunStore, base: Base, adapters: list[Adapter], *, interim: bool = False) -> CentralizeJob:
    """Returns the job that averages and merges a round, or an interim base. Makes the empty folders of delta and base."""
    root, settings = store.manifest(0), store.config.centralize
    mixture = store.fits.find(base.index + 1, adapters) or asked_for(settings, base.index + 1, adapters)
    delta_dir, base_dir = store.stage_base(base.index + 1, len(adapters) if interim else 0)
    return CentralizeJob(
        base=base,
        adapters=tuple(adapters),
        weights=mixture.weights,
        method=settings.method,
        scale=mixture.scale * store.scale_factor,
        dtype=store.config.base.dtype,
        root=root["root"],
        shared=root["model_path"],
        past_deltas=tuple(str(store.paths.delta(index)) for index in range(1, base.index + 1)),
        tensor_hashes=store.manifest(base.index)["tensors"],
        delta_dir=str(delta_dir),
        base_dir=str(base_dir),
        mirror=store.mirror,
        options=settings.options,
        norm=settings.norm,
        seed=derived_seed(store.config.run.seed, "merge", base.index + 1),
        previous_adapters=previous_adapters(store, base, settings.method, adapters),
    )
