"""Where the seconds of `wfc --help` and of `wfc transcribe` of a short clip go, in fresh processes.

python benchmarks/startup.py [--model models/whisper-base] [--repetitions 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
CLIP = REPO / "examples" / "demo" / "data" / "en" / "audio" / "is-set-to.opus"
HELP = """
import contextlib, io, json, time
from wfc_dist.cli.commands import app
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    app(["--help"])
print(json.dumps({"seconds": {"all": time.process_time()}, "loaded": []}))
"""
TRANSCRIBE = """
import json, sys, time
seconds, before = {}, 0.0
def done(name):
    global before
    seconds[name], before = time.process_time() - before, time.process_time()
from wfc_dist import log
log.quiet_libraries()
import wfc_dist.cli.commands
done("python and the command line")
import torch
done("import torch")
from transformers import WhisperForConditionalGeneration, WhisperProcessor
done("import Transformers' Whisper")
from wfc_dist.evaluation import any_model, decoding, long_form, transcribing
done("import wfc_dist")
torch.set_num_threads(1)
loaded = any_model.load_model(sys.argv[1])
done("load the model")
any_model.load_model = lambda model: loaded
list(transcribing.transcribe(sys.argv[1], [sys.argv[2]]))
done("read and decode the clip")
names = "ray deepspeed datasets peft accelerate pandas scipy matplotlib jiwer".split()
print(json.dumps({"seconds": seconds | {"all": time.process_time()}, "loaded": [name for name in names if name in sys.modules]}))
"""


def measured(code: str, arguments: list[str], repetitions: int) -> tuple[dict[str, float], list[str]]:
    """Returns the median CPU seconds of each step, and which of the libraries that may not be needed are loaded."""
    command = [sys.executable, "-c", code, *arguments]
    said = [
        json.loads(subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for _ in range(repetitions)
    ]
    steps = {step: statistics.median(one["seconds"][step] for one in said) for step in said[0]["seconds"]}
    return steps, said[0]["loaded"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/whisper-base")
    parser.add_argument("--repetitions", type=int, default=3)
    asked = parser.parse_args()
    print("| command | step | CPU seconds |\n|---|---|---|")
    for command, code, arguments in (
        ("`wfc --help`", HELP, []),
        ("`wfc transcribe`", TRANSCRIBE, [asked.model, str(CLIP)]),
    ):
        steps, loaded = measured(code, arguments, asked.repetitions)
        for step, seconds in steps.items():
            print(f"| {command} | {step} | {seconds:.2f} |")
        if loaded:
            print(f"loaded besides: {', '.join(loaded)}", file=sys.stderr)


if __name__ == "__main__":
    main()
