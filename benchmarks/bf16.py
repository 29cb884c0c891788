"""What bfloat16 saves and costs on a CPU that has it: whisper-base beside itself in float32, on real speech.

    python benchmarks/bf16.py [--dataset es] [--windows 4] [--threads 2] [--only parts]

Two tables. `parts` has the seconds of an encoder pass and of forward and backward of a training step, and the error of states,
loss and gradient, on packed windows of training clips. There the precisions take turns in one process, so that the ratio of their
times means something on a busy machine, too; the seconds do not. `scores` has the error rates of the demo's test sets, decoded
together as the demo decodes them, and the seconds of one precision after the other.
Needs `make models/whisper-base/config.json`. The data are the demo's (examples/demo/data).
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import write_rows

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.loading import load_config
from wfc_dist.config.training import LoraConfig, TrainConfig
from wfc_dist.data.batching import TrainingWindows
from wfc_dist.data.sources import open_split
from wfc_dist.evaluation.decoder import in_bfloat16
from wfc_dist.evaluation.decoding import decode_sets
from wfc_dist.evaluation.hypotheses import count_hypotheses
from wfc_dist.evaluation.metrics import difference
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.rounds import Base
from wfc_dist.runs.environment import cpu_flags
from wfc_dist.runs.precision import CPU_FLAGS
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build, lora_parameters
from wfc_dist.weights.warm_base import WarmBase

REPO = Path(__file__).resolve().parent.parent
MODEL = REPO / "models" / "whisper-base"
PRECISIONS = ("fp32", "bf16")
Timed = list[tuple[float, torch.Tensor]]


def relative(values: torch.Tensor, exact: torch.Tensor) -> float:
    """Returns the norm of the difference by the norm of the exact values, in float64."""
    return float((values.double() - exact.double()).norm() / exact.double().norm())


def in_turn(works: dict[str, Callable[[Any], torch.Tensor]], inputs: list[Any], what: str) -> dict[str, Timed]:
    """Returns precision -> seconds and result of each input, after one pass of each that is not counted."""
    found: dict[str, Timed] = {precision: [] for precision in works}
    for number, given in enumerate([inputs[0], *inputs]):
        print(f"  {what}, {number} of {len(inputs)}", file=sys.stderr)
        for precision, work in works.items():
            start = time.perf_counter()
            result = work(given)
            if number:
                found[precision].append((time.perf_counter() - start, result))
    return found


def row(what: str, found: dict[str, Timed], of: str) -> dict[str, Any]:
    """Returns a row of the table: medians of seconds and of ratios, and the mean relative error of the results."""
    exact, rounded = (found[precision] for precision in PRECISIONS)
    ratios = [one[0] / other[0] for one, other in zip(exact, rounded, strict=True)]
    errors = [relative(other[1], one[1]) for one, other in zip(exact, rounded, strict=True)]
    seconds = {key: f"{statistics.median(time_s for time_s, _ in found[key]):.2f} s" for key in PRECISIONS}
    lowest, highest = min(ratios), max(ratios)
    error = f"{100 * statistics.mean(errors):.2f} % of {of}"
    return {"part": what, **seconds, "times faster": f"{statistics.median(ratios):.2f} ({lowest:.2f} to {highest:.2f})",
            "relative error": error}  # fmt: skip


def parts(dataset: str, num_windows: int) -> list[dict[str, Any]]:
    warm = WarmBase(Base(0, str(MODEL), ""))
    data = DatasetConfig(source=str(REPO / "examples/demo/data" / dataset), language=dataset, splits={"train": "train.jsonl"})
    train = TrainConfig(batch_size=1, gradient_accumulation=1, packing=True)
    windows = TrainingWindows(open_split(dataset, data, "train"), train, warm.processor, seed=1)
    batches = [windows.micro_batches(step, 0, 1)[0] for step in range(num_windows)]
    models = {"fp32": warm.model(), "bf16": in_bfloat16(warm.model())}

    def encode(model: Any) -> Callable[[Any], torch.Tensor]:
        @torch.inference_mode()
        def work(batch: Any) -> torch.Tensor:
            states: torch.Tensor = model.get_encoder()(batch["input_features"].to(model.dtype)).last_hidden_state
            return states

        return work

    losses: dict[str, list[torch.Tensor]] = {precision: [] for precision in PRECISIONS}

    def step(precision: str) -> Callable[[Any], torch.Tensor]:
        loss = TokenLoss(build(warm, LoraConfig(dropout=0), 1), precision)

        def work(batch: Any) -> torch.Tensor:
            loss.zero_grad()
            value = loss(**batch).sum()
            value.backward()
            losses[precision].append(value.detach().view(1))
            gradients = [parameter.grad for parameter in lora_parameters(loss.model).values() if parameter.grad is not None]
            return torch.cat([gradient.flatten() for gradient in gradients])

        return work

    encoded = in_turn({key: encode(models[key]) for key in PRECISIONS}, batches, "encoder")
    trained = in_turn({key: step(key) for key in PRECISIONS}, batches, "training step")
    seen = {key: list(zip([time_s for time_s, _ in trained[key]], losses[key][1:], strict=True)) for key in PRECISIONS}
    return [
        row("encoder, one window", encoded, "the states"),
        row("training step of one window", seen, "the loss"),
        row("the same", trained, "the gradient"),
    ]


def scores() -> list[dict[str, Any]]:
    from wfc_dist.evaluation.any_model import load_model

    config = load_config(REPO / "configs" / "demo.yaml")
    model, processor, folder = load_model(MODEL)
    sets, spelling, counts = config.test_sets(), spelling_table(folder), {}
    splits, seconds = [open_split(name, data, "test") for name, data in sets.items()], list[float]()
    for precision in PRECISIONS:
        print(f"  test sets, {precision}", file=sys.stderr)
        evaluate = config.evaluate.model_copy(update={"precision": precision})
        start = time.perf_counter()
        texts = decode_sets(model, processor, splits, evaluate)
        seconds.append(time.perf_counter() - start)
        counts[precision] = [
            count_hypotheses(of_set, evaluate.of(data), spelling) for of_set, data in zip(texts, sets.values(), strict=True)
        ]
    rows = []
    for name, exact, rounded in zip(sets, *counts.values(), strict=True):
        found = difference(exact, rounded, config.evaluate.confidence)
        between = "" if found.low is None or found.high is None else f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        rates = {f"error in {key}": f"{100 * one.rate:.1f} %" for key, one in zip(PRECISIONS, (exact, rounded), strict=True)}
        rows.append({"test set": name, **rates, "difference in points": f"{100 * found.value:+.1f} {between}".strip()})
    times = {f"error in {key}": f"{time_s:.0f} s" for key, time_s in zip(PRECISIONS, seconds, strict=True)}
    rows.append({"test set": "time, all sets", **times, "difference in points": f"{seconds[0] / seconds[1]:.2f} times faster"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="es", help="of the parts: a folder of examples/demo/data, such as es or fr")
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("parts", "scores"), help="one of the tables; both by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command = " ".join(["python", "benchmarks/bf16.py", *sys.argv[1:]])
    flags = " and ".join(sorted(CPU_FLAGS & cpu_flags())) or "neither avx512_bf16 nor amx_bf16"
    if options.only != "scores":
        rows = parts(options.dataset, options.windows)
        busy = f"a CPU with {flags}, {options.threads} threads, load {os.getloadavg()[0]:.0f}"
        write_rows("bf16-parts", f"bf16: whisper-base on packed windows; {busy}", rows, command=command)
        print(*rows, sep="\n")
    if options.only != "parts":
        rows = scores()
        question = (
            "bf16: whisper-base on the demo's test sets, packed, greedy; word error rates, intervals where there are units enough"
        )
        write_rows("bf16-scores", question, rows, command=command)
        print(*rows, sep="\n")


if __name__ == "__main__":
    main()
