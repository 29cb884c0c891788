"""The state of a training between two steps, and its checkpoints: one format for every strategy and number of ranks.

A checkpoint is CHECKPOINT_DIR/step-<N>/ with state.safetensors and state.json, committed by its manifest. No pickle.
Parameters and moments are unsharded float32 tensors by PEFT key; the engine gathers what ZeRO shards.
"""

import json
import logging
import math
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file

from wfc_dist.errors import IntegrityError
from wfc_dist.runs.layout import checkpoint, checkpoint_steps
from wfc_dist.storage import durable
from wfc_dist.training.engine import Slot
from wfc_dist.weights.tensor_files import save_tensors

logger = logging.getLogger(__name__)

TENSORS, FACTS = "state.safetensors", "state.json"
KEPT = 2
_PARTS = ("parameter", "exp_avg", "exp_avg_sq")


@dataclass
class TrainerProgress:
    """The counters and measures of a training. state.json holds these fields.

    Attributes:
        step: Optimizer steps that are done. With the seed it gives the position in the data.
        loss: Training loss of the last step, per label token.
        seconds: Time spent in steps.
        data_wait_s: Time spent waiting for the data of steps.
        speech_seconds: Speech trained on.
        best_step: Step of the best dev measure so far; 0 before the first.
        best_value: That measure; None before the first.
        num_worse: Evaluations since `best_step`.
        dev_loss: Dev loss at `best_step`; without early stopping, at the last evaluation.
        dev_error: Dev error, likewise.
        evaluated_step: Step of the last evaluation.
        stopped_early: Early stopping has ended the training.
        scaler: State of fp16's loss scaler.
    """

    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    data_wait_s: float = 0.0
    speech_seconds: float = 0.0
    best_step: int = 0
    best_value: float | None = None
    num_worse: int = 0
    dev_loss: float | None = None
    dev_error: float | None = None
    evaluated_step: int = 0
    stopped_early: bool = False
    scaler: dict[str, Any] = field(default_factory=dict)

    def judge(self, metric: Literal["loss", "error"], value: float, patience: int | None) -> bool:
        """Records a dev measure of this step, and says whether it is the best so far.

        Args:
            metric: What was measured.
            value: The measure; less is better.
            patience: Early stopping ends the training after this many evaluations without a better one; None takes every
                measure for the best.
        """
        self.evaluated_step = self.step
        if patience is not None and self.best_value is not None and not value < self.best_value:
            self.num_worse += 1
            self.stopped_early = self.num_worse >= patience
            return False
        self.best_step, self.best_value, self.num_worse = self.step, value, 0
        self.dev_loss, self.dev_error = (value, None) if metric == "loss" else (None, value)
        return True


@dataclass
class TrainingState:
    """A training between two steps. A fresh start is a state too: starting and resuming take one path.

    Attributes:
        progress: Counters and measures.
        slots: Key of `TokenLoss.trained_parameters` -> parameter and moments.
        best: PEFT key -> parameter at `progress.best_step`; empty before the first evaluation.
        rng: One entry per rank, see `rng_state`.
    """

    progress: TrainerProgress
    slots: dict[str, Slot]
    best: dict[str, torch.Tensor]
    rng: list[torch.Tensor]


def initial_state(parameters: Mapping[str, torch.Tensor]) -> TrainingState:
    """Returns the state before the first step. It has no RNG entries, so that `restore_rng` seeds the generators."""
    values = {name: value.detach().cpu().clone() for name, value in parameters.items()}
    slots = {name: Slot(value, torch.zeros(value.shape), torch.zeros(value.shape)) for name, value in values.items()}
    return TrainingState(TrainerProgress(), slots, {}, [])


def rng_state(device: torch.device) -> torch.Tensor:
    """Returns this rank's random generators as one uint8 tensor of a fixed size: torch, CUDA if used, numpy, Python."""
    python = np.asarray(random.getstate()[1], dtype=np.uint32)
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    assert kind == "MT19937" and isinstance(keys, np.ndarray)
    spare = random.getstate()[2]
    numbers = np.asarray([position, has_gauss, gauss, math.nan if spare is None else spare], dtype=np.float64)
    parts = [torch.get_rng_state()]
    if device.type == "cuda":
        parts.append(torch.cuda.get_rng_state(device))
    parts += [torch.from_numpy(np.frombuffer(part.tobytes(), np.uint8).copy()) for part in (python, keys, numbers)]
    return torch.cat(parts)


