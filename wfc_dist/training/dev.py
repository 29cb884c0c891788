"""The measures on the dev split: loss per token, or error rate. Every rank gets the same number, for any number of ranks."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import torch

from wfc_dist import activity
from wfc_dist.data.batching import DevWindows
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build, copy_values_, lora_parameters, train_mode_
from wfc_dist.training.world import World
from wfc_dist.weights.warm_base import WarmBase


class DevSet:
    """A dev split, and a model of its own to measure with.

    That model shares the warm base with the one that is trained, but neither DDP nor ZeRO wraps it; the trained values are
    copied into it.
    """

    def __init__(self, job: TrainingJob, warm: WarmBase, world: World) -> None:
        self.job, self.warm, self.world = job, warm, world
        self.split = open_split(job.dataset, job.data, "dev")

    @cached_property
    def _model(self) -> TokenLoss:
        model = build(self.warm, self.job.lora, self.job.init_seed)
        train_mode_(model, training=False)
        return TokenLoss(model.requires_grad_(False), self.job.train.precision)

    @cached_property
    def _windows(self) -> DevWindows:
        return DevWindows(self.split, self.job.train, self.warm.processor)

    @torch.no_grad()
    def loss(self, parameters: Mapping[str, torch.Tensor]) -> float:
        """Returns the cross-entropy per label token of an adapter, given by PEFT key. Every rank must call it.

        The sum is in float64 and in window order.
        """
        copy_values_(lora_parameters(self._model), parameters)
        size, world = self.job.train.batch_size, self.world
        num_batches = self._windows.num_batches(size, world.world_size)
        sums = torch.zeros(num_batches, world.world_size, size, dtype=torch.float64, device=world.device)
        for index in range(num_batches):
            batch = self._windows.batch(index, size, world.world_rank, world.world_size)
            activity.moved()
            sums[index, world.world_rank] = self._model(**{key: value.to(self.warm.device) for key, value in batch.items()})
        per_window = world.sum_(sums).flatten().cpu().numpy()[: len(self._windows.windows)]
        return float(per_window.sum()) / self._windows.num_label_tokens

    def error(self, parameters: Mapping[str, torch.Tensor]) -> float:
        """Returns the corpus error rate of an adapter, given by PEFT key, measured as the block `evaluate` and the data set say.

        Every rank must call it, and decodes its clips.

        Raises:
            InputError: No reference has a token after normalisation.
        """
        copy_values_(lora_parameters(self._model), parameters)
        counts = self.world.sum_(torch.tensor(self._count_share(), dtype=torch.int64, device=self.world.device)).tolist()
        if counts[1] == 0:
            raise InputError(f"{self.job.where()}: no dev reference has a token after normalisation; stop on the loss instead")
        return counts[0] / counts[1]

    def _count_share(self) -> tuple[int, int]:
        """Returns (errors, reference tokens) of this rank's clips."""
        from wfc_dist.evaluation.decoding import decode_sets
        from wfc_dist.evaluation.hypotheses import normalized
        from wfc_dist.evaluation.metrics import count_part
        from wfc_dist.evaluation.normalize import spelling_table

        # How clips are packed must not depend on the number of ranks: rank 0 packs and decodes all of them.
        spread = 1 if self.job.evaluate.packing else self.world.world_size
        if self.world.world_rank >= spread:
            return 0, 0
        share = self.split.part(slice(self.world.world_rank, self.job.evaluate.max_clips, spread))
        if not share.clips:
            return 0, 0
        evaluate, spelling = self.job.evaluate.of(self.job.data), spelling_table(Path(self.warm.base.path))
        (hypotheses,) = decode_sets(self._model.model, self.warm.processor, [share], evaluate)
        counts = count_part(*normalized(hypotheses, evaluate.normalizer, spelling), evaluate.metric)
        return int(counts.errors.sum()), int(counts.lengths.sum())
