"""The metrics log of a resumed training: cut at its step, without damaged lines."""

from pathlib import Path

from wfc_dist.training import metrics_log


def test_a_resumed_training_cuts_its_log_and_leaves_out_damaged_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for step in (1, 2, 3):
        metrics_log.append(path, step=step, loss=0.5)
    metrics_log.append(path, step=2, dev_loss=0.25)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'{"step": 1', b'{"stap": 1') + b'[1]\n{"step": \xff\n{"step": "2"}\n')

    metrics_log.cut(path, 2, evaluated=True)

    assert path.read_text() == '{"step": 2, "loss": 0.5}\n{"step": 2, "dev_loss": 0.25}\n'
    metrics_log.cut(tmp_path / "none.jsonl", 2, evaluated=True)
    assert not (tmp_path / "none.jsonl").exists()
