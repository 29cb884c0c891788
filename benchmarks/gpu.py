"""Everything a GPU changes, on one GPU, in under 8 minutes: what a user would do there, whether it is right, and how fast.

    python benchmarks/gpu.py                        on a GPU, in the shape of whisper-large-v3-turbo; writes results/gpu.json
    python benchmarks/gpu.py --device cpu --tiny    the same parts at a tiny size, in under 2 minutes

The model has random weights and the speech is noisy tones, both made on the spot; nothing is downloaded. Each part runs in a
process of its own, and the results are written after every part: what a time-out cuts off is all that is lost. The exit code is
1 where a part failed or was wrong. Only torch, transformers, peft, accelerate, safetensors and pydantic are needed; without
soundfile the audio is read by the standard library, without jiwer nothing is scored. Missing packages travel as wheels:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 \\
        --platform manylinux2014_x86_64 -d wheels pydantic==VERSION pydantic-core==ITS_OWN annotated-types typing-inspection \\
        jiwer rapidfuzz click soundfile soxr
    pip install --no-index --no-deps --target site wheels/*.whl && PYTHONPATH=site python benchmarks/gpu.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import plain_wav
from measuring import RESULTS

REPO = Path(__file__).resolve().parent.parent
PART_S = 150  # no part takes longer
LIBRARIES = ("torch", "transformers", "peft", "accelerate")


def run_part(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a part in this process and returns its row: part, state, seconds and facts."""
    plain_wav.stand_in()
    import gpu_parts
    from gpu_bench import FULL, TINY, Bench

    start = time.monotonic()
    facts = gpu_parts.PARTS[name](Bench(options.folder, options.device, TINY if options.tiny else FULL))
    wrong = [what for what, is_true in facts.get("checks", {}).items() if not is_true]
    state = f"wrong: not true: {'; '.join(wrong)}" if wrong else "done"
    return {"part": name, "state": state, "seconds": round(time.monotonic() - start, 2), "facts": facts}


def in_a_process(name: str, options: argparse.Namespace, timeout_s: float) -> dict[str, Any]:
    """Runs a part in a fresh process and returns its row; a process that ends without one has failed."""
    command = [sys.executable, __file__, "--only", name, "--folder", str(options.folder), "--device", options.device]
    environment = dict(os.environ) | {"PYTHONPATH": f"{REPO}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    if options.device == "cpu" or name == "merge on a CPU":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command + ["--tiny"] * options.tiny, capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"part": name, "state": f"failed: not done after {timeout_s:.0f} s", "seconds": timeout_s, "facts": {}}
    if done.returncode == 0:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return row | {"process_seconds": round(time.monotonic() - start, 1)}
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    facts = {"stderr": done.stderr[-6000:]}
    return {"part": name, "state": f"failed: {last[0]}", "seconds": round(time.monotonic() - start, 1), "facts": facts}


def compared(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the speed of training as a multiple of Seq2SeqTrainer's, once both are known."""
    ours, theirs = facts.get("training"), facts.get("Seq2SeqTrainer")
    if not ours or not theirs:
        return {}
    return {
        f"{key}, times Seq2SeqTrainer": round(ours[key] / theirs[key], 2) for key in ("speech_per_second", "windows_per_second")
    }


def write(path: Path, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Writes what is known so far; a reader never sees half of a file."""
    facts = {row["part"]: row["facts"] for row in rows}
    machine = {"cpus": len(os.sched_getaffinity(0)), "device": facts.get("training", {}).get("device", options.device)}
    tree = {
        "question": "one GPU: a round, its bytes, its speed", "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "machine": machine | {name: version(name) for name in LIBRARIES},
        "compared": compared(facts), "rows": [{key: row[key] for key in ("part", "state", "seconds")} for row in rows],
        "facts": facts,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".tmp")
    staged.write_text(json.dumps(tree, indent=1) + "\n")
    os.replace(staged, path)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and little speech")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="file of the results")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these, and those they need; by default all")
    parser.add_argument("--budget-s", type=float, default=460, help="parts that would begin later are left out")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options, start, rows = arguments(), time.monotonic(), list[dict[str, Any]]()
    if options.only:
        print(json.dumps(run_part(options.only, options)))
        return 0
    from gpu_parts import NEED_GPU, PARTS

    wanted = {"inputs", *(options.parts or PARTS)} | ({"round"} if "merge on a CPU" in (options.parts or ()) else set())
    with tempfile.TemporaryDirectory(prefix="wfc-gpu-") as folder:
        options.folder = Path(folder)
        for name in (name for name in PARTS if name in wanted):
            left_s = options.budget_s - (time.monotonic() - start)
            why = NEED_GPU.get(name) if options.device == "cpu" else "the time is up" if left_s <= 0 else None
            skipped = {"part": name, "state": f"skipped: {why}", "seconds": 0.0, "facts": {}}
            rows.append(skipped if why else in_a_process(name, options, min(PART_S, left_s)))
            write(options.out, rows, options)
            print(f"[{time.monotonic() - start:6.1f} s] {name}: {rows[-1]['state']}", flush=True)
    for name, value in compared({row["part"]: row["facts"] for row in rows}).items():
        print(f"  {name}: {value}")
    return int(any(row["state"].startswith(("failed", "wrong")) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
