"""One LoRA adapter of whisper-base on real clips of 3 s: packed windows beside Transformers' Seq2SeqTrainer with PEFT.

    python benchmarks/training.py [--dataset es] [--steps 24] [--threads 2]

Same model, LoRA, AdamW, schedule, precision (float32) and threads; a step of either sees about as much speech: one packed
window of 30 s here, eight clips padded to 30 s each there. Each way runs in a fresh process. The clock is on while it
trains (loading the model is left out); afterwards its adapter at one, two and three thirds of the steps is scored clip by clip.
Needs `make models/whisper-base/config.json`. The data are the demo's (examples/demo/data).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import in_fresh_processes, peak_bytes, write_result

REPO = Path(__file__).resolve().parent.parent
MODEL = REPO / "models" / "whisper-base"
PADDED_BATCH = 8
LORA: dict[str, Any] = {"r": 32, "alpha": 64, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
LR, WARMUP, WEIGHT_DECAY, SEED = 1e-3, 4, 5e-4, 1


def held_out(dataset: str, folder: Path) -> Path:
    """Writes the dev and test rows as one manifest: neither way looks at them while it trains."""
    source = REPO / "examples" / "demo" / "data" / dataset
    rows = [json.loads(line) for split in ("test", "dev") for line in (source / f"{split}.jsonl").read_text().splitlines()]
    out = folder / "held-out.jsonl"
    paths = [row | {"audio_filepath": str(source / row["audio_filepath"])} for row in rows]
    out.write_text("".join(json.dumps(row) + "\n" for row in paths))
    return out


def ours(dataset: str, steps: int, threads: int, folder: Path) -> tuple[Callable[[], None], dict[str, Any]]:
    from wfc_dist.config.datasets import DatasetConfig
    from wfc_dist.config.schema import EvaluateConfig
    from wfc_dist.config.training import LoraConfig, TrainConfig
    from wfc_dist.rounds import Base
    from wfc_dist.training import model as models
    from wfc_dist.training import state
    from wfc_dist.training.job import TrainingJob
    from wfc_dist.training.trainer import train_adapter
    from wfc_dist.training.world import join_world
    from wfc_dist.weights import base_chain, peft_folder
    from wfc_dist.weights.hashing import content_sha256
    from wfc_dist.weights.warm_base import WarmBase

    world = join_world(1, 0, 0, "127.0.0.1", 0, threads=threads)
    base = Base(0, str(MODEL), content_sha256(base_chain.hash_tensors(MODEL)))
    warm, third, seen = WarmBase(base), steps // 3, []
    train = TrainConfig(max_steps=steps, lr=LR, schedule="cosine", warmup_steps=WARMUP, weight_decay=WEIGHT_DECAY, batch_size=1,
                        gradient_accumulation=1, packing=True, checkpoint_every=third)  # fmt: skip
    data = DatasetConfig(source=str(REPO / "examples/demo/data" / dataset), language=dataset, splits={"train": "train.jsonl"})
    out = folder / "adapter"
    out.mkdir()
    job = TrainingJob(1, dataset, data, LoraConfig(**LORA), train, EvaluateConfig(), SEED, SEED, base, str(folder / "states"),
                      str(out), "", "", threads=threads)  # fmt: skip
    report: dict[str, Any] = {}

    def run() -> None:
        start = time.monotonic()
        result = train_adapter(job, warm, world, lambda progress: seen.append((progress.step, time.monotonic() - start)))
        report["speech_seconds"] = result.speech_seconds
        times = dict(seen)
        points = [(step, times[step], out if step == steps else folder / f"adapter-{step}") for step in (third, 2 * third, steps)]
        for step, _, place in points[:2]:
            found = state.load_state(folder / "states", step)
            place.mkdir()
            config = models.adapter_config(models.build(warm, job.lora, SEED))
            peft_folder.write_peft(place, {name: slot.parameter for name, slot in found.slots.items()}, config)
        report["points"] = points

    return run, report


def _clock(model: Any, times: dict[int, float], every: int, folder: Path) -> Any:
    """Returns a callback that notes when each step ended and saves the adapter now and then."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
            times[state.global_step] = time.monotonic()
            if state.global_step % every == 0:
                model.save_pretrained(str(folder / f"adapter-{state.global_step}"))

    return Clock()


def padded_trainer(model: Any, processor: Any, split: Any, language: str, *, callback: Any, arguments: Any) -> Any:
    """Returns a Seq2SeqTrainer that pads each clip to 30 s, as Whisper's own examples do.

    Args:
        model: What is trained.
        processor: Of the same checkpoint; its tokenizer gets the language's prompt.
        split: The opened clips.
        language: Whisper language code of all of them.
        callback: Gets the trainer's events.
        arguments: Seq2SeqTrainingArguments.
    """
    from transformers import Seq2SeqTrainer

    processor.tokenizer.set_prefix_tokens(language=language, task="transcribe", predict_timestamps=False)

    def collate(numbers: list[int]) -> dict[str, torch.Tensor]:
        audio = [split.audio(number) for number in numbers]
        features = processor.feature_extractor(audio, sampling_rate=16_000, return_tensors="pt").input_features
        texts = processor.tokenizer([split.clips[number].text for number in numbers], padding=True, return_tensors="pt")
        labels = texts.input_ids.masked_fill(texts.attention_mask == 0, -100)
        return {"input_features": features, "labels": labels[:, 1:]}  # the model puts the start token in front

    clips = list(range(len(split.clips)))
    return Seq2SeqTrainer(model, arguments, train_dataset=clips, data_collator=collate, callbacks=[callback])


