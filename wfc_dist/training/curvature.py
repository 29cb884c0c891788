"""The curvature of the loss around a finished adapter, or around its base, which EWC and some merges need.

The gradient of a window's mean token loss w.r.t. the whole weight W + scaling * B @ A of a module is G = g^T x, with the
module's inputs x (T, in) and the gradients g (T, out) of its outputs. Per module, over N windows:

    fisher   (out, in)   mean over windows of G^2, entry by entry: the empirical diagonal Fisher information
    inputs   (in, in)    mean over tokens of x x^T
    outputs  (out, out)  mean over tokens of g g^T, with `inputs` the Kronecker factors of the Hessian (K-FAC, arXiv 1503.05671)

Tokens are the positions a module sees: frames in the encoder, labels in the decoder. With `train.curvature_loss: sum`, the loss
is the sum over a window's tokens, and the two moments are means over the tokens of a window, then over windows. So a window with
many labels weighs more in `fisher` and `outputs`. The authors of IHR measure so (arXiv 2601.14751).
Letters of shapes: T positions, O out features, I in features.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from wfc_dist import activity
from wfc_dist.data.batching import IGNORED, Batch, TrainingWindows, padded_batch
from wfc_dist.data.sources import open_split
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build, copy_values_, lora_layers, lora_parameters, train_mode_
from wfc_dist.weights import peft_folder
from wfc_dist.weights.tensor_files import save_tensors
from wfc_dist.weights.warm_base import WarmBase


class _Sums:
    """The running sums of one module, float64, on its device. With `by_window`, moments are means in a window before they add."""

    def __init__(self, statistics: Sequence[str], by_window: bool) -> None:
        self.sums: dict[str, torch.Tensor | float] = dict.fromkeys(statistics, 0.0)
        self.by_window, self.num_tokens = by_window, 0

    def add_(self, x_TI: torch.Tensor, g_TO: torch.Tensor) -> None:
        """Adds one window: products in float32, sums in float64."""
        pairs = {"fisher": (g_TO, x_TI), "inputs": (x_TI, x_TI), "outputs": (g_TO, g_TO)}
        for name, total in self.sums.items():
            product = (pairs[name][0].T @ pairs[name][1]).double()
            self.sums[name] = total + (
                product.square() if name == "fisher" else product / len(x_TI) if self.by_window else product
            )
        self.num_tokens += 1 if self.by_window else len(x_TI)

    def means(self, num_windows: int) -> dict[str, torch.Tensor]:
        """Returns name -> mean, float32 on the CPU."""
        counts = {"fisher": num_windows, "inputs": self.num_tokens, "outputs": self.num_tokens}
        return {name: (torch.as_tensor(value) / counts[name]).float().cpu() for name, value in self.sums.items()}


def first_windows(windows: TrainingWindows, num_windows: int) -> Iterator[Batch]:
    """Yields the first windows of the first epoch, one a batch and without SpecAugment; at most the whole epoch."""
    for index in range(min(num_windows, len(windows.plan(0)))):
        window = windows.window(index)
        yield padded_batch([windows.features_of(window)], [windows.labels.window(window)])


@contextlib.contextmanager
def _recorded(layers: Mapping[str, torch.nn.Module]) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """Yields a dictionary that gets name -> (input, output) of every call of a layer while the context lasts."""
    calls: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            calls[name] = (inputs[0].detach(), output)

        return hook

    hooks = [layer.register_forward_hook(record(name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def gather(
    loss: TokenLoss,
    batches: Iterable[Batch],
    statistics: Sequence[str],
    device: torch.device,
    should_stop: Callable[[], bool],
    *,
    loss_of_window: Literal["mean", "sum"] = "mean",
) -> dict[str, torch.Tensor] | None:
    """Returns `<module>.<statistic>` of every adapted module, float32; None when asked to stop.

    Args:
        loss: The finished adapter in eval mode, its factors with `requires_grad`; unwrapped.
        batches: Windows, one a batch, so that no position is padding.
        statistics: Those to measure, of `merging.curvature.FIELDS`.
        device: Where the model lies.
        should_stop: Asked before every window.
        loss_of_window: See the module.
    """
    layers: dict[str, Any] = dict(lora_layers(loss))
    num_windows = 0
    sums = {name: _Sums(statistics, loss_of_window == "sum") for name in layers}
    with _recorded(layers) as calls:
        for batch in batches:
            if should_stop():
                return None
            summed = loss(**{key: value.to(device) for key, value in batch.items()}).sum()
            # The sum is differentiated, not the mean: in half precision the gradients of a mean would underflow.
            gradients = torch.autograd.grad(summed, [calls[name][1] for name in layers])
            num_labels = int((batch["labels"] != IGNORED).sum()) if loss_of_window == "mean" else 1
            for name, gradient in zip(layers, gradients, strict=True):
                g_TO = gradient.flatten(0, -2).float() / num_labels
                sums[name].add_(calls[name][0].flatten(0, -2).float(), g_TO)
            calls.clear()
            num_windows += 1
            activity.moved()
    return {f"{name}.{key}": value for name, of_module in sums.items() for key, value in of_module.means(num_windows).items()}


def measure(
    job: TrainingJob,
    warm: WarmBase,
    adapter: Mapping[str, torch.Tensor],
    windows: TrainingWindows,
    should_stop: Callable[[], bool],
) -> dict[str, torch.Tensor] | None:
    """Returns the statistics of `adapter` (PEFT key -> values) that `train.curvature` names; None when asked to stop.

    Builds a model of its own, since the one that was trained may be wrapped or sharded.
    """
    model = build(warm, job.lora, job.init_seed)
    copy_values_(lora_parameters(model), adapter)
    train_mode_(model, training=False)
    batches = first_windows(windows, job.train.curvature_windows)
    loss, train = TokenLoss(model, job.train.precision), job.train
    return gather(loss, batches, train.statistics, warm.device, should_stop, loss_of_window=train.curvature_loss)


def measure_base(job: TrainingJob, warm: WarmBase, should_stop: Callable[[], bool]) -> dict[str, torch.Tensor] | None:
    """Returns the statistics at the base itself, on the first windows of each set of `job.earlier_data`; None when asked to stop.

    They are means over the data sets, float32; {} without earlier data. The authors of IHR measure there: at the model that a new
    task starts from, on the data of the task before.
    """
    model, train = build(warm, job.lora, job.init_seed), job.train  # a new adapter changes nothing
    train_mode_(model, training=False)
    loss, sums = TokenLoss(model, train.precision), dict[str, torch.Tensor]()
    for item in job.earlier_data:
        windows = TrainingWindows(open_split(item.dataset, item.data, "train"), train, warm.processor, item.data_seed)
        batches = first_windows(windows, train.curvature_windows)
        of_set = gather(loss, batches, train.statistics, warm.device, should_stop, loss_of_window=train.curvature_loss)
        if of_set is None:
            return None
        sums = {key: sums.get(key, 0.0) + value.double() for key, value in of_set.items()}
    return {key: (value / len(job.earlier_data)).float() for key, value in sums.items()}


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Writes folder/curvature.safetensors. The commit of the adapter's folder hashes the file and makes it durable."""
    save_tensors(folder / peft_folder.STATISTICS, dict(sorted(tensors.items())))
