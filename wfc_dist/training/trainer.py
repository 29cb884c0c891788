"""The training loop: `train_adapter` trains the adapter of a job, from the start or from its newest checkpoint."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from wfc_dist import activity, log
from wfc_dist.data.batching import Batch, TrainingWindows
from wfc_dist.data.sources import open_split
from wfc_dist.errors import IntegrityError, Interrupted, TrainingError
from wfc_dist.training import curvature, divergence, metrics_log, state
from wfc_dist.training import model as models
from wfc_dist.training.checkpoints import Checkpoints
from wfc_dist.training.dev import DevSet
from wfc_dist.training.engine import check_precision, make_engine
from wfc_dist.training.ewc import elastic_weights
from wfc_dist.training.feeding import feed, log_waiting
from wfc_dist.training.job import Progress, TrainingJob, TrainingResult
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.prior import GaussianFactors
from wfc_dist.training.schedule import lr_at
from wfc_dist.training.uploads import Uploads
from wfc_dist.training.world import World
from wfc_dist.weights import peft_folder
from wfc_dist.weights.warm_base import WarmBase


def train_adapter(
    job: TrainingJob,
    warm: WarmBase,
    world: World,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainingResult:
    """Trains one adapter, from its newest checkpoint if there is one. Every rank of the world must call it.

    World rank 0 writes the PEFT folder into `job.output_dir`, the checkpoints and the metrics log. The result is the same on
    every rank. The warm base is unchanged afterwards; hashes check that.

    Args:
        job: What to train.
        warm: The base, in memory on this rank.
        world: From `join_world`.
        on_progress: Called on every rank after every step; must return quickly.
        should_stop: Called on world rank 0 after every step; True stops like the stop file does.

    Raises:
        ConfigError: The precision or the target modules do not fit the device or the model.
        InputError: The data cannot be used.
        Interrupted: `job.stop_file` exists, or `should_stop` returned True. A checkpoint is there; the same job resumes from it.
        TrainingError: The loss or a gradient is not finite.
        IntegrityError: The warm base is not the one of the job, or training has changed it.
    """
    if warm.base.sha256 != job.base.sha256:
        raise IntegrityError(f"{job.where()}: the trainer holds base {warm.base.index}, the job is for base {job.base.index}")
    check_precision(job.train, world.device)
    torch.set_num_threads(job.threads)  # this and the device belong to the calling thread, which need not be the one that joined
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    training = _Training(job, warm, world, on_progress or (lambda _: None), should_stop or (lambda: False))
    try:
        return training.run()
    finally:
        training.engine.close()
        training.checkpoints.close()
        training.uploads.close()


class _Training:
    """One training while it runs. `run` is the loop; the other methods are its steps."""

    def __init__(
        self,
        job: TrainingJob,
        warm: WarmBase,
        world: World,
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.job, self.train, self.warm, self.world = job, job.train, warm, world
        self.on_progress, self.should_stop = on_progress, should_stop
        self.writes = world.world_rank == 0
        self.metrics_file = Path(job.metrics_file) if job.metrics_file else None
        self.windows = TrainingWindows(open_split(job.dataset, job.data, "train"), job.train, warm.processor, job.data_seed)
        self.dev = DevSet(job, warm, world) if job.train.eval_every else None
        self.uploads = Uploads(job.mirror, self.metrics_file)
        self.checkpoints = Checkpoints(job, self.uploads)
        self.model = models.build(warm, job.lora, job.init_seed)
        prior = GaussianFactors(self.model, job.lora.prior, job.init_seed) if job.lora.prior else None
        self.loss = TokenLoss(self.model, self.train.precision, self.train.distillation, prior)
        self.num_trainable = sum(value.numel() for value in self.loss.trained_parameters().values())
        if self.train.gradient_checkpointing:
            models.checkpoint_activations_(self.model)
        self.seal = models.base_seal(warm, self.model)
        begun = self.checkpoints.newest(world)
        self.saved_step = begun.progress.step if begun is not None else -1
        if begun is None:
            begun = state.initial_state(self.loss.trained_parameters())
        self.progress, self.best, self.resumed_from = begun.progress, begun.best, begun.progress.step
        # The order matters. DeepSpeed copies the parameters when the engine is made: the model must hold the checkpoint's by
        # then. The random generators are restored last, so that nothing draws from them before the first step.
        models.copy_values_(self.loss.trained_parameters(), {name: slot.parameter for name, slot in begun.slots.items()})
        self.penalties = self._make_penalties()
        self.engine = make_engine(self.loss, self.train, world)
        self.engine.write_(begun.progress.step, begun.slots, begun.progress.scaler)
        state.restore_rng(begun, job.data_seed, world.world_size, world.world_rank, world.device)
        if self.writes and self.metrics_file:
            metrics_log.cut(self.metrics_file, self.resumed_from, evaluated=self.progress.evaluated_step == self.resumed_from)
        activity.begin(job.dataset, self.resumed_from)
        self.began, self.speech_before = time.monotonic(), self.progress.speech_seconds

    def _make_penalties(self) -> list[Callable[[], torch.Tensor]]:
        """Returns what is added to the mean token loss, once a step: functions of the trained parameters alone."""
        penalties: list[Callable[[], torch.Tensor]] = []
        if self.train.ewc and self.job.past_curvature:
            penalties.append(elastic_weights(self.job, self.model, self.world.device))
        if self.loss.prior is not None:
            penalties.append(self.loss.prior.penalty)
        return penalties

    def run(self) -> TrainingResult:
        """Trains until the last step, early stopping or the stop file, and writes the adapter."""
        first, world = self.progress.step, self.world
        workers = self.train.loader_workers
        num_threads = 0 if workers == "auto" else workers  # a run's configuration says what auto is (`jobs.training_job`)
        batches = feed(self.windows, first, self.train.max_steps - first, world, num_threads)  # closed below, with its threads
        with log.span("train", phase="training", dataset=self.job.dataset, first_step=first), contextlib.closing(batches):
            stopping = bool(world.from_first([self._asked_to_stop()])[0])
            while True:
                if stopping and not (self._trained() and not self._evaluation_due()):
                    self._interrupt()
                if self._evaluation_due():
                    self._evaluate()
                if self._trained():
                    break
                asked_s = time.perf_counter()
                position, micro_batches = next(batches)
                waited_s = time.perf_counter() - asked_s
                assert position == self.progress.step
                if position == first:
                    log.event("first_step", dataset=self.job.dataset)
                self.checkpoints.check()
                stopping = self._step(micro_batches, waited_s)
                if self.progress.step % self.train.checkpoint_every == 0 and not self._trained() and not stopping:
                    self._save()
        return self._finish()

    def _interrupt(self) -> None:
        self._save()
        self.checkpoints.wait()
        self.world.barrier()
        step = self.progress.step
        raise Interrupted(f"{self.job.where()}: stopped at step {step} on request; the same command goes on", step=step)

    def _trained(self) -> bool:
        return self.progress.stopped_early or self.progress.step >= self.train.max_steps

    def _asked_to_stop(self) -> bool:
        return self.writes and (self.should_stop() or bool(self.job.stop_file and Path(self.job.stop_file).exists()))

    def _step(self, micro_batches: list[Batch], waited_s: float) -> bool:
        """Takes one optimizer step, whose data came after `waited_s` seconds.

        Returns on every rank whether world rank 0 has been asked to stop.
        """
        start, position = time.monotonic(), self.progress.step
        lr = lr_at(position + 1, self.train)
        self.engine.set_lr(lr)
        num_tokens = self.windows.num_label_tokens(position, self.world.world_size)
        shared = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        penalties: list[torch.Tensor] = []
        for index, batch in enumerate(micro_batches):
            with self.engine.micro_batch():
                losses = self.engine.model(**{key: value.to(self.world.device) for key, value in batch.items()})
                # Gradients are averaged over ranks and summed over micro-batches. So the step has the gradient of the mean
                # over all tokens, plus that of the penalties, which every rank adds to its first micro-batch.
                added = [penalty() for penalty in self.penalties] if index == 0 else []
                self.engine.backward(sum(added, losses.sum() * (self.world.world_size / num_tokens)))
            shared[0] += losses.detach().double().sum()
            penalties += [value.detach().double().view(1) for value in added]
        norm = self.engine.step()
        shared[1] = float(self._asked_to_stop())
        numbers = [self.world.sum_(shared), norm.double().view(1), *penalties]
        loss_sum, stop, grad_norm, *values = torch.cat(numbers).tolist()  # the only synchronization of the step
        self._check_finite(loss_sum / num_tokens + sum(values), grad_norm)
        speech_seconds = self.windows.seconds(position, self.world.world_size)
        self.progress.step, self.progress.loss = position + 1, loss_sum / num_tokens
        seconds = time.monotonic() - start
        self.progress.seconds += seconds
        self.progress.data_wait_s += waited_s
        self.progress.speech_seconds += speech_seconds
        penalty = {"penalty": sum(values)} if values else {}
        times = {"step_s": round(seconds, 6), "data_wait_s": round(waited_s, 6)}
        activity.moved(step=self.progress.step)
        self._note(loss=self.progress.loss, lr=lr, grad_norm=grad_norm, speech_seconds=speech_seconds, **penalty, **times)
        self._tell("train")
        return bool(stop)

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        # The loss scaler of fp16 skips steps whose gradients overflow: they are no failure.
        if math.isfinite(loss) and (math.isfinite(grad_norm) or self.train.precision == "fp16"):
            return
        raise TrainingError(
            f"{self.job.where()}: loss {loss}, gradient norm {grad_norm} at step {self.progress.step + 1}; "
            "lower train.lr, lengthen train.warmup_steps, or train in bf16 or fp32"
        )

    def _note(self, **row: Any) -> None:
        if self.writes and self.metrics_file:
            metrics_log.append(self.metrics_file, step=self.progress.step, **row)

    def _tell(self, phase: Literal["train", "dev", "checkpoint"]) -> None:
        rate = (self.progress.speech_seconds - self.speech_before) / max(time.monotonic() - self.began, 1e-9)
        lr = lr_at(max(self.progress.step, 1), self.train)
        waited_s = self.progress.data_wait_s
        share = waited_s / max(waited_s + self.progress.seconds, 1e-9)
        self.on_progress(Progress(self.progress.step, self.train.max_steps, self.progress.loss, lr, rate, phase, share))

    def _evaluation_due(self) -> bool:
        every, step = self.train.eval_every, self.progress.step
        if not every or step in (0, self.progress.evaluated_step):
            return False
        return step % every == 0 or step == self.train.max_steps

    def _evaluate(self) -> None:
        """Measures on the dev split; with early stopping it keeps the best weights and may end the training."""
        assert self.dev is not None
        self._tell("dev")
        stopping = self.train.early_stopping
        metric = stopping.metric if stopping else "loss"
        with log.span("dev", phase="dev", dataset=self.job.dataset, step=self.progress.step):
            parameters = self.engine.parameter_values()
            value = self.dev.error(parameters) if metric == "error" else self.dev.loss(parameters)
            self._note(**{f"dev_{metric}": value})
        self._check_finite(value, 0.0)
        if self.progress.judge(metric, value, stopping.patience if stopping else None) and stopping:
            self.best = parameters

    def _save(self) -> None:
        """Copies the state, unless that of this step is saved, and has it written while training goes on. Every rank calls it."""
        if self.progress.step == self.saved_step:
            return
        self._tell("checkpoint")
        self.progress.scaler = self.engine.scaler_state()
        with log.span("checkpoint", phase="checkpoint", dataset=self.job.dataset, step=self.progress.step):
            rng = self.world.gather(state.rng_state(self.world.device))
            snapshot = state.TrainingState(replace(self.progress), self.engine.read(), self.best, rng)
            if self.writes:
                self.checkpoints.submit(snapshot)
        self.saved_step = self.progress.step

    def _measure_curvature(self, chosen: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the curvature at the chosen adapter, or at the base, on world rank 0, which measures it alone; {} elsewhere."""
        if self.train.curvature == "none":
            return {}
        measured: dict[str, torch.Tensor] | None = {}
        if self.writes:
            with log.span("curvature", phase="curvature", dataset=self.job.dataset):
                if self.train.curvature_at == "base":
                    measured = curvature.measure_base(self.job, self.warm, self._asked_to_stop)
                else:
                    measured = curvature.measure(self.job, self.warm, chosen, self.windows, self._asked_to_stop)
        if self.world.from_first([measured is None])[0]:
            self._interrupt()  # the last state is kept; resuming measures again
        return measured or {}

    def _finish(self) -> TrainingResult:
        self.checkpoints.wait()
        if self.writes:
            log_waiting(self.progress.step, self.progress.seconds, self.progress.data_wait_s)
        chosen = self.best or self.engine.parameter_values()
        measured = self._measure_curvature(chosen)
        models.check_seal(self.warm, self.model, self.seal, self.job.where())
        adapter = models.stored_factors(self.model, chosen)
        divergence.check_finite(adapter, self.job.where())
        if self.writes:
            output = Path(self.job.output_dir)
            output.mkdir(parents=True, exist_ok=True)  # without shared storage the coordinator has made it on another node
            peft_folder.write_peft(output, adapter, models.adapter_config(self.model))
            divergence.check_size(output, self.warm, self.train.max_update_ratio, self.job.where())
            if measured:
                curvature.write(output, measured)
            self.uploads.finish(output)
        self.world.barrier()
        progress = self.progress
        return TrainingResult(
            sha256=peft_folder.adapter_sha256(adapter),
            hours=self.windows.hours,
            steps=progress.step,
            best_step=progress.best_step if self.best else progress.step,
            dev_loss=progress.dev_loss,
            dev_error=progress.dev_error,
            final_loss=progress.loss,
            num_trainable=self.num_trainable,
            seconds=progress.seconds,
            data_wait_s=progress.data_wait_s,
            speech_seconds=progress.speech_seconds,
            resumed_from=self.resumed_from,
        )
