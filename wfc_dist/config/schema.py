"""The configuration, block by block; `loading` reads it. `training` holds lora and train, others theirs.

Where a default comes from: [P] the paper (arXiv 2506.16574), [C] the authors' code, [H] this project's choice.
"""

import math
import shlex
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from wfc_dist.config.centralize import CentralizeConfig
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.datasets import DatasetConfig, Name
from wfc_dist.config.training import RESUME, Leaves, LoraConfig, Strict, TrainConfig
from wfc_dist.errors import ConfigError, nearest
from wfc_dist.merging import catalog
from wfc_dist.merging.curvature import NEEDED, choices_with
from wfc_dist.storage.mirror import mirror_folder
from wfc_dist.storage.objects import is_url

LOOP_COMPRESSION_RATIO = 2.4
"""A text that zlib makes more than that much smaller is a loop: the limit of Whisper's own decoding."""

TrackerName = Literal["tensorboard", "mlflow", "wandb"]


class RunConfig(Strict):
    """Name and place of the run; the run directory is `dir/name`."""

    name: Annotated[Name, RESUME]
    """Name of the run, and of its folder in `dir`."""
    dir: Annotated[str, RESUME] = "runs"
    """A folder that all nodes share, or a URL of object storage such as s3://bucket/runs."""
    pool: Annotated[str | None, RESUME] = None
    """A shared folder where runs put finished adapters and decoded texts, so that none is made twice."""
    seed: int = Field(1, ge=0, lt=2**31)
    """Every random choice of the run starts from this number."""
    notify: Annotated[str | None, RESUME] = None
    """A command that is run, without a shell, when an attempt is done, has failed or was stopped (docs/run-directory.md)."""
    track: Annotated[list[TrackerName], RESUME] = Field(default_factory=list)
    """Where curves and scores are written beside the run directory: tensorboard, mlflow, wandb (docs/tracking.md)."""

    @field_validator("notify")
    @classmethod
    def _notify_is_a_command(cls, notify: str | None) -> str | None:
        try:
            is_command = notify is None or bool(shlex.split(notify))
        except ValueError as error:
            raise ValueError(f"{str(error).lower()}; quote the words of the command as a shell wants them") from error
        if not is_command:
            raise ValueError("the command is empty; leave notify out, or name a program")
        return notify

    @field_validator("track")
    @classmethod
    def _no_tracker_twice(cls, track: list[TrackerName]) -> list[TrackerName]:
        if len(set(track)) < len(track):
            raise ValueError(f"a tracker is named twice: {', '.join(track)}")
        return track