def seq2seq_trainer(dataset: str, steps: int, threads: int, folder: Path) -> tuple[Callable[[], None], dict[str, Any]]:
    from peft import LoraConfig, get_peft_model
    from transformers import Seq2SeqTrainingArguments, WhisperForConditionalGeneration, WhisperProcessor

    from wfc_dist.config.datasets import DatasetConfig
    from wfc_dist.data.sources import open_split

    torch.set_num_threads(threads)
    source = DatasetConfig(source=str(REPO / "examples/demo/data" / dataset), language=dataset, splits={"train": "train.jsonl"})
    split, third = open_split(dataset, source, "train"), steps // 3
    lora = LoraConfig(r=LORA["r"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], target_modules=LORA["target_modules"])
    torch.manual_seed(SEED)
    model = get_peft_model(WhisperForConditionalGeneration.from_pretrained(MODEL), lora)
    times: dict[int, float] = {}
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=PADDED_BATCH, max_steps=steps, learning_rate=LR,
        lr_scheduler_type="cosine", warmup_steps=WARMUP, weight_decay=WEIGHT_DECAY, max_grad_norm=1.0, use_cpu=True,
        save_strategy="no", logging_strategy="no", report_to=[], remove_unused_columns=False, label_names=["labels"],
        seed=SEED, disable_tqdm=True, dataloader_drop_last=True,
    )  # fmt: skip
    clock, seen = _clock(model, times, third, folder), _Heard(split)
    trainer = padded_trainer(model, WhisperProcessor.from_pretrained(MODEL), seen, dataset, callback=clock, arguments=arguments)
    report: dict[str, Any] = {}

    def run() -> None:
        start = time.monotonic()
        trainer.train()
        report["speech_seconds"] = seen.seconds
        report["points"] = [(step, times[step] - start, folder / f"adapter-{step}") for step in (third, 2 * third, steps)]

    return run, report


class _Heard:
    """A split that counts the seconds of the audio it gives."""

    def __init__(self, split: Any) -> None:
        self._split, self.clips, self.seconds = split, split.clips, 0.0

    def audio(self, number: int) -> Any:
        """Returns the samples of a clip."""
        self.seconds += self.clips[number].duration_s
        return self._split.audio(number)


def errors(points: list[tuple[int, float, Path]], dataset: str, folder: Path) -> list[dict[str, Any]]:
    """Returns the word error rate of each adapter on the held-out clips, decoded clip by clip, greedily."""
    from peft import PeftModel
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from wfc_dist.config.datasets import DatasetConfig
    from wfc_dist.config.schema import EvaluateConfig
    from wfc_dist.data.sources import open_split
    from wfc_dist.evaluation.decoding import decode_sets
    from wfc_dist.evaluation.hypotheses import score_hypotheses
    from wfc_dist.evaluation.normalize import spelling_table

    held = held_out(dataset, folder)
    data = DatasetConfig(source=str(held.parent), language=dataset, splits={"test": held.name})
    split, evaluate = open_split(dataset, data, "test"), EvaluateConfig(packing=False, normalizer="whisper")
    processor, spelling, found = WhisperProcessor.from_pretrained(MODEL), spelling_table(MODEL), []
    for step, seconds, place in points:
        model = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(MODEL), str(place)).eval()
        score = score_hypotheses(decode_sets(model, processor, [split], evaluate)[0], evaluate, spelling)
        assert score.low is not None and score.high is not None
        percent = [round(100 * value, 1) for value in (score.rate, score.low, score.high)]
        found.append({"step": step, "seconds": round(seconds, 1), "wer_percent": percent[0], "interval": percent[1:]})
    return found


WAYS = {"ours": ours, "Seq2SeqTrainer": seq2seq_trainer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="es", help="a folder of examples/demo/data with a dev split, such as es or fr")
    parser.add_argument("--steps", type=int, default=24, help="a multiple of 3")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        with tempfile.TemporaryDirectory(prefix="wfc-benchmark-") as name:
            run, report = WAYS[options.only](options.dataset, options.steps, options.threads, Path(name))
            run()
            peak = peak_bytes()
            points = errors(report["points"], options.dataset, Path(name))
        seconds = points[-1]["seconds"]
        rate = report["speech_seconds"] / seconds
        facts = {"speech_seconds": round(report["speech_seconds"]), "speech_per_second": round(rate, 2), "points": points}
        print(json.dumps({"seconds": seconds, "peak_bytes": peak, **facts}))
        return
    given = [f"--{name}={getattr(options, name)}" for name in ("dataset", "steps", "threads")]
    measured = in_fresh_processes(Path(__file__), list(WAYS), 1, *given)
    facts = {
        "model": "whisper-base",
        "dataset": options.dataset,
        "steps": options.steps,
        "threads": options.threads,
        "lora": LORA,
    }
    command = " ".join(["python", "benchmarks/training.py", *sys.argv[1:]])
    write_result("training", "training: one adapter, equal speech seen", measured, command=command, **facts)


if __name__ == "__main__":
    main()
