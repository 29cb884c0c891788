"""The audit of 2,000,000 rows: stretches of recordings, or files of their own; beside a loop over the same manifest.

    python benchmarks/audit.py [--rows 2000000] [--recordings 20000] [--repetitions 1]

Every row is a stretch of a telephone recording (mu-law, 8 kHz) with its own text. `audit` is `wfc audit` for the first time, when
it opens every recording; `audit again` has what it keeps beside the manifest; `plan` is `wfc plan`. The loop is what a careful
user writes instead: it reads each line, asks soundfile for the header of each row's file, compares the durations and looks for
repeats, but not for leaks, markup or channels. Each way runs in a fresh process; the clock covers the process, imports included.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import in_fresh_processes, write_result

RATE_HZ = 8000
SECONDS = 5.0
WORDS = [
    "alpha",
    "bravo",
    "charlie",
    "delta",
    "echo",
    "foxtrot",
    "golf",
    "hotel",
    "india",
    "juliett",
    "kilo",
    "lima",
    "mike",
    "november",
    "oscar",
    "papa",
]
CONFIG = """
run: {{name: audit, dir: {folder}/runs}}
base: {{model: none}}
datasets: {{calls: {{source: {folder}, splits: {{train: train.jsonl, test: test.jsonl}}}}}}
rounds: [[calls]]
"""


def make(folder: Path, num_rows: int, num_recordings: int) -> None:
    """Writes the recordings, a manifest of `num_rows` stretches of all but the last, and one of the last as a test split."""
    import soundfile as sf

    (folder / "audio").mkdir(parents=True)
    noise = (0.1 * np.random.default_rng(0).standard_normal(round(SECONDS * RATE_HZ) + num_recordings)).astype(np.float32)
    for number in range(num_recordings):
        samples = noise[number : number + round(SECONDS * RATE_HZ)]
        sf.write(folder / f"audio/{number:06d}.wav", samples, RATE_HZ, subtype="ULAW")
    per_recording = -(-num_rows // (num_recordings - 1))
    length = SECONDS / per_recording
    with open(folder / "train.jsonl", "w", encoding="utf-8") as file:
        for row in range(num_rows):
            number, part = divmod(row, per_recording)
            text = f"{' '.join(WORDS[(row * place) % 16] for place in range(3, 12))} {row}"
            fields = {
                "audio_filepath": f"audio/{number:06d}.wav",
                "offset": round(part * length, 4),
                "duration": round(length, 4),
            }
            file.write(json.dumps({**fields, "text": text, "lang": "en"}) + "\n")
    last = {"audio_filepath": f"audio/{num_recordings - 1:06d}.wav", "text": "the last one", "lang": "en"}
    (folder / "test.jsonl").write_text(json.dumps(last) + "\n")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))


def command(name: str, folder: Path) -> None:
    """Runs `wfc NAME` in this process; the test split and the minimum length of a clip do not matter."""
    from wfc_dist.cli import main

    sys.argv = ["wfc", name, str(folder / "config.yaml"), "train.min_duration_s=0"]
    main()


def loop(folder: Path) -> None:
    """Reads every line and the header of every row's file, and compares."""
    import soundfile as sf

    seen, hours, wrong = set(), 0.0, 0
    for line in open(folder / "train.jsonl", encoding="utf-8"):  # noqa: SIM115 - the process ends
        row = json.loads(line)
        info = sf.info(folder / row["audio_filepath"])
        wrong += row["offset"] + row["duration"] > info.duration + 0.1 or not row["text"].strip()
        key = (row["audio_filepath"], row["offset"])
        wrong += key in seen
        seen.add(key)
        hours += row["duration"] / 3600
    print(f"{len(seen)} rows, {hours:.1f} hours, {wrong} wrong")


WAYS = ("audit", "audit again", "plan", "a loop over the manifest")


def run_one(way: str, folder: Path) -> None:
    """Runs a way in a process of its own and prints seconds and peak memory."""
    from wfc_dist.data.facts_cache import NAME

    if way == "audit":
        (folder / NAME).unlink(missing_ok=True)
    started = time.perf_counter()
    inner = (
        f"import audit; from pathlib import Path; from measuring import peak_bytes; audit.work({way!r}, Path({str(folder)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", inner + "; print(peak_bytes())"], cwd=Path(__file__).parent, check=True,
                          stdout=subprocess.PIPE, text=True)  # fmt: skip
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_bytes": int(done.stdout.split()[-1])}))


def work(way: str, folder: Path) -> None:
    """Does the work of a way."""
    if way == WAYS[-1]:
        loop(folder)
        return
    try:
        command(way.split(maxsplit=1)[0], folder)
    except SystemExit as end:
        if end.code:
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        run_one(options.only, options.folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="wfc-audit-"))
    try:
        make(folder / "data", options.rows, options.recordings)
        measured = in_fresh_processes(Path(__file__), WAYS, options.repetitions, "--folder", str(folder / "data"))
    finally:
        shutil.rmtree(folder)
    words = [f"--{name} {getattr(options, name)}" for name in ("rows", "recordings", "repetitions")]
    write_result("audit", f"The audit of {options.rows:,} rows, stretches of {options.recordings:,} recordings", measured,
                 command=" ".join(["python", "benchmarks/audit.py", *words]))  # fmt: skip


if __name__ == "__main__":
    main()