class BaseModelConfig(Strict):
    """The root model: a hub id or a folder. `dtype: auto` keeps the root's own."""

    model: str
    """A hub id such as openai/whisper-small, or a folder with a Whisper checkpoint."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository; by default its main branch, whose commit is recorded."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """The number format of the bases; `auto` keeps that of the root model."""


class EvaluateConfig(Strict):
    """How bases and adapters are scored."""

    metric: Literal["wer", "cer", "mer"] = "wer"
    """What is counted: wer words, cer characters, mer both, by the script (docs/metrics.md)."""
    normalizer: Literal["whisper", "paper", "none"] = "whisper"
    """What is done to both texts before they are compared (docs/metrics.md); `none` compares them as they are."""
    num_beams: int = Field(1, ge=1, le=1000)  # [C] 4
    """Beams of the search; 1 is greedy decoding."""
    no_repeat_ngram_size: int = Field(0, ge=0)  # [C] 4
    """No run of this many tokens comes twice in a text; 0 allows it."""
    language: Literal["given", "detect"] = "given"  # [C] detect
    """Decode with the data set's language, or with the one the model detects; then its errors in that are counted, too."""
    batch_size: Annotated[int, Leaves(("figures",))] = Field(16, ge=1)
    """Windows decoded together, of all the test sets of a model."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Numbers inside the model that decodes: bf16 takes its layers in bfloat16, features and logits stay float32; another measure
    than fp32. `auto` as with train. Weights that train.precision has made half precision in a GPU's memory decode as they are."""
    packing: bool = False
    """Decode windows of several clips; cheap, and another measure than clip by clip. Both are in words."""
    compression_ratio_threshold: float | None = Field(LOOP_COMPRESSION_RATIO, gt=0)
    """With packing: the clips of a window whose text zlib makes more than that much smaller, a loop, are decoded one by one, and
    a clip that loops alone once more, without repeats."""
    intervals: bool = True
    """Give every rate and every figure an interval."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """The share of intervals that hold the true value; what is called better or worse is so with this confidence."""
    max_clips: int | None = Field(None, ge=1)
    """Only the first clips of each test set, to try things out."""
    adapters: Annotated[bool, Leaves(("figures",))] = True
    """Score every single adapter beside the merged base."""
    interim: Annotated[Literal["all", "learned", "none"], Leaves(("figures",))] = "all"
    """What bases between the first and the last are scored on; `learned`: what their round learned and the next one will."""
    protected: dict[Name, DatasetConfig] = Field(default_factory=dict)
    """Test sets nobody trains on: what must not be forgotten."""

    @model_validator(mode="before")
    @classmethod
    def _samples_of_earlier_versions(cls, tree: Any) -> Any:
        """Takes `bootstrap_samples`, the key before `intervals`: any number of samples means intervals, 0 means none."""
        if not isinstance(tree, dict) or "bootstrap_samples" not in tree:
            return tree
        samples = tree["bootstrap_samples"]
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 0:
            raise ValueError(f"bootstrap_samples: {samples!r} is no number of samples; write intervals: true or false")
        return {"intervals": samples > 0} | {key: value for key, value in tree.items() if key != "bootstrap_samples"}

    def of(self, dataset: DatasetConfig) -> "EvaluateConfig":
        """Returns how a data set is scored: this block, with the metric that the data set names."""
        return self.model_copy(update={"metric": dataset.metric}) if dataset.metric else self

    def decoding(self) -> dict[str, Any]:
        """Returns the options that change a hypothesis; the batch size does not. What has no effect, or the one it had before
        there was a choice, is left out, so that files from then stay valid."""
        options = {name: getattr(self, name) for name in ("num_beams", "no_repeat_ngram_size", "packing", "max_clips")}
        if self.language != "given":
            options["language"] = self.language
        if self.precision != "fp32":
            options["precision"] = self.precision
        if self.packing:
            options["compression_ratio_threshold"] = self.compression_ratio_threshold
        return options


class Config(Strict):
    """A whole run."""

    run: RunConfig
    base: BaseModelConfig
    datasets: dict[Name, DatasetConfig] = Field(min_length=1)
    """Name -> one data set. Names are used in rounds, tables and folders."""
    rounds: list[list[str]] | dict[Literal["centralize_every"], int]
    """The data sets of each round, such as [[es, it], [fr]]; {centralize_every: 2} makes rounds of two, in the file's order."""
    lora: LoraConfig = LoraConfig()
    train: TrainConfig = TrainConfig()
    centralize: CentralizeConfig = CentralizeConfig()
    cluster: ClusterConfig = ClusterConfig()
    evaluate: EvaluateConfig = EvaluateConfig()

    @field_validator("rounds")
    @classmethod
    def _rounds_not_empty(cls, rounds: Any) -> Any:
        if isinstance(rounds, dict) and rounds["centralize_every"] < 1:
            raise ValueError("centralize_every must be 1 or more")
        if isinstance(rounds, list) and (not rounds or not all(rounds)):
            raise ValueError("every round needs at least one data set")
        return rounds

    @model_validator(mode="after")
    def _rounds_name_data_sets_to_train(self) -> "Config":
        for index, names in enumerate(self.round_list(), start=1):
            for name in names:
                if name not in self.datasets:
                    raise ValueError(f"rounds: round {index} names {name!r}, which is no data set{nearest(name, self.datasets)}")
                if "train" not in self.datasets[name].splits:
                    raise ValueError(f"datasets.{name}.splits: a data set of a round needs a train split")
            if len(set(names)) < len(names):
                raise ValueError(f"rounds: round {index} names a data set twice")
        return self

    @model_validator(mode="after")
    def _protected_sets_are_only_tested(self) -> "Config":
        for name, dataset in self.evaluate.protected.items():
            if name in self.datasets:
                raise ValueError(f"evaluate.protected.{name}: also a training data set; give it another name")
            if "test" not in dataset.splits:
                raise ValueError(f"evaluate.protected.{name}.splits: a protected set needs a test split")
        return self

    @model_validator(mode="after")
    def _dev_splits_are_there_where_needed(self) -> "Config":
        early = "train.early_stopping" if self.train.early_stopping else ""
        why = early or ("a fit (centralize)" if self.centralize.is_fitted else "")
        for name in sorted({name for names in self.round_list() for name in names}) if why else ():
            if "dev" not in self.datasets[name].splits:
                raise ValueError(f"datasets.{name}.splits: {why} needs a dev split")
        return self

    @model_validator(mode="after")
    def _canaries_are_scored(self) -> "Config":
        known, canaries = self.test_sets(), self.centralize.gate.canaries
        for name in canaries:
            if name not in known:
                raise ValueError(f"centralize.gate.canaries: {name!r} is no test set{nearest(name, known)}")
        if canaries and not self.evaluate.intervals:
            raise ValueError("centralize.gate.canaries: they are judged by intervals, set evaluate.intervals to true")
        if canaries and is_url(self.run.dir):
            raise ValueError("centralize.gate.canaries: a base is decoded before it is committed, which needs a run.dir that all "
                             "nodes share, not object storage")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _weights_cover_rounds(self) -> "Config":
        weights = self.centralize.weights
        if not isinstance(weights, dict):
            return self
        for name in weights:
            if name not in self.datasets:
                raise ValueError(f"centralize.weights: {name!r} is no data set{nearest(name, self.datasets)}")
        for index, names in enumerate(self.round_list(), start=1):
            missing = [name for name in names if name not in weights]
            if missing:
                raise ValueError(f"centralize.weights: no weight for {', '.join(missing)} (round {index})")
            if any(weights[name] < 0 for name in names) or not 0 < sum(weights[name] for name in names) < math.inf:
                raise ValueError(f"centralize.weights: round {index} needs weights >= 0 with a finite sum > 0")
        return self

    @model_validator(mode="after")
    def _merge_method_finds_its_curvature(self) -> "Config":
        method = self.centralize.method
        for need in catalog.entry(method).needs:
            choices = choices_with(NEEDED.get(need, ()))
            if self.train.curvature not in choices:
                raise ValueError(f"centralize.method {method}: set train.curvature to {choices[0]}, it needs it")
        return self

    @model_validator(mode="after")
    def _pool_is_a_folder(self) -> "Config":
        if self.run.pool is not None and (is_url(self.run.dir) or is_url(self.run.pool)):
            raise ValueError("run.pool: needs run.dir and run.pool on folders that all nodes share, not on object storage")
        return self

    @model_validator(mode="after")
    def _priors_need_whole_factors(self) -> "Config":
        if self.lora.prior and (self.train.strategy != "ddp" or self.train.gradient_checkpointing):
            raise ValueError(
                "lora.prior draws whole factors for every micro-batch, which must not be sharded, or drawn again to recompute: "
                "use train.strategy ddp without train.gradient_checkpointing"
            )
        return self

    @model_validator(mode="after")
    def _slurm_jobs_share_a_folder(self) -> "Config":
        if self.cluster.backend == "slurm" and is_url(self.run.dir):
            raise ValueError(f"run.dir: cluster.backend slurm needs a folder that all nodes share, not {self.run.dir}")
        return self

    @property
    def precisions(self) -> tuple[str, str]:
        """Returns the precision of training and that of scoring."""
        return self.train.precision, self.evaluate.precision

    def with_precision(self, train: str, evaluate: str) -> "Config":
        """Returns the configuration with precisions in the place of `auto`; what is not `auto` stays."""
        blocks: dict[str, Strict] = {}
        if self.train.precision == "auto":
            blocks["train"] = self.train.model_copy(update={"precision": train})
        if self.evaluate.precision == "auto":
            blocks["evaluate"] = self.evaluate.model_copy(update={"precision": evaluate})
        return self.model_copy(update=blocks)

    def round_list(self) -> list[list[str]]:
        """Returns the data-set names of every round; `centralize_every: K` takes them in the order of `datasets`."""
        if isinstance(self.rounds, list):
            return self.rounds
        size, names = self.rounds["centralize_every"], list(self.datasets)
        return [names[start : start + size] for start in range(0, len(names), size)]

    def in_order(self, round_index: int, datasets: Iterable[str]) -> list[str]:
        """Returns data sets in the order of summation of a round (1-based): its own first, then late ones of earlier rounds."""
        given, rounds = set(datasets), self.round_list()
        return [name for name in dict.fromkeys(chain(rounds[round_index - 1], *rounds)) if name in given]

    def with_parts(self, names: Iterable[str]) -> list[str]:
        """Returns data sets, each followed by its parts: who learns a mix has learned what it is made of."""
        return [part for name in names for part in (name, *self.datasets[name].parts)]

    def learned_in(self, round_index: int) -> list[str]:
        """Returns the data sets that a round (1-based) learns, with their parts."""
        return self.with_parts(self.round_list()[round_index - 1])

    def run_url(self) -> str | None:
        """Returns where the run is on object storage; None for a run directory that all nodes share."""
        return f"{self.run.dir.rstrip('/')}/{self.run.name}" if is_url(self.run.dir) else None

    def run_dir(self) -> Path:
        """Returns the run directory, `run.dir/run.name`; of a run on object storage its mirror, the same on every node."""
        url = self.run_url()
        return mirror_folder(url, self.cluster.cache_dir, self.run.name) if url else Path(self.run.dir) / self.run.name

    def require_lasting_run_dir(self) -> None:
        """Raises ConfigError for a run.dir that would lie in the throw-away copy of the files that a Ray job carries."""
        if not is_url(self.run.dir) and not Path(self.run.dir).is_absolute():
            raise ConfigError(
                f"run.dir: {self.run.dir!r} is relative and would lie in Ray's temporary copy of the working directory, "
                "on one node; name a folder that every node sees, or object storage: run.dir=/shared/runs, run.dir=s3://bucket/runs"
            )

    def test_sets(self) -> dict[str, DatasetConfig]:
        """Returns every set that is scored: the test splits of the data sets, then the protected ones."""
        own = {name: dataset for name, dataset in self.datasets.items() if "test" in dataset.splits}
        return own | dict(self.evaluate.protected)

    def metrics(self) -> dict[str, str]:
        """Returns test set -> the metric that counts its errors."""
        return {name: self.evaluate.of(dataset).metric for name, dataset in self.test_sets().items()}

    def metric_record(self, names: Iterable[str] | None = None) -> str | dict[str, str]:
        """Returns the metric of test sets (of all by default) as JSON records hold it: a set -> metric where they differ."""
        metrics = self.metrics()
        chosen = metrics if names is None else {name: metrics[name] for name in names}
        return chosen if len(set(chosen.values())) > 1 else next(iter(chosen.values()), self.evaluate.metric)
