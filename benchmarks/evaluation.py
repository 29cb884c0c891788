"""Test sets decoded clip by clip with whisper-base, greedily: this project beside Transformers' pipeline, at equal text.

    python benchmarks/evaluation.py [--sets es fr it en] [--clips 24] [--threads 2]

Each way runs in a fresh process with the model loaded; the clock covers reading the audio, features and decoding.
The pipeline is given what a user gives it: audio files, language, task; once as it comes (one clip at a time), once in batches.
Needs `make models/whisper-base/config.json`. The data are the demo's (examples/demo/data).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measuring import in_fresh_processes, peak_bytes, write_result

REPO = Path(__file__).resolve().parent.parent
MODEL, DATA = REPO / "models" / "whisper-base", REPO / "examples" / "demo" / "data"
BATCH = 20


def rows(name: str, clips: int) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name / "test.jsonl").read_text().splitlines()][:clips]


def ours(sets: list[str], clips: int) -> Callable[[], list[str]]:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from wfc_dist.config.datasets import DatasetConfig
    from wfc_dist.config.schema import EvaluateConfig
    from wfc_dist.data.sources import open_split
    from wfc_dist.evaluation.decoding import decode_sets

    model = WhisperForConditionalGeneration.from_pretrained(MODEL).eval()
    processor = WhisperProcessor.from_pretrained(MODEL)
    evaluate = EvaluateConfig(packing=False, batch_size=BATCH, max_clips=clips)

    def run() -> list[str]:
        data = {name: DatasetConfig(source=str(DATA / name), language=name, splits={"test": "test.jsonl"}) for name in sets}
        splits = [open_split(name, config, "test") for name, config in data.items()]
        return [item.hypothesis for of_set in decode_sets(model, processor, splits, evaluate) for item in of_set]

    return run


def pipeline_of(batch_size: int) -> Callable[[list[str], int], Callable[[], list[str]]]:
    def make(sets: list[str], clips: int) -> Callable[[], list[str]]:
        from transformers import pipeline

        from wfc_dist.data.audio_files import AudioFile, decode

        recognize: Any = pipeline("automatic-speech-recognition", model=str(MODEL), batch_size=batch_size, device="cpu")

        def run() -> list[str]:
            texts = []
            for name in sets:
                audio = [
                    decode(AudioFile(str(DATA / name / row["audio_filepath"]))) for row in rows(name, clips)
                ]  # no ffmpeg needed
                asked = {"language": name, "task": "transcribe", "num_beams": 1}
                texts += [item["text"].strip() for item in recognize(audio, generate_kwargs=asked)]
            return texts

        return run

    return make


def encoder_alone(sets: list[str], clips: int) -> Callable[[], list[str]]:
    """The floor of any way that gives the same texts: every clip's window once through the encoder, nothing decoded."""
    from transformers import WhisperForConditionalGeneration

    encoder = WhisperForConditionalGeneration.from_pretrained(MODEL).eval().get_encoder()
    windows = torch.randn(1, encoder.config.num_mel_bins, 3000)
    num_clips = sum(len(rows(name, clips)) for name in sets)

    def run() -> list[str]:
        with torch.inference_mode():
            for _ in range(num_clips):
                encoder(windows)
        return [""] * num_clips

    return run


WAYS = {
    "ours": ours,
    "pipeline": pipeline_of(1),
    f"pipeline, batches of {BATCH}": pipeline_of(BATCH),
    "encoder alone": encoder_alone,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["es", "fr", "it", "en"])
    parser.add_argument("--clips", type=int, default=24, help="of each set, at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(options.threads)
        run = WAYS[options.only](options.sets, options.clips)
        start = time.monotonic()
        texts = run()
        print(json.dumps({"seconds": time.monotonic() - start, "peak_bytes": peak_bytes(), "texts": texts}))
        return
    given = ["--sets", *options.sets, f"--clips={options.clips}", f"--threads={options.threads}"]
    measured = in_fresh_processes(Path(__file__), list(WAYS), options.repetitions, *given)
    expected = measured[0].facts["texts"]
    told = [
        replace(item, facts={"clips_per_second": round(len(expected) / item.median_s, 2),
                             "texts_as_ours": sum(a == b for a, b in zip(item.facts["texts"], expected, strict=True))})
        for item in measured
    ]  # fmt: skip
    command = " ".join(["python", "benchmarks/evaluation.py", *sys.argv[1:]])
    facts = {"model": "whisper-base", "sets": options.sets, "num_clips": len(expected), "threads": options.threads}
    write_result("evaluation", "evaluation: clips decoded one by one, greedily", told, command=command, **facts)


if __name__ == "__main__":
    main()
