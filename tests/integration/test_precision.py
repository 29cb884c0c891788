"""A run with `train.precision: auto`: the precision that this machine has, and the same bytes after a stop."""

from pathlib import Path

import pytest
import tiny

from wfc_dist.config.loading import load_config
from wfc_dist.coordinator.run import run
from wfc_dist.errors import Interrupted
from wfc_dist.evaluation.hypotheses import read_hypotheses
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.progress import Display
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.precision import decided, has_bf16
from wfc_dist.training.job import Progress


class StoppingDisplay(Display):
    """Asks for a stop in the first training, after a step."""

    def __init__(self, stop_file: Path) -> None:
        super().__init__(plain=True)
        self._stop_file = stop_file

    def update(self, name: str, progress: Progress | None, where: str = "") -> None:
        """See `Display`."""
        if progress is not None and progress.step == 1:
            self._stop_file.write_text("a test\n")
        super().update(name, progress, where)


def test_a_stopped_run_goes_on_in_its_precision_with_the_same_bytes(tmp_path: Path) -> None:
    path = tiny.make_config(
        tmp_path, rounds=[["a"]], train={"precision": "auto"}, evaluate={"adapters": False, "precision": "auto"}
    )
    expected, _ = decided({"this machine": has_bf16(use_gpu=False)})
    straight = run(
        load_config(path, [*(f"{key}.precision={expected}" for key in ("train", "evaluate")), "run.name=straight"]),
        Display(plain=True),
    )
    config = load_config(path)
    with pytest.raises(Interrupted, match="stopped at step 2"):
        run(config, StoppingDisplay(RunPaths(config.run_dir()).stop_file))

    resumed = run(config, Display(plain=True))

    assert Run(config.run_dir()).config.precisions == (expected, expected)
    texts = read_matrix(config.run_dir()).bases[1].hypotheses("a")
    assert read_hypotheses(texts)[0]["decoding"].get("precision", "fp32") == expected
    assert resumed.sha256 == straight.sha256 and resumed.index == 1
    (adapter,) = Run(config.run_dir()).adapters(1)
    assert adapter.facts["resumed_from"] == 2


def test_the_nodes_of_ray_decide(tmp_path: Path) -> None:
    path = tiny.make_config(
        tmp_path, rounds=[["a"]], train={"precision": "auto", "max_steps": 2}, evaluate={"adapters": False, "max_clips": 1}
    )
    config = load_config(path, ["cluster.backend=ray"])
    run(config, Display(plain=True))
    (line,) = [line for line in Run(config.run_dir()).ledger() if line["event"] == "precision"]
    assert line["precision"] == Run(config.run_dir()).config.train.precision == decided({"it": has_bf16(use_gpu=False)})[0]
    assert line["reason"] in ("every processor that trains has it", "no processor that trains has bf16"), "one node was asked"
