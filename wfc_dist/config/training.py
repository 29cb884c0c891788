"""How an adapter is shaped and trained: the blocks `lora` and `train` of the configuration. Loads neither torch nor ray.

[P], [C] and [H] as in `config`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from wfc_dist.merging.curvature import MEASURED, Choice

USUAL_WARMUP_STEPS, USUAL_WARMUP = 200, 0.1
"""Steps that warm up where a configuration says nothing, and the share of a training that is not longer than that."""
_STEPS_OR_SHARE = Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)]
_POWER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d{1,3}")
_MAX_INTEGER, _MAX_FLOAT = 2**31 - 1, 1e12
"""The largest numbers that a key can mean: more of steps, seconds or gigabytes overflows somewhere, long after the start."""
Mark = Literal["resume", "remedy", "state", "adapter", "figures"]


@dataclass(frozen=True)
class Leaves:
    """Marks a field by what a change of the field leaves as it is.

    Attributes:
        marks: resume: what a run computes, so that the field may change between two attempts of the run. remedy: what is
            committed, so that the field may change after an attempt has failed, for the round that failed and those after it.
            state: the meaning of a checkpoint, so that an interrupted training goes on from the checkpoint. adapter: the bytes of
            an adapter, so that another run takes the adapter from the pool. figures: the figures of a base, so that the systems
            of a comparison may differ in the field.
    """

    marks: tuple[Mark, ...]


RESUME, REMEDY = Leaves(("resume",)), Leaves(("remedy",))


def marked(model: type[BaseModel], mark: Mark, prefix: str = "") -> frozenset[str]:
    """Returns the key paths of the fields of a block, and of the blocks in it, that carry a mark. `*` is a user's name."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        if any(isinstance(item, Leaves) and mark in item.marks for item in field.metadata):
            keys.add(f"{prefix}{name}")
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys |= marked(field.annotation, mark, f"{prefix}{name}.")
        elif get_origin(field.annotation) is dict:
            block = get_args(field.annotation)[1]
            if block is not model and isinstance(block, type) and issubclass(block, BaseModel):
                keys |= marked(block, mark, f"{prefix}{name}.*.")
    return frozenset(keys)


def leaves(mark: Mark, path: str, model: type[BaseModel]) -> bool:
    """Says whether a key, such as datasets.es.licence, carries a mark, or stands in a block that does."""
    return any(fnmatchcase(f"{path}.", f"{key}.*") for key in marked(model, mark))


class Strict(BaseModel):
    """A block that refuses unknown keys and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _numbers_as_yaml_writes_them(cls, tree: Any) -> Any:
        """Takes 1e3, which YAML 1.1 reads as a text, as a whole number; refuses true, which Python takes for 1."""
        if not isinstance(tree, dict):
            return tree
        return {key: _number(value, cls.model_fields[key].annotation) if key in cls.model_fields else value
                for key, value in tree.items()}  # fmt: skip

    @model_validator(mode="after")
    def _numbers_can_be_meant(self) -> "Strict":
        for key, value in self:
            if isinstance(value, int) and abs(value) > _MAX_INTEGER:
                raise ValueError(f"{key}: a number of {len(str(abs(value)))} digits is no count; give a whole number below 2^31")
            if isinstance(value, float) and abs(value) > _MAX_FLOAT:
                raise ValueError(f"{key}: {value:.3g} is more than anything is here; give a number up to {_MAX_FLOAT:g}")
        return self


def _number(value: Any, annotation: Any) -> Any:
    kinds = _kinds(annotation)
    if not kinds & {int, float} or bool in kinds:
        return value
    if isinstance(value, bool):
        return str(value).lower()  # as a text it is refused by its key
    if int in kinds and str not in kinds and isinstance(value, str) and _POWER.fullmatch(value):
        return int(float(value)) if float(value).is_integer() else value
    return 0.0 if isinstance(value, float) and value == 0 else value  # -0.0 is another text, hence another hash


def _kinds(annotation: Any) -> set[Any]:
    """Returns the alternatives of an annotation, without what `Annotated` says of each."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(annotation)))
    return {annotation}


