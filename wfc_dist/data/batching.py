"""Batches of windows by position: what a rank sees at a step is a pure function of (seed, step), so that resuming is simple.

The windows of epoch 0, 1, 2, ... form one endless sequence. Each epoch has every usable clip exactly once. Global window
`((step * accumulation + micro) * world_size + world_rank) * batch_size + b` is row b of a micro-batch: the ranks of a step see
one contiguous part of the sequence, whatever their number.
"""

import bisect
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperProcessor

from wfc_dist.config.training import TrainConfig
from wfc_dist.data.audio_files import RATE_HZ
from wfc_dist.data.features import Labels, clip_sizes, log_mel, spec_augment, window_audio
from wfc_dist.data.packing import MAX_LABEL_TOKENS, MAX_TEXT_TOKENS, WINDOW_SAMPLES, Window, pack
from wfc_dist.data.sources import Split
from wfc_dist.errors import InputError

logger = logging.getLogger(__name__)

Batch = dict[str, torch.Tensor]
IGNORED = -100
"""Label of padding, which the loss ignores."""
_ORDER, _MASKS = 0, 1  # separate random streams of one seed


def padded_batch(features: Sequence[torch.Tensor], labels: Sequence[Sequence[int]]) -> Batch:
    """Returns input_features (B, n_mels, 3000) float32 and labels (B, L) int64, padded with -100 to the longest."""
    rows = [torch.tensor(ids, dtype=torch.int64) for ids in labels]
    return {"input_features": torch.stack(list(features)), "labels": pad_sequence(rows, batch_first=True, padding_value=IGNORED)}


class _Windows:
    """The common part of training and dev windows: usable clips, their labels, the features of a window."""

    def __init__(self, split: Split, train: TrainConfig, processor: WhisperProcessor) -> None:
        self.split, self._train = split, train
        self._extractor = processor.feature_extractor
        self.labels = Labels(split.clips, processor.tokenizer)
        self._gap_samples = round(train.gap_s * RATE_HZ)
        self._sizes = clip_sizes(split.clips, self.labels)
        self.usable = self._usable_clips()

    def _usable_clips(self) -> list[int]:
        """Returns the indices of the clips that windows are made of. Logs how many are left out, and why."""
        reasons = [self._why_left_out(index) for index in range(len(self.split))]
        usable = [index for index, reason in enumerate(reasons) if reason is None]
        counts = Counter(reason for reason in reasons if reason)
        left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        where = f"{self.split.name}/{self.split.split}"
        if not usable:
            raise InputError(
                f"{where}: none of {len(self.split)} clips is usable ({left_out}); check train.max_duration_s and the audit"
            )
        if left_out:
            logger.info("%s: %d of %d clips left out (%s)", where, len(self.split) - len(usable), len(self.split), left_out)
        return usable

    def _why_left_out(self, index: int) -> str | None:
        clip, size, train = self.split.clips[index], self._sizes[index], self._train
        if clip.duration_s < train.min_duration_s or not size.num_samples:
            return f"shorter than {train.min_duration_s:g} s"
        if clip.duration_s > train.max_duration_s or size.num_samples > WINDOW_SAMPLES:
            return f"longer than {train.max_duration_s:g} s"
        if size.num_tokens > MAX_TEXT_TOKENS:
            return f"over {MAX_LABEL_TOKENS} label tokens"
        return None if clip.text else "without text"

    @property
    def hours(self) -> float:
        """Hours of speech in the usable clips."""
        return self.seconds_of([tuple(self.usable)]) / 3600

    def seconds_of(self, windows: Sequence[Window]) -> float:
        """Returns the seconds of speech in windows, without the silence between and after clips."""
        return sum(self.split.clips[index].duration_s for window in windows for index in window)

    def arrange(self, order: Sequence[int]) -> list[Window]:
        """Returns the windows of clips in `order`: packed with train.packing, otherwise one clip each."""
        if not self._train.packing:
            return [(index,) for index in order]
        return pack(order, self._sizes, gap_samples=self._gap_samples, max_tokens=MAX_TEXT_TOKENS)

    def features_of(self, window: Window, mask_seed: Sequence[int] | None = None) -> torch.Tensor:
        """Returns the features (n_mels, 3000) of a window, masked if both `mask_seed` and train.spec_augment are given."""
        samples = window_audio(self.split, window, self._gap_samples)
        features = log_mel(self._extractor, samples)
        if mask_seed is None or self._train.spec_augment is None:
            return features
        return spec_augment(features, len(samples), self._train.spec_augment, mask_seed)


