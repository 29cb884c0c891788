"""One trainer outside of any round, as a user would start it; benchmarks/overhead.py starts it beside `wfc run`.

    accelerate launch --cpu --num_processes 1 benchmarks/by_hand.py CONFIG DATASET ROUND OUT

Trains the adapter that ROUND of CONFIG would train on DATASET, against the root. Writes OUT/adapter, and the events of the
training beside it. Seeds, threads, data and steps are those of the run. In round 1 the base is that of the run as well, so the
adapter must have the same bytes.
"""

import sys
from pathlib import Path

from wfc_dist import log
from wfc_dist.config import loading
from wfc_dist.rounds import Base
from wfc_dist.runs.layout import events_file
from wfc_dist.seeds import derived_seed
from wfc_dist.training.job import TrainingJob
from wfc_dist.weights import base_chain
from wfc_dist.weights.hashing import content_sha256


def main(config: Path, dataset: str, round_index: int, out: Path) -> None:
    """Trains the adapter. Writes `out`, a new folder."""
    log.quiet_libraries()
    from wfc_dist.training.trainer import train_adapter
    from wfc_dist.training.world import join_world
    from wfc_dist.weights.warm_base import WarmBase

    settings = loading.load_config(config)
    log.open_events(events_file(out, dataset))
    (out / "adapter").mkdir()
    threads, seed, model = settings.cluster.threads_per_worker, settings.run.seed, Path(settings.base.model)
    world = join_world(1, 0, 0, "127.0.0.1", 0, threads=threads)
    base = Base(0, str(model), content_sha256(base_chain.hash_tensors(model)))
    job = TrainingJob(
        round_index=round_index,
        dataset=dataset,
        data=settings.datasets[dataset],
        lora=settings.lora,
        train=settings.train,
        evaluate=settings.evaluate,
        init_seed=derived_seed(seed, "lora_A", round_index),
        data_seed=derived_seed(seed, "data", round_index, dataset),
        base=base,
        checkpoint_dir=str(out / "checkpoints"),
        output_dir=str(out / "adapter"),
        metrics_file=str(out / "curve.jsonl"),
        stop_file="",
        threads=threads,
    )
    train_adapter(job, WarmBase(base), world)


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(f"python benchmarks/by_hand.py CONFIG DATASET ROUND OUT\n\n{__doc__}")
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
