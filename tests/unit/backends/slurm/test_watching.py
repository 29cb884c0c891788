"""Progress of a job, from the end of its metrics log."""

import json
from pathlib import Path

from wfc_dist.backends.slurm.watching import CurveTail


def test_progress_comes_from_the_end_of_the_curve(tmp_path: Path) -> None:
    tail = CurveTail(tmp_path / "a.jsonl", max_steps=2000)
    assert tail.progress() is None
    rows = [{"step": step, "loss": 5 - step / 1000, "lr": 1e-3, "speech_seconds": 30.0} for step in range(1, 1001)]
    rows += [{"step": 1000, "dev_loss": 1.0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 1001, "lo')
    progress = tail.progress()
    assert progress is not None and (progress.step, progress.max_steps, progress.loss) == (1000, 2000, 4.0)