class TrainingWindows(_Windows):
    """The endless sequence of the training windows of one split, read by position.

    Args:
        split: An open training split.
        train: Packing, batch size, accumulation, durations, augmentation.
        processor: The base's processor.
        seed: Seed of the data order and of the masks.

    Raises:
        InputError: No clip is usable.
    """

    def __init__(self, split: Split, train: TrainConfig, processor: WhisperProcessor, seed: int) -> None:
        super().__init__(split, train, processor)
        self._seed = seed
        self._starts = [0]  # global index of the first window of every epoch planned so far
        self._plans: dict[int, list[Window]] = {}

    @property
    def num_micro_batches(self) -> int:
        """The number of micro-batches that a rank has in a step."""
        return self._train.gradient_accumulation

    def plan(self, epoch: int) -> list[Window]:
        """Returns the windows of an epoch: every usable clip once, in an order drawn from (seed, epoch)."""
        if epoch not in self._plans:
            rng = np.random.default_rng(np.random.SeedSequence([self._seed, _ORDER, epoch]))
            self._plans[epoch] = self.arrange(rng.permutation(self.usable).tolist())
            for old in [known for known in self._plans if abs(known - epoch) > 1]:
                del self._plans[old]
        return self._plans[epoch]

    def window(self, index: int) -> Window:
        """Returns the clip indices of the global window `index`."""
        while self._starts[-1] <= index:  # with packing, epochs differ in their number of windows
            self._starts.append(self._starts[-1] + len(self.plan(len(self._starts) - 1)))
        epoch = bisect.bisect_right(self._starts, index) - 1
        return self.plan(epoch)[index - self._starts[epoch]]

    def _step_windows(self, step: int, world_size: int) -> list[Window]:
        count = self._train.gradient_accumulation * world_size * self._train.batch_size
        return [self.window(index) for index in range(step * count, (step + 1) * count)]

    def num_label_tokens(self, step: int, world_size: int) -> int:
        """Returns how many labels of the whole step, all micro-batches of all ranks, are not -100."""
        return sum(len(self.labels.window(window)) for window in self._step_windows(step, world_size))

    def seconds(self, step: int, world_size: int) -> float:
        """Returns the seconds of speech in the whole step, all micro-batches of all ranks."""
        return self.seconds_of(self._step_windows(step, world_size))

    def batch(self, step: int, micro: int, world_rank: int, world_size: int) -> Batch:
        """Returns one micro-batch of one rank.

        Args:
            step: Optimizer step, from 0.
            micro: Micro-batch of the step, from 0 to gradient_accumulation - 1.
            world_rank: This rank.
            world_size: Number of ranks that train this adapter.

        Returns:
            input_features (B, n_mels, 3000) float32 and labels (B, L) int64 padded with -100.

        Raises:
            InputError: A clip's audio is missing or unreadable; names it.
        """
        return self.batch_of(self.rows(step, micro, world_rank, world_size))

    def rows(self, step: int, micro: int, world_rank: int, world_size: int) -> dict[int, Window]:
        """Returns global index -> window of the rows of a micro-batch (see `batch`). Plans epochs: for one thread alone."""
        size = self._train.batch_size
        first = ((step * self._train.gradient_accumulation + micro) * world_size + world_rank) * size
        return {index: self.window(index) for index in range(first, first + size)}

    def batch_of(self, windows: Mapping[int, Window]) -> Batch:
        """Returns the micro-batch of these rows (see `rows`). Changes nothing here: several threads may call it at once."""
        features = [self.features_of(window, (self._seed, _MASKS, index)) for index, window in windows.items()]
        return padded_batch(features, [self.labels.window(window) for window in windows.values()])

    def micro_batches(self, step: int, world_rank: int, world_size: int) -> list[Batch]:
        """Returns all micro-batches of one rank at one step."""
        return [self.batch(step, micro, world_rank, world_size) for micro in range(self.num_micro_batches)]


class DevWindows(_Windows):
    """The fixed windows of a dev split, in its order, for the loss.

    Every rank gets the same number of batches, since collectives need that. Rows without labels fill the last batches.

    Attributes:
        windows: Clip indices of every window.
    """

    def __init__(self, split: Split, train: TrainConfig, processor: WhisperProcessor) -> None:
        super().__init__(split, train, processor)
        self.windows = self.arrange(self.usable)

    @property
    def num_label_tokens(self) -> int:
        """The number of labels in all windows that are not -100."""
        return sum(len(self.labels.window(window)) for window in self.windows)

    def num_batches(self, batch_size: int, world_size: int) -> int:
        """Returns how many batches every rank gets."""
        return -(-len(self.windows) // (batch_size * world_size))

    def batch(self, index: int, batch_size: int, world_rank: int, world_size: int) -> Batch:
        """Returns batch `index` of one rank, shaped as in training. Rows after the last window have only -100 as labels."""
        first = (index * world_size + world_rank) * batch_size
        windows = self.windows[first : first + batch_size]
        labels = [self.labels.window(window) for window in windows]
        features = [self.features_of(window) for window in windows]
        for _ in range(batch_size - len(windows)):
            labels.append([IGNORED])
            features.append(torch.zeros(self._extractor.feature_size, self._extractor.nb_max_frames))
        return padded_batch(features, labels)
