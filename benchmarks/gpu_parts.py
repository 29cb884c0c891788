"""The parts of benchmarks/gpu.py: each works on files in one folder, in a process of its own, and returns what it found.

A part returns facts; under `checks` stands what must be true. The same parts run at a tiny size on CPUs and in tests/gpu.
"""

import itertools
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import random_whisper
import torch
from gpu_bench import SETS, Bench, Trainer

PEAKS_TFLOPS = {"H200": 989, "H100": 989, "GH200": 989, "A100": 312, "L40S": 362, "B200": 2250, "4090": 165}
"""Dense bf16 peak of a device whose name has the key in it, by its maker's data sheet."""


def make_inputs(bench: Bench) -> dict[str, Any]:
    """Writes the model and the two data sets."""
    size = bench.size
    start = time.monotonic()
    random_whisper.make_whisper(bench.model, dtype=torch.bfloat16, device=bench.device, **size.shape)
    written = time.monotonic()
    for seed, (name, language) in enumerate(SETS.items()):
        clips = {"train": size.num_clips, "test": max(2, size.num_scored // 4)}
        random_whisper.make_speech(bench.folder / name, clips, seed=seed, language=language, seconds=size.seconds)
    model_bytes = sum(path.stat().st_size for path in bench.model.glob("*.safetensors"))
    return {"model_gb": round(model_bytes / 1e9, 3), "model_s": written - start, "speech_s": time.monotonic() - written}


def peak_tflops(bench: Bench) -> dict[str, Any]:
    """Returns the device's bf16 peak as listed and as a matrix product of random data reaches it; computed in 1e12 per second."""
    n = bench.size.matmul
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(13):
        bench.wait()
        start = time.monotonic()
        torch.matmul(a, b)
        bench.wait()
        times.append(time.monotonic() - start)
    name = torch.cuda.get_device_name() if bench.device == "cuda" else "cpu"
    listed = next((tflops for key, tflops in PEAKS_TFLOPS.items() if key in name), None)
    return {"device": name, "listed": listed, "measured": _short(2 * n**3 / statistics.median(times[3:]) / 1e12)}


def _short(value: float) -> float:
    """Returns a number with four digits that count."""
    return float(f"{value:.4g}")


def one_round(bench: Bench) -> dict[str, Any]:
    """A whole round in this process: scores base 0, trains two adapters, averages, merges, scores adapters and base 1."""
    from transformers import WhisperForConditionalGeneration

    from wfc_dist.coordinator.run import run
    from wfc_dist.progress import Display
    from wfc_dist.runs.handle import Run
    from wfc_dist.runs.layout import RunPaths, base_name, read_base
    from wfc_dist.weights import base_chain
    from wfc_dist.weights.warm_base import WarmBase

    config = bench.config("round")
    bench.reset_peak()
    start = time.monotonic()
    base = run(config, Display(plain=True))
    seconds, paths = time.monotonic() - start, RunPaths(config.run_dir())
    entry = read_base(paths.run_dir, 1)
    assert entry is not None, "the run has committed base 1"
    warm = WarmBase(base, dtype=torch.bfloat16, device=bench.device)
    model = WhisperForConditionalGeneration.from_pretrained(base.path)
    scores = {scored.model: {name: one["rate"] for name, one in scored.sets.items()} for scored in Run(paths.run_dir).scores()}
    wanted = dict.fromkeys([base_name(0), base_name(1), *SETS], config.test_sets().keys())
    return {
        "seconds": seconds, "peak_memory_gb": bench.peak_memory_gb(), "base_sha256": base.sha256, "scores": scores,
        "checks": {
            "base 1 was committed": base.index == 1,
            "base 1 has other tensors than base 0": bool(entry[1]["changed"]),
            "all tensors come back from the device as they were committed":
                {name: warm.sha256(name) for name in warm.tensors} == entry[1]["tensors"],
            "its files are what the run says": base_chain.hash_tensors(Path(base.path)) == entry[1]["tensors"],
            "Transformers loads it, finite": all(bool(torch.isfinite(value).all()) for value in model.parameters()),
            "every model was scored on every set": {name: sets.keys() for name, sets in scores.items()} == wanted,
        },
    }  # fmt: skip


def merge_on_cpu(bench: Bench) -> dict[str, Any]:
    """Averages and merges the round's adapters once more where no GPU is seen; and the average's arithmetic on the device."""
    from wfc_dist.centralize import offline
    from wfc_dist.runs.layout import RunPaths, read_base
    from wfc_dist.weights import base_chain
    from wfc_dist.weights.hashing import content_sha256

    if torch.cuda.is_available():
        raise RuntimeError("CUDA_VISIBLE_DEVICES must be empty in this part: it shows what a machine without a GPU computes")
    paths, out = RunPaths(bench.config("round").run_dir()), bench.folder / "merged"
    entry = read_base(paths.run_dir, 1)
    assert entry is not None, "the round comes first"
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    offline.average([paths.adapter(1, name) for name in SETS], out / "delta")
    offline.merge(str(bench.model), out / "delta", out / "base")
    seconds = time.monotonic() - start
    here, there = base_chain.hash_tensors(out / "base"), base_chain.hash_tensors(Path(entry[0].path))
    deltas = [(folder / base_chain.DELTA).read_bytes() for folder in (out / "delta", paths.delta(1))]
    return {
        "seconds": seconds,
        "base_sha256": content_sha256(here),
        "checks": {"the average has the same bytes": deltas[0] == deltas[1], "the base has the same bytes": here == there},
    }


def timed_training(bench: Bench) -> dict[str, Any]:
    """Trains one adapter on packed windows in bf16 and measures it after its first steps."""
    trainer = Trainer(bench)
    bench.reset_peak()
    _, seen = trainer.train(trainer.job("timed", max_steps=bench.size.steps))
    memory, first = bench.peak_memory_gb(), bench.size.steps // 4
    steps = seen[first:]
    seconds = (steps[-1][0] - steps[0][0]) / (len(steps) - 1)
    windows_per_s = bench.size.batch_size / seconds
    rows = [json.loads(line) for line in (bench.folder / "timed" / "curve.jsonl").read_text().splitlines()][first + 1 :]
    heard_s = sum(row["speech_seconds"] for row in rows)
    peaks, per_window = peak_tflops(bench), trainer.flops_per_window / 1e12
    rates = {"with reading": windows_per_s, "without reading": bench.size.batch_size / trainer.seconds_per_batch()}
    tflops = {name: _short(rate * per_window) for name, rate in rates.items()}
    return {
        **peaks, "steps": bench.size.steps, "windows_per_step": bench.size.batch_size, "steps_per_second": _short(1 / seconds),
        "windows_per_second": _short(windows_per_s), "speech_per_second": _short(heard_s / (steps[-1][0] - steps[0][0])),
        "peak_memory_gb": memory, "tflop_per_window": _short(per_window), "tflops": tflops,
        "fraction_of_the_peak": {
            f"{name}, {kind}": _short(value / peaks[kind])
            for name, value in tflops.items() for kind in ("listed", "measured") if peaks[kind]
        },
        "loss": [seen[0][1].loss, seen[-1][1].loss],
        "checks": {"the loss falls": seen[-1][1].loss < seen[0][1].loss},
    }  # fmt: skip


def padded_training(bench: Bench) -> dict[str, Any]:
    """The same LoRA, windows a step and loader processes with Seq2SeqTrainer and peft, which pad each clip to a window."""
    from peft import LoraConfig, get_peft_model
    from training import padded_trainer
    from transformers import Seq2SeqTrainingArguments, TrainerCallback, WhisperForConditionalGeneration, WhisperProcessor

    from wfc_dist.data.sources import open_split

    config, size = bench.config("padded", max_steps=bench.size.steps), bench.size
    split, lora, times = open_split("one", config.datasets["one"], "train"), config.lora, list[float]()

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
            bench.wait()
            times.append(time.monotonic())

    model = WhisperForConditionalGeneration.from_pretrained(bench.model, dtype=torch.bfloat16)
    adapted = get_peft_model(
        model, LoraConfig(r=lora.r, lora_alpha=int(lora.alpha), lora_dropout=lora.dropout, target_modules=lora.target_modules)
    )
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(bench.folder / "padded"), per_device_train_batch_size=size.batch_size, max_steps=size.steps,
        learning_rate=config.train.lr, warmup_steps=1, max_grad_norm=1.0, bf16=True, use_cpu=bench.device == "cpu",
        dataloader_num_workers=size.loader_workers, save_strategy="no", logging_strategy="no", report_to=[],
        remove_unused_columns=False, label_names=["labels"], disable_tqdm=True, dataloader_drop_last=True,
    )  # fmt: skip
    processor = WhisperProcessor.from_pretrained(bench.model)
    trainer = padded_trainer(adapted, processor, split, "english", callback=Clock(), arguments=arguments)
    bench.reset_peak()
    done = trainer.train()
    first = size.steps // 4
    windows_per_s = size.batch_size * (len(times) - 1 - first) / (times[-1] - times[first])
    mean_s = statistics.mean(clip.duration_s for clip in split.clips)
    return {
        "windows_per_second": _short(windows_per_s), "speech_per_second": _short(windows_per_s * mean_s),
        "peak_memory_gb": bench.peak_memory_gb(), "loss": done.training_loss,
    }  # fmt: skip


def scoring(bench: Bench) -> dict[str, Any]:
    """Decodes the same clips, one text each, with this package and with Transformers' pipeline in batches of the same size."""
    from transformers import pipeline

    from wfc_dist.data.sources import open_split
    from wfc_dist.evaluation.decoding import decode_sets

    trainer, size = Trainer(bench), bench.size
    warm, data = trainer.worker.warm, bench.config("scoring").datasets["one"].model_copy(update={"max_clips": size.num_scored})
    assert warm is not None
    model, processor = warm.model(), warm.processor
    split, evaluate = open_split("one", data, "train"), bench.config("scoring").evaluate
    recognize: Any = pipeline(
        "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer, feature_extractor=processor.feature_extractor,
        device=bench.device, batch_size=size.batch_size,
    )  # fmt: skip

    def ours() -> list[str]:
        return [one.hypothesis for one in decode_sets(model, processor, [split], evaluate)[0]]

    def theirs() -> list[str]:
        audio = [split.audio(number) for number in range(len(split.clips))]
        asked = {"language": SETS["one"], "task": "transcribe", "num_beams": 1}
        return [item["text"].strip() for item in recognize(audio, generate_kwargs=asked)]

    (our_s, our_texts), (their_s, their_texts) = (_second_time(bench, way) for way in (ours, theirs))
    return {
        "clips": len(split.clips), "seconds": our_s, "pipeline_seconds": their_s, "times_ours": round(their_s / our_s, 2),
        "equal_texts": sum(a == b for a, b in zip(our_texts, their_texts, strict=True)),
        "checks": {"every clip has a text of its own": len(our_texts) == len(their_texts) == len(split.clips)},
    }  # fmt: skip


def _second_time(bench: Bench, way: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Returns the seconds of the second of two calls, and what it returned."""
    way()
    start = time.monotonic()
    texts = way()
    bench.wait()
    return time.monotonic() - start, texts


def gradient_checkpointing(bench: Bench) -> dict[str, Any]:
    """Trains with and without recomputing activations: memory, time, and the same losses."""
    trainer, losses = Trainer(bench), {}
    found: dict[str, Any] = {}
    for name, recomputes in (("kept", False), ("recomputed", True)):
        bench.reset_peak()
        job = trainer.job(name, gradient_checkpointing=recomputes)
        _, seen = trainer.train(job)
        seconds = statistics.median(after[0] - before[0] for before, after in itertools.pairwise(seen))
        found[name] = {"peak_memory_gb": bench.peak_memory_gb(), "seconds_per_step": seconds}
        losses[name] = [progress.loss for _, progress in seen]
    apart = max(abs(a - b) / abs(a) for a, b in zip(*losses.values(), strict=True))
    checks = {"the losses agree within 2 %": apart < 0.02}
    if bench.device == "cuda":
        checks["recomputing needs less memory"] = found["recomputed"]["peak_memory_gb"] < found["kept"]["peak_memory_gb"]
    return {**found, "losses_apart": apart, "checks": checks}


def fp16(bench: Bench) -> dict[str, Any]:
    """Trains in fp16 from a loss scale that overflows: steps are skipped, the scale is halved, and training goes on."""
    from wfc_dist.training import state
    from wfc_dist.weights import peft_folder

    trainer, steps, huge = Trainer(bench, "fp16"), 40, 2.0**40
    begun = trainer.job("fp16-begun", precision="fp16", max_steps=steps)
    trainer.train(begun, stop_at=2)
    snapshot = state.load_state(Path(begun.checkpoint_dir), 2)
    job = trainer.job("fp16", precision="fp16", max_steps=steps, checkpoint_every=steps - 1)
    scaled = replace(snapshot.progress, scaler=snapshot.progress.scaler | {"scale": huge})
    state.save_state(replace(snapshot, progress=scaled), Path(job.checkpoint_dir), job.identity(), 1)
    result, seen = trainer.train(job)
    assert result is not None, "nobody stops it"
    last = state.load_state(Path(job.checkpoint_dir), steps - 1)
    factors = peft_folder.read_factors(Path(job.output_dir))  # refuses numbers that are not finite
    moved = [not torch.equal(slot.parameter, snapshot.slots[name].parameter) for name, slot in last.slots.items()]
    return {
        "first_scale": snapshot.progress.scaler["scale"], "last_scale": last.progress.scaler["scale"], "modules": len(factors),
        "loss": [seen[0][1].loss, seen[-1][1].loss],
        "checks": {
            "it goes on from the checkpoint": result.resumed_from == 2,
            "the scale was kept in the checkpoint and halved since": 0 < last.progress.scaler["scale"] < huge / 2**10,
            "every factor has moved": all(moved),
        },
    }  # fmt: skip


def resume(bench: Bench) -> dict[str, Any]:
    """Trains once without a stop and once with one, under deterministic kernels and under the default ones."""
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when CUDA's libraries begin
    trainer, steps, found = Trainer(bench), bench.size.few_steps, {}
    for deterministic in (True, False) if bench.device == "cuda" else (True,):
        torch.use_deterministic_algorithms(deterministic)
        whole, _ = trainer.train(trainer.job("whole"))
        job = trainer.job("stopped")
        stopped, _ = trainer.train(job, stop_at=steps // 2)
        resumed, _ = trainer.train(job)
        assert whole is not None and resumed is not None, "nobody stops these"
        found[deterministic] = stopped is None and resumed.resumed_from == steps // 2 and resumed.sha256 == whole.sha256
    return {
        "default_kernels_give_the_same_bytes": found.get(False),
        "checks": {"deterministic kernels give the same bytes": found[True]},
    }


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "inputs": make_inputs,
    "round": one_round,
    "merge on a CPU": merge_on_cpu,
    "training": timed_training,
    "Seq2SeqTrainer": padded_training,
    "scoring": scoring,
    "gradient checkpointing": gradient_checkpointing,
    "fp16": fp16,
    "resume": resume,
}
"""In the order they run: the first writes what the others read, and "merge on a CPU" reads what the round has made."""
NEED_GPU = {"fp16": "PyTorch's loss scaler and this package train in fp16 on a GPU only"}