class PriorConfig(Strict):
    """Bayesian low-rank factorization: every entry of A and B is N(mu, s^2), pulled to N(0, sigma^2). docs/training.md."""

    sigma: float = Field(0.05, gt=0)  # [H]; 0.01 in [C]
    """Standard deviation of the prior."""
    beta: float = Field(1e-3, ge=0)  # [H]; 1e-4 in [C]
    """Weight of the divergence: its mean over the entries of a factor, summed over the factors."""


class LoraConfig(Strict):
    """The adapter. PEFT's letters: lora_A is (r, in), lora_B is (out, r)."""

    r: int = Field(32, ge=1, le=65_536)  # [C]
    """Rank of the update: the columns of B, which are the rows of A."""
    alpha: float = Field(64, gt=0)  # [C]
    """The update is alpha / r * B @ A."""
    dropout: float = Field(0.05, ge=0, lt=1)  # [C]
    """Share of the inputs of A that are set to 0 while training."""
    target_modules: list[str] | str = ["q_proj", "v_proj"]  # [C]; q and k in [P]
    """Names of the linear layers that get an adapter, or a regular expression for whole module names."""
    variant: Literal["lora", "rslora", "full", "cssvd"] = "lora"  # [C] has more; they are refused until they average correctly
    """`full` trains the whole weight of every targeted linear layer, `cssvd` rotates its smallest singular directions,
    docs/training.md; r and alpha are not used then."""
    tail: float = Field(0.4, gt=0, le=1)  # that of arXiv 2606.09342
    """Share of a weight's singular directions, the smallest ones, that variant cssvd rotates."""
    prior: PriorConfig | None = None
    """Bayesian low-rank factorization in place of plain LoRA; none by default."""

    @model_validator(mode="after")
    def _weights_themselves_have_nothing_to_drop_or_to_draw(self) -> "LoraConfig":
        if self.variant not in ("full", "cssvd"):
            return self
        what = "trains the weights themselves" if self.variant == "full" else "turns the weights themselves"
        if self.dropout:
            raise ValueError(f"variant {self.variant} {what}, whose inputs nothing drops: set dropout to 0, not {self.dropout:g}")
        if self.prior:
            raise ValueError(
                f"prior draws the factors A and B, variant {self.variant} has none: leave prior out, or use variant lora"
            )
        return self

    def unused(self) -> set[str]:
        """Returns the keys that this variant does not read, and that identities of adapters leave out."""
        return set() if self.variant == "cssvd" else {"tail"}

    def rank(self, shape: Sequence[int]) -> int:
        """Returns the rank of the factors of a weight (out, in)."""
        if self.variant == "cssvd":
            return int(self.tail * min(shape))
        return min(shape) if self.variant == "full" else self.r

    def num_trained(self, shape: Sequence[int]) -> int:
        """Returns how many numbers are trained for a weight (out, in)."""
        if self.variant == "cssvd":
            return self.rank(shape) * (self.rank(shape) - 1) // 2
        return math.prod(shape) if self.variant == "full" else self.r * sum(shape)

    def described(self) -> str:
        """Returns "r 32, alpha 64", or that it is none, for a table of facts."""
        if self.variant == "cssvd":
            return f"rotations of the smallest {self.tail:.0%} of directions"
        return "none: whole weights are trained" if self.variant == "full" else f"r {self.r}, alpha {self.alpha:g}"


class EarlyStoppingConfig(Strict):
    """Stop when the dev measure has not improved for `patience` evaluations; the best adapter is kept."""

    metric: Literal["loss", "error"] = "loss"  # [C]
    """Dev loss, or dev error of decoded texts."""
    patience: int = Field(10, ge=1)  # [C]
    """Evaluations without a better one, after which training ends."""


class SpecAugmentConfig(Strict):
    """Masks over mel features; [C] uses masks of 30."""

    time_masks: int = Field(2, ge=0)
    """Masks over time in each window."""
    time_width: int = Field(30, ge=1)
    """Most frames of 10 ms that a mask over time covers."""
    frequency_masks: int = Field(2, ge=0)
    """Masks over mel bands in each window."""
    frequency_width: int = Field(30, ge=1)
    """Most mel bands that a mask covers."""


class DistillationConfig(Strict):
    """Learning without forgetting: (1 - weight) * cross-entropy + weight * T^2 * KL(base || base with adapter)."""

    weight: float = Field(0.5, ge=0, le=1)  # [H]
    """Share of the divergence in the loss; the rest is cross-entropy."""
    temperature: float = Field(1.0, gt=0)  # [P]
    """T, which both distributions are softened with."""


