"""The demo in a short form, as `make test` runs it: real speech, real whisper-base, real Ray, two rounds, every command once."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

OVERRIDES = ["run.name=short-demo", "train.max_steps=2", "train.warmup_steps=1", "evaluate.max_clips=4"]
OVERRIDES += [f"datasets.{name}.max_clips=24" for name in ("es", "fr", "cs-en-es", "it", "ru")]
RUN = Path("runs/short-demo")


def wfc(*arguments: str) -> str:
    """Runs the installed command; returns its standard output."""
    done = subprocess.run(
        [Path(sys.executable).with_name("wfc"), *arguments], capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, f"wfc {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    print(f"--- wfc {' '.join(arguments[:3])}\n{done.stderr}{done.stdout}", flush=True)
    return done.stdout


def main() -> None:
    """Runs it and checks what a user would look at."""
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.rmtree("runs/rebuilt", ignore_errors=True)
    wfc("audit", "configs/demo.yaml")
    wfc("plan", "configs/demo.yaml")
    wfc("run", "configs/demo.yaml", "--plain", *OVERRIDES)
    assert "done" in wfc("status", str(RUN))
    assert wfc("lineage", str(RUN)).count("adapter ") == 5
    assert Path(wfc("report", str(RUN)).strip()).stat().st_size > 10_000
    rebuilt = wfc("rebuild", str(RUN), "--base", "2", "--out", "runs/rebuilt").split()[1]
    assert rebuilt == json.loads((RUN / "base-0002" / "manifest.json").read_text())["sha256"]

    loaded = WhisperForConditionalGeneration.from_pretrained(RUN / "base-0002").state_dict()
    changed = load_file(RUN / "base-0002" / "model-update.safetensors")
    assert len(changed) == 36 and all((loaded[name] == tensor).all() for name, tensor in changed.items())

    rows = [json.loads(line) for line in Path("examples/demo/data/en/test.jsonl").read_text().splitlines()]
    longest = max(rows, key=lambda row: row["duration"])
    text = wfc("transcribe", str(RUN), f"examples/demo/data/en/{longest['audio_filepath']}", "--language", "en")
    said, wanted = (set(re.findall(r"\w+", words.lower())) for words in (text, longest["text"]))
    assert len(said & wanted) >= 0.6 * len(wanted), f"transcribed {text!r} for {longest['text']!r}"
    print("short demo: passed")


if __name__ == "__main__":
    main()