def set_rng_state(state: torch.Tensor, device: torch.device) -> None:
    """Sets this rank's generators to what `rng_state` returned."""
    here = rng_state(device)
    if state.shape != here.shape:
        raise IntegrityError("the checkpoint's random state is of another device or library; its step cannot be repeated")
    sizes = [torch.get_rng_state().numel()]
    sizes += [torch.cuda.get_rng_state(device).numel()] if device.type == "cuda" else []
    sizes += [625 * 4, 624 * 4, 4 * 8]
    parts = list(state.split(sizes))
    torch.set_rng_state(parts[0].clone())
    if device.type == "cuda":
        torch.cuda.set_rng_state(parts[1].clone(), device)
    python, keys = (np.frombuffer(part.numpy().tobytes(), np.uint32) for part in parts[-3:-1])
    position, has_gauss, gauss, spare = (float(number) for number in np.frombuffer(parts[-1].numpy().tobytes(), np.float64))
    random.setstate((3, tuple(int(word) for word in python), None if math.isnan(spare) else spare))
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))


def restore_rng(state: TrainingState, seed: int, world_size: int, world_rank: int, device: torch.device) -> None:
    """Sets this rank's generators to the state's. Where it has none for this rank, (seed, step, world_rank) seeds them."""
    if len(state.rng) == world_size:
        try:
            return set_rng_state(state.rng[world_rank], device)
        except IntegrityError as error:
            logger.warning("%s", error)
    elif state.rng:
        logger.warning(
            "the checkpoint was written by %d ranks, %d go on with it: dropout is seeded anew", len(state.rng), world_size
        )
    mixed = int(np.random.SeedSequence([seed, state.progress.step, world_rank]).generate_state(1)[0])
    torch.manual_seed(mixed)  # CUDA's too
    random.seed(mixed)
    np.random.seed(mixed)
    return None


def save_state(state: TrainingState, folder: Path, identity: Mapping[str, Any], attempt: int) -> Path:
    """Writes folder/step-<N>/ durably, then removes all but the newest two. Only world rank 0 calls it."""
    final = checkpoint(folder, state.progress.step)
    staged = durable.staging_path(final, attempt)
    tensors = {f"{part}/{name}": getattr(slot, part) for name, slot in state.slots.items() for part in _PARTS}
    tensors |= {f"best/{name}": value for name, value in state.best.items()}
    tensors |= {f"rng/{rank}": value for rank, value in enumerate(state.rng)}
    save_tensors(staged / TENSORS, tensors)
    (staged / FACTS).write_text(json.dumps(asdict(state.progress), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    durable.commit_folder(staged, final, {"kind": "training", "step": state.progress.step, "identity": dict(identity)})
    for step in [step for step in checkpoint_steps(folder) if step <= state.progress.step][KEPT:]:
        durable.remove_folder(checkpoint(folder, step))
    for path in folder.glob("*.tmp-*"):
        shutil.rmtree(path, ignore_errors=True)
    return final


def newest_step(folder: Path, identity: Mapping[str, Any]) -> int | None:
    """Returns the step of the newest checkpoint that is intact and of this training. Warns about every other newer one."""
    for step in checkpoint_steps(folder):
        path = checkpoint(folder, step)
        try:
            manifest = durable.verify_folder(path)
        except IntegrityError as error:
            logger.warning("checkpoint passed over: %s", error)
            continue
        saved = {"train": identity.get("train")} | manifest.get("identity", {})  # see TrainingJob.identity
        if changed := sorted(key for key in identity.keys() | saved.keys() if identity.get(key) != saved.get(key)):
            logger.warning("checkpoint passed over: %s is of another training (%s differs)", path, ", ".join(changed))
            continue
        return step
    return None


def load_state(folder: Path, step: int) -> TrainingState:
    """Reads folder/step-<step>/, which `newest_step` has verified. Every rank calls it."""
    path = checkpoint(folder, step)
    tensors = load_file(path / TENSORS)
    progress = TrainerProgress(**json.loads((path / FACTS).read_text(encoding="utf-8")))
    names = [name.removeprefix("parameter/") for name in tensors if name.startswith("parameter/")]
    slots = {name: Slot(*(tensors[f"{part}/{name}"] for part in _PARTS)) for name in sorted(names)}
    best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
    num_ranks = sum(name.startswith("rng/") for name in tensors)
    return TrainingState(progress, slots, best, [tensors[f"rng/{rank}"] for rank in range(num_ranks)])
