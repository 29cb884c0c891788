"""Real trainer processes for tests: a warm gang of `world_size` that works through a list of orders, one after the other."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tiny

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.config.training import LoraConfig, TrainConfig
from wfc_dist.rounds import Base
from wfc_dist.training.job import TrainingJob

SPLITS = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}


def make_inputs(folder: Path) -> Path:
    """Writes folder/base (tiny Whisper) and folder/data (tiny data set)."""
    tiny.make_whisper(folder / "base")
    tiny.make_dataset(folder / "data", seed=1, train=9, dev=3)
    return folder


def make_job(
    inputs: Path, name: str, *, lora: dict[str, Any] | None = None, past: Sequence[str] = (), **train: Any
) -> TrainingJob:
    """Returns a job that trains on the tiny data set and keeps its files under inputs/name; `past` are adapters under inputs."""
    output = inputs / name / "adapter"
    output.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"max_steps": 8, "warmup_steps": 1, "lr": 1e-2, "batch_size": 1, "gradient_accumulation": 2}
    return TrainingJob(
        round_index=1,
        dataset="tones",
        data=DatasetConfig(source=str(inputs / "data"), splits=SPLITS),
        lora=LoraConfig(**({"r": 4, "alpha": 8, "dropout": 0.1} | (lora or {}))),
        train=TrainConfig(**(settings | train)),
        evaluate=EvaluateConfig(normalizer="none", batch_size=2),
        init_seed=7,
        data_seed=11,
        base=Base(0, str(inputs / "base"), "sha-of-the-base"),
        checkpoint_dir=str(inputs / name / "training"),
        output_dir=str(output),
        metrics_file=str(inputs / name / "curve.jsonl"),
        stop_file=str(inputs / name / "stop"),
        past_curvature=tuple(str(inputs / name) for name in past),
    )


def order(
    name: str, *, stop_at: int | None = None, lora: dict[str, Any] | None = None, past: Sequence[str] = (), **train: Any
) -> dict[str, Any]:
    """Returns what `run_gang` is asked for: a job's name and settings, and after which step to ask it to stop."""
    return {"name": name, "stop_at": stop_at, "lora": lora, "past": past, "train": train}


def run_gang(inputs: Path, world_size: int, orders: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Runs the orders in real processes; returns, by order and rank, the result as a dictionary or {"interrupted": message}."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    tests = Path(__file__).parent
    found_in = [str(tests), str(tests.parent / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(found_in)}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(inputs), str(world_size), str(rank), str(port), json.dumps(orders)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )
        for rank in range(world_size)
    ]  # fmt: skip
    outputs = [process.communicate()[0] for process in processes]
    for process, text in zip(processes, outputs, strict=True):
        assert process.returncode == 0, text
    by_rank = [json.loads((inputs / f"results-{world_size}-{rank}.json").read_text()) for rank in range(world_size)]
    return [list(results) for results in zip(*by_rank, strict=True)]


def _follow(job: TrainingJob, warm: Any, world: Any, stop_at: int | None) -> dict[str, Any]:
    from wfc_dist.errors import Interrupted
    from wfc_dist.training.trainer import train_adapter

    stop_file = Path(job.stop_file)
    if world.world_rank == 0:
        stop_file.unlink(missing_ok=True)

    def ask_to_stop(progress: Any) -> None:
        if world.world_rank == 0 and stop_at is not None and progress.step == stop_at - 1:
            stop_file.touch()  # seen in the next step

    try:
        return asdict(train_adapter(job, warm, world, ask_to_stop))
    except Interrupted as error:
        return {"interrupted": error.message}


def _main(inputs: Path, world_size: int, world_rank: int, port: int, orders: list[dict[str, Any]]) -> None:
    from wfc_dist import log
    from wfc_dist.training.world import join_world
    from wfc_dist.weights.warm_base import WarmBase

    log.quiet_libraries()
    log.configure()
    world = join_world(world_size, world_rank, world_rank, "127.0.0.1", port)
    warm, results = None, []
    for item in orders:
        job = make_job(inputs, item["name"], lora=item["lora"], past=item["past"], **item["train"])
        warm = warm or WarmBase(job.base)
        results.append(_follow(job, warm, world, item["stop_at"]))
    (inputs / f"results-{world_size}-{world_rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), *(int(item) for item in sys.argv[2:5]), json.loads(sys.argv[5]))
