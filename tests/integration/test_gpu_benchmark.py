"""The parts of benchmarks/gpu.py at a tiny size on a CPU, and with only the libraries that it asks for."""

from pathlib import Path

from gpu_benchmark import run_parts
from gpu_parts import PARTS

NEVER_NEEDED = ["ray", "deepspeed", "datasets", "submitit", "matplotlib", "soxr"]


def test_every_part_is_right_on_a_cpu(tmp_path: Path) -> None:
    found = run_parts(tmp_path, "cpu", absent=NEVER_NEEDED)

    assert list(found) == list(PARTS)
    states = {part: row["state"] for part, row in found.items()}
    assert states.pop("fp16").startswith("skipped: PyTorch's loss scaler")
    assert set(states.values()) == {"done"}
    assert found["round"]["scores"].keys() == {"base-0000", "base-0001", "one", "two"}
    assert found["merge on a CPU"]["base_sha256"] == found["round"]["base_sha256"]
    assert found["training"]["speech_per_second"] > 0 and found["training"]["tflop_per_window"] > 0


def test_a_round_needs_neither_soundfile_nor_jiwer(tmp_path: Path) -> None:
    found = run_parts(tmp_path, "cpu", ["round"], absent=[*NEVER_NEEDED, "soundfile", "jiwer"])

    assert found["round"]["state"] == "done" and not any(found["round"]["scores"].values())
