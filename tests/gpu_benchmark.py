"""Runs benchmarks/gpu.py as a user does, at its tiny size."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run_parts(folder: Path, device: str, parts: Sequence[str] = (), absent: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Returns part -> its row and facts. The libraries in `absent` cannot be imported."""
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in absent)]
    (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(SCRIPT), "--device", device, "--tiny", "--out", str(folder / "gpu.json")]
    done = subprocess.run(
        command + (["--parts", *parts] if parts else []), env=environment, capture_output=True, text=True, check=False
    )
    tree = json.loads((folder / "gpu.json").read_text())
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{json.dumps(tree, indent=1)}"
    return {row["part"]: row | tree["facts"][row["part"]] for row in tree["rows"]}
