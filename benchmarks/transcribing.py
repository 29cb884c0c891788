"""One long recording transcribed with whisper-base: this project's ways beside those of Transformers' pipeline, in CPU seconds.

    python benchmarks/transcribing.py [--set es] [--minutes 10] [--threads 1] [--ways ours pipeline]

The recording is clips of a demo's set in a row, with half a second of silence between them. The clips' texts are the reference.
Each way runs in a fresh process with the model loaded. The clock counts CPU time, which a busy machine changes little; the load
average (running processes, mean of the last minute) stands beside it.
Needs `make models/whisper-base/config.json`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
from measuring import Measured, in_fresh_processes, peak_bytes, write_result

from wfc_dist.data.audio_files import RATE_HZ, AudioFile, decode

REPO = Path(__file__).resolve().parent.parent
MODEL, DATA = REPO / "models" / "whisper-base", REPO / "examples" / "demo" / "data"
GAP_S = 0.5
Transcriber = Callable[[], str]


def recording(name: str, minutes: float, path: Path) -> str:
    """Writes clips of a set in a row, until the recording has its length; returns what is said."""
    rows = [
        json.loads(line)
        for split in ("test", "dev", "train") if (DATA / name / f"{split}.jsonl").is_file()
        for line in (DATA / name / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    ]  # fmt: skip
    parts: list[np.ndarray] = []
    texts, num_samples, gap = [], 0, np.zeros(int(GAP_S * RATE_HZ), np.float32)
    for row in rows:
        if num_samples >= minutes * 60 * RATE_HZ:
            break
        parts += [decode(AudioFile(str(DATA / name / row["audio_filepath"]))), gap]
        num_samples += len(parts[-2]) + len(gap)
        texts.append(row["text"])
    sf.write(path, np.concatenate(parts), RATE_HZ)
    return " ".join(texts)


def ours(path: Path, language: str) -> Transcriber:
    """What `wfc transcribe` does with a recording of more than 30 s."""
    from wfc_dist.evaluation.any_model import load_model
    from wfc_dist.evaluation.long_form import segments_of

    model, processor, _ = load_model(MODEL)

    def run() -> str:
        return " ".join(segment.text for segment in segments_of(model, processor, decode(AudioFile(str(path))), language)[1])

    return run


def cut_where_quiet(path: Path, language: str) -> Transcriber:
    """What is done with a long clip of a test set."""
    from wfc_dist.config.datasets import DatasetConfig
    from wfc_dist.config.schema import EvaluateConfig
    from wfc_dist.data.sources import open_split
    from wfc_dist.evaluation.any_model import load_model
    from wfc_dist.evaluation.decoding import decode_sets

    model, processor, _ = load_model(MODEL)
    manifest = path.with_suffix(".jsonl")
    row = {"audio_filepath": path.name, "duration": sf.info(path).duration, "text": "-", "lang": language}
    manifest.write_text(json.dumps(row) + "\n", encoding="utf-8")

    def run() -> str:
        data = DatasetConfig(source=str(path.parent), language=language, splits={"test": manifest.name})
        return decode_sets(model, processor, [open_split("long", data, "test")], EvaluateConfig(batch_size=1))[0][0].hypothesis

    return run


def pipeline_with(**options: Any) -> Callable[[Path, str], Transcriber]:
    """Transformers' pipeline: long-form decoding as it comes, or chunks where `chunk_length_s` says so."""

    def make(path: Path, language: str) -> Transcriber:
        from transformers import pipeline

        recognize: Any = pipeline("automatic-speech-recognition", model=str(MODEL), device="cpu", **options)
        asked = {"language": language, "task": "transcribe", "num_beams": 1}

        def run() -> str:
            return str(recognize(decode(AudioFile(str(path))), return_timestamps=True, generate_kwargs=asked)["text"])

        return run

    return make


WAYS: dict[str, Callable[[Path, str], Transcriber]] = {
    "ours": ours,
    "ours, cut where it is quiet": cut_where_quiet,
    "pipeline": pipeline_with(),
    "pipeline, chunks of 30 s": pipeline_with(chunk_length_s=30),
}


def wer_percent(said: str, written: str, language: str) -> float:
    """Returns the word error rate after Whisper's normalisation."""
    from wfc_dist.evaluation.metrics import count
    from wfc_dist.evaluation.normalize import normalizer, spelling_table

    normalize = normalizer("whisper", language, spelling_table(MODEL))
    return round(100 * count([(normalize(said),)], [normalize(written)], "wer").rate, 1)


def with_figures(item: Measured, said: str, language: str, audio_s: float) -> Measured:
    """Returns what a way did, with its error and its speed instead of its text."""
    facts = {
        "wer_percent": wer_percent(said, item.facts["text"], language),
        "audio_s_per_cpu_s": round(audio_s / item.median_s, 1),
        "load_average": item.facts["load_average"],
    }
    return replace(item, facts=facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="es", help="of the demo; its name is its language")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(options.threads)
        run = WAYS[options.only](options.path, options.set)
        start = time.process_time()
        text = run()
        spent_s = time.process_time() - start
        facts = {"peak_bytes": peak_bytes(), "text": text, "load_average": round(os.getloadavg()[0], 1)}
        print(json.dumps({"seconds": spent_s, **facts}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        said = recording(options.set, options.minutes, path)
        audio_s = sf.info(path).duration
        given = [f"--set={options.set}", f"--threads={options.threads}", f"--path={path}"]
        measured = in_fresh_processes(Path(__file__), options.ways, options.repetitions, *given)
    told = [with_figures(item, said, options.set, audio_s) for item in measured]
    command = " ".join(["python", "benchmarks/transcribing.py", *sys.argv[1:]])
    facts = {"model": "whisper-base", "set": options.set, "audio_s": round(audio_s, 1), "words": len(said.split())}
    question = f"a recording of {audio_s:.0f} s ({options.set}, {len(said.split())} words) to text, CPU seconds"
    write_result("transcribing", question, told, command=command, threads=options.threads, **facts)


if __name__ == "__main__":
    main()
