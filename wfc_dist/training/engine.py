"""DDP and DeepSpeed ZeRO 0 to 3 behind one interface, through Accelerate.

`Engine` is plain data parallelism. `ZeroEngine` overrides how moments are read and written, and where the step happens.
A process keeps its torch.distributed group and trains many adapters with one engine after the other: `close` removes what an
engine leaves in Accelerate's singletons and in the environment.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch.nn.parallel import DistributedDataParallel

from wfc_dist.config.training import TrainConfig
from wfc_dist.errors import ConfigError, TrainingError, require
from wfc_dist.runs.precision import has_bf16
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import lora_parameters
from wfc_dist.training.world import World


@dataclass(frozen=True)
class Slot:
    """One trained parameter and its Adam moments (zero where the optimizer has none): unsharded, float32, on the CPU."""

    parameter: torch.Tensor
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor


def make_engine(loss: TokenLoss, train: TrainConfig, world: World) -> "Engine":
    """Returns the engine for `train.strategy`. Every rank must call this, and close the engine before it makes the next one.

    Args:
        loss: The model, which is wrapped. Its parameters must hold the values to start from: DeepSpeed copies them.
        train: Strategy, precision, batch and optimizer settings.
        world: From `join_world`.
    """
    return Engine(loss, train, world) if train.strategy == "ddp" else ZeroEngine(loss, train, world)


def check_precision(train: TrainConfig, device: torch.device) -> None:
    """Raises ConfigError if the device or the strategy cannot train in `train.precision`."""
    if train.precision == "auto":
        raise ConfigError("train.precision: auto is decided when a run starts; give bf16 or fp32 where there is no run")
    if train.precision == "bf16" and device.type == "cuda" and not has_bf16(use_gpu=True):
        raise ConfigError(
            f"train.precision: {torch.cuda.get_device_name(device)} has no bf16; use a GPU of compute capability 8 or more, or "
            "start another run in fp32 or fp16"
        )
    if train.precision == "fp16" and device.type == "cpu":
        raise ConfigError("train.precision: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    if train.precision == "fp16" and train.strategy != "ddp":
        raise ConfigError(f"train.precision: fp16 works with strategy ddp only; use bf16 or fp32 with {train.strategy}")


class Engine:
    """Data parallelism: every rank holds all of the model, and gradients are averaged."""

    def __init__(self, loss: TokenLoss, train: TrainConfig, world: World) -> None:
        self.train, self.world = train, world
        self.parameters, self._adapter = loss.trained_parameters(), lora_parameters(loss).keys()
        frozen = [name for name, parameter in loss.named_parameters() if not parameter.requires_grad]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(loss, frozen)  # every rank has verified its base
        _forget_accelerate()
        PartialState(cpu=world.device.type == "cpu")
        self.accelerator = self._make_accelerator()
        if self.accelerator.num_processes != world.world_size:
            raise TrainingError(
                f"Accelerate sees {self.accelerator.num_processes} processes, the trainer has {world.world_size}: "
                "gradients would not be averaged; call join_world before anything that uses Accelerate"
            )
        self.model, self.optimizer = self._prepare(loss, self._make_optimizer())

    def _make_optimizer(self) -> torch.optim.Optimizer:
        train = self.train
        groups: list[dict[str, Any]] = [{"params": [self.parameters[name] for name in self._adapter]}]
        if spreads := [value for name, value in self.parameters.items() if name not in self._adapter]:
            groups.append({"params": spreads, "weight_decay": 0.0})  # rho = 0 is a wide spread, not a prior's centre
        if train.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=train.lr, weight_decay=train.weight_decay)
        return torch.optim.AdamW(groups, lr=train.lr, betas=train.betas, weight_decay=train.weight_decay)

    def _prepare(self, loss: TokenLoss, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        if self.world.world_size == 1:  # no gradients to average, no wrapper to pay for
            return loss.to(self.world.device), self.accelerator.prepare(optimizer)
        return self.accelerator.prepare(loss, optimizer)

    def _make_accelerator(self) -> Accelerator:
        return Accelerator(
            cpu=self.world.device.type == "cpu",
            mixed_precision="fp16" if self.train.precision == "fp16" else "no",  # for its loss scaler; see TokenLoss
            gradient_accumulation_steps=self.train.gradient_accumulation,
            # Without this search DDP re-buckets gradients after its first step: a resumed run would add in another order.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)],
        )

    def micro_batch(self) -> contextlib.AbstractContextManager[None]:
        """Encloses forward and backward of one micro-batch. Gradients are averaged over ranks in the last one of a step."""
        return self.accelerator.accumulate(self.model)

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of `loss`. A step uses the mean over ranks of the sum over micro-batches."""
        self.accelerator.backward(loss * self.train.gradient_accumulation)  # Accelerate and DeepSpeed divide by it

    def set_lr(self, lr: float) -> None:
        """Sets the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def step(self) -> torch.Tensor:
        """Clips the gradient, takes the step, clears the gradient. Returns its norm before clipping, a scalar on the device."""
        norm = self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.train.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        assert norm is not None
        return norm

    def scaler_state(self) -> dict[str, Any]:
        """Returns the state of fp16's loss scaler; empty without one."""
        return self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}

    def read(self) -> dict[str, Slot]:
        """Returns the trained parameters and their moments by PEFT key. Every rank must call it."""
        keys = (None, "exp_avg", "exp_avg_sq")
        return {name: Slot(*(self._full(parameter, key) for key in keys)) for name, parameter in self.parameters.items()}

    def parameter_values(self) -> dict[str, torch.Tensor]:
        """Returns the adapter by PEFT key: unsharded, float32, on the CPU. Every rank must call it."""
        return {name: self._full(self.parameters[name], None) for name in self._adapter}

    def _full(self, parameter: torch.Tensor, key: str | None) -> torch.Tensor:
        """Returns a parameter, or its moment `key`."""
        if key is None:
            return _copy(parameter)
        states = self.optimizer.state if self.train.optimizer == "adamw" else {}
        return _copy(states[parameter][key] if states else torch.zeros_like(parameter))

    def write_(self, step: int, slots: Mapping[str, Slot], scaler: Mapping[str, Any]) -> None:
        """Sets the optimizer to its state after `step` steps. The parameters are set before the engine is made."""
        if self.train.optimizer == "adamw":
            for name, parameter in self.parameters.items():
                self.optimizer.state[parameter] = _adam_state(parameter, step)
                self.optimizer.state[parameter]["exp_avg"].copy_(slots[name].exp_avg)
                self.optimizer.state[parameter]["exp_avg_sq"].copy_(slots[name].exp_avg_sq)
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(scaler))

    def close(self) -> None:
        """Frees the engine. Every rank must call it."""
        self.accelerator.free_memory()
        _forget_accelerate()


