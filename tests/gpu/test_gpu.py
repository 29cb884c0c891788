"""What a GPU may break, on a GPU: the parts of benchmarks/gpu.py that say whether something is right, at a tiny size."""

from pathlib import Path

import pytest
import torch
from gpu_benchmark import run_parts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("part", ["round", "merge on a CPU", "gradient checkpointing", "fp16", "resume"])
def test_part(part: str, tmp_path: Path) -> None:
    found = run_parts(tmp_path, "cuda", [part])

    assert found[part]["state"] == "done"
    assert all(found[part]["checks"].values())