class EwcConfig(Strict):
    """Elastic weight consolidation: weight / 2 * sum of F * delta^2, F measured by `train.curvature` in earlier rounds."""

    weight: float = Field(1000.0, gt=0)  # [H]
    """Factor of the penalty."""


def _share(share: float, max_steps: int) -> int:
    """Returns a share of all steps in whole steps: at least one, and one less than all at most."""
    return min(max(round(share * max_steps), 1), max_steps - 1)


class TrainConfig(Strict):
    """How one adapter is trained."""

    max_steps: int = Field(2000, ge=1)  # [H]; [C] trains up to 100 epochs
    """Optimizer steps of one adapter."""
    lr: Annotated[float, REMEDY] = Field(1e-3, gt=0)  # [C]
    """The highest learning rate, which the warm-up ends at."""
    weight_decay: float = Field(5e-4, ge=0)  # [C]
    """Decoupled weight decay of AdamW; with sgd added to the gradient."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the mean gradient and of the mean square."""
    max_grad_norm: Annotated[float, REMEDY] = Field(1.0, gt=0)  # [H] Transformers' default
    """A gradient with a larger norm is scaled down to it."""
    max_update_ratio: Annotated[float | None, Leaves(("remedy", "state", "adapter"))] = Field(None, gt=0)
    """An adapter whose update has a larger norm than this share of the norm of the weights that it changes has diverged, and its
    data set has failed; there is no limit by default."""
    optimizer: Literal["adamw", "sgd"] = "adamw"  # [C]
    """`sgd` has no momentum and needs strategy ddp; with schedule inverse_step it is the online running average."""
    schedule: Literal["inverse_sqrt", "inverse_step", "cosine", "constant"] = "inverse_sqrt"  # [C]
    """How the learning rate falls after the warm-up (docs/training.md has the formulas)."""
    warmup_steps: Annotated[_STEPS_OR_SHARE, REMEDY] = USUAL_WARMUP_STEPS  # [H]; 2000 in [C]
    """Steps in which the learning rate rises to `lr`: a number, or a share of `max_steps` such as 0.1. Where it is left out and
    `max_steps` is not more than 200, a tenth of them."""
    batch_size: int = Field(8, ge=1)  # [C] windows per worker and micro-batch
    """Windows of 30 s in one micro-batch of one worker."""
    gradient_accumulation: int = Field(2, ge=1)  # [C]
    """Micro-batches of one optimizer step."""
    precision: Annotated[Literal["fp32", "bf16", "fp16", "auto"], REMEDY] = "fp32"  # [C] bf16; fp32 runs everywhere
    """Numbers inside the model: bf16 and fp16 are autocast; the factors, their gradients and moments stay float32. `auto` is bf16
    where every processor that trains calculates in it itself, else fp32; the first attempt decides (docs/training.md)."""
    strategy: Annotated[Literal["ddp", "zero0", "zero1", "zero2", "zero3"], Leaves(("state",))] = "ddp"
    """What is split over the workers of a trainer: ddp nothing, zero0 to zero3 by DeepSpeed (docs/training.md)."""
    packing: bool = False
    """Several clips in one 30 s window, so that short clips do not pay for silence."""
    gap_s: float = Field(0.3, ge=0, le=5)
    """Silence between packed clips."""
    min_duration_s: float = Field(0.5, ge=0)  # [C]
    """Shorter clips are left out of training."""
    max_duration_s: float = Field(30.0, gt=0, le=30)  # [C] 20 s
    """Longer clips are left out of training."""
    gradient_checkpointing: Annotated[bool, Leaves(("state",))] = False
    """Calculate activations again in the backward pass: less memory, more time."""
    spec_augment: SpecAugmentConfig | None = None
    """Mask parts of the mel features while training; none by default."""
    checkpoint_every: Annotated[int, Leaves(("state", "adapter"))] = Field(200, ge=1)
    """Steps between two checkpoints of a training."""
    eval_every: int | None = Field(None, ge=1)
    """Steps between dev evaluations; none without early stopping unless given."""
    early_stopping: EarlyStoppingConfig | None = None
    """End a training early by its dev split; none by default."""
    replay: Annotated[float, Leaves(("adapter",))] = Field(0.0, ge=0, le=1)
    """Experience replay: this share of the training clips of every set of earlier rounds is trained on again."""
    loader_workers: Annotated[Annotated[int, Field(ge=0, le=1024)] | Literal["auto"], Leaves(("resume", "state", "adapter"))] = (
        "auto"
    )
    """Threads that decode audio ahead; 0 decodes in the trainer's own. `auto` goes by cores and device (docs/performance.md)."""
    distillation: DistillationConfig | None = None
    """Stay near the base's own output; none by default."""
    ewc: EwcConfig | None = None
    """Needs curvature fisher or both: round t is held by what was measured in rounds before t."""
    curvature: Annotated[Choice, Leaves(("state",))] = "none"
    """What is measured of the finished adapter and written beside it, curvature.safetensors."""
    curvature_windows: Annotated[int, Leaves(("state",))] = Field(32, ge=1)
    """Training windows it is measured on; at most one epoch."""
    curvature_loss: Annotated[Literal["mean", "sum"], Leaves(("state",))] = "mean"
    """The loss of a window whose gradients are measured: the mean over its tokens, or their sum (docs/training.md)."""
    curvature_at: Annotated[Literal["adapter", "base"], Leaves(("state",))] = "adapter"
    """Where it is measured: at the finished adapter, on its data; or for ihr at the base that the adapter was trained against, on
    the data of the round that made the base (docs/training.md)."""

    @model_validator(mode="before")
    @classmethod
    def _warm_up_is_shorter_than_the_training(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or "warmup_steps" in tree:
            return tree
        steps = _number(tree.get("max_steps", 0), int)
        is_short = isinstance(steps, int) and 1 <= steps <= USUAL_WARMUP_STEPS
        return {**tree, "warmup_steps": _share(USUAL_WARMUP, steps)} if is_short else tree

    @field_validator("warmup_steps", mode="before")
    @classmethod
    def _share_is_a_number_of_steps(cls, warmup: Any, info: ValidationInfo) -> Any:
        """Takes a share of max_steps, so that what is recorded of a run is a number of steps."""
        share = float(warmup) if isinstance(warmup, str) and _POWER.fullmatch(warmup) else warmup
        if isinstance(share, int) or (isinstance(share, float) and share.is_integer() and share != 1):
            return share  # whether it is in the limits is checked next
        if not isinstance(share, float) or not 0 < share < 1:
            raise ValueError(f"expected a number of steps, or a share of max_steps between 0 and 1 such as 0.1, not {warmup!r}")
        return _share(share, info.data.get("max_steps", 1))  # max_steps that is wrong has its own message

    @model_validator(mode="after")
    def _only_ihr_looks_at_the_base(self) -> "TrainConfig":
        if self.curvature_at == "base" and self.curvature != "kronecker":
            raise ValueError(
                "curvature_at base measures for centralize.method ihr alone: set curvature to kronecker, "
                f"not {self.curvature}, or leave curvature_at out"
            )
        return self

    def unused(self) -> set[str]:
        """Returns the keys that say nothing where they have their default, and that identities of adapters then leave out."""
        return {"curvature_at"} if self.curvature_at == "adapter" else set()

    @property
    def statistics(self) -> tuple[str, ...]:
        """Returns what `curvature` asks for, by the names that curvature.safetensors uses."""
        return MEASURED[self.curvature]

    @model_validator(mode="after")
    def _early_stopping_needs_evaluations(self) -> "TrainConfig":
        if self.early_stopping and not self.eval_every:
            raise ValueError("early_stopping needs eval_every (steps between dev evaluations)")
        if self.warmup_steps >= self.max_steps and self.schedule != "constant":
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be less than max_steps ({self.max_steps})")
        return self

    @model_validator(mode="after")
    def _options_go_together(self) -> "TrainConfig":
        if self.ewc and "fisher" not in self.statistics:
            raise ValueError(f"ewc needs the Fisher information of every round: set curvature to fisher, not {self.curvature}")
        if self.ewc and self.strategy == "zero3":
            raise ValueError("ewc needs whole factors on every rank, zero3 shards them: use strategy ddp, zero0, zero1 or zero2")
        if self.optimizer == "sgd" and self.strategy != "ddp":
            raise ValueError(f"optimizer sgd works with strategy ddp, not {self.strategy}: there are no moments to shard")
        return self