class ZeroEngine(Engine):
    """DeepSpeed ZeRO. Stage 0 shards nothing, 1 shards moments, 2 also gradients, 3 also parameters."""

    def _make_accelerator(self) -> Accelerator:
        require("deepspeed", "deepspeed", f"train.strategy {self.train.strategy}")
        import deepspeed.ops
        from accelerate.utils import DeepSpeedPlugin

        if self.world.device.type == "cpu":  # otherwise DeepSpeed compiles its shared-memory collectives on this machine
            deepspeed.ops.__compatible_ops__ = {}
        self.stage = int(self.train.strategy.removeprefix("zero"))
        self._norm = torch.zeros(())
        plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_config(self.train, self.world.world_size), zero3_init_flag=False)
        return Accelerator(
            deepspeed_plugin=plugin, mixed_precision="no", gradient_accumulation_steps=self.train.gradient_accumulation
        )

    def __init__(self, loss: TokenLoss, train: TrainConfig, world: World) -> None:
        super().__init__(loss, train, world)
        self.zero = self.model.optimizer
        if self.stage == 0:
            self.zero.register_step_pre_hook(self._clip)

    def _clip(self, *_: Any) -> None:
        # DeepSpeed's stage 0 does not report the norm. When this hook runs, the gradients are averaged.
        self._norm = torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.train.max_grad_norm)

    def _prepare(self, loss: TokenLoss, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
        return self.accelerator.prepare(loss, optimizer)

    def step(self) -> torch.Tensor:
        """Returns the gradient's norm; DeepSpeed has clipped and stepped in the last `backward`."""
        norm = self._norm if self.stage == 0 else self.model.get_global_grad_norm()
        return torch.as_tensor(norm, dtype=torch.float32, device=self.world.device)

    def _full(self, parameter: torch.Tensor, key: str | None) -> torch.Tensor:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        if self.stage == 0:
            return _copy(parameter if key is None else self.zero.state[parameter][key])
        return _copy(safe_get_full_optimizer_state(parameter, key) if key else safe_get_full_fp32_param(parameter))

    def write_(self, step: int, slots: Mapping[str, Slot], scaler: Mapping[str, Any]) -> None:
        """Sets the optimizer to its state after `step` steps. The parameters are set before the engine is made."""
        states = self.zero.state if self.stage == 0 else self.zero.optimizer.state
        if self.stage == 0:
            trained = self.parameters.values()
        else:
            trained = self.zero.fp32_partitioned_groups_flat if self.stage == 3 else self.zero.single_partition_of_fp32_groups
        for flat in trained:  # DeepSpeed makes its states in the first step, which is too late
            states[flat] = _adam_state(flat, step)
        if self.stage in (1, 2):
            self.zero._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.parameters.items():
            self._set_full(parameter, slots[name].exp_avg, "exp_avg")
            self._set_full(parameter, slots[name].exp_avg_sq, "exp_avg_sq")

    def _set_full(self, parameter: torch.Tensor, value: torch.Tensor, key: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        value = value.to(self.world.device)
        if self.stage == 0:
            self.zero.state[parameter][key].copy_(value)
        elif self.stage < 3:
            safe_set_full_optimizer_state(parameter, value, key)
        else:  # safe_set_full_... ignores that the last rank's part is padded
            size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
            padded = torch.nn.functional.pad(value.flatten(), (0, size * self.world.world_size - value.numel()))
            safe_set_local_optimizer_state(parameter, padded.narrow(0, size * self.world.world_rank, size), key)

    def close(self) -> None:
        """Frees the engine. Every rank must call it."""
        super().close()
        if self.stage == 3:
            _forget_stage_3()


def deepspeed_config(train: TrainConfig, world_size: int) -> dict[str, Any]:
    """Returns the DeepSpeed configuration. All of it is float32: LoRA is small, and autocast is in TokenLoss."""
    stage = int(train.strategy.removeprefix("zero"))
    return {
        "train_micro_batch_size_per_gpu": train.batch_size,
        "gradient_accumulation_steps": train.gradient_accumulation,
        "train_batch_size": train.batch_size * train.gradient_accumulation * world_size,
        "gradient_clipping": train.max_grad_norm if stage else 0.0,  # stage 0: see ZeroEngine._clip
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW: nothing is compiled
        "zero_optimization": {"stage": stage},
    }


def _forget_accelerate() -> None:
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # the first DeepSpeedPlugin sets it and nothing removes it
    AcceleratorState._reset_state(reset_partial_state=True)  # the torch.distributed group stays
    GradientState._reset_state()


def _forget_stage_3() -> None:
    """Clears what DeepSpeed keeps per process: a list of models, and a cache of a method whose keys are engine and module."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    getattr(parameter_offload, "FWD_MODULE_STACK", []).clear()
    method = getattr(PartitionedParameterCoordinator, "_PartitionedParameterCoordinator__params_to_release", None)
    cached = (cell.cell_contents for cell in getattr(method, "__closure__", None) or ())
    for function in (method, *cached):  # DeepSpeed has a wrapper around the method that has the cache
        if hasattr(function, "cache_clear"):
            function.cache_clear()


def _adam_state(parameter: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
    values = torch.zeros_like(parameter, memory_format=torch.preserve_format).detach()
    return {"step": torch.tensor(float(step)), "exp_avg": values, "exp_avg_sq": values.clone()}


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)
