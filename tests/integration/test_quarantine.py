"""A data set that fails is set aside while the others finish. With a quorum the round does without it, else a remedy goes on."""

from pathlib import Path

import pytest
import tiny
from lost_audio import events, run_damaged
from processes import wfc

from wfc_dist import load_config, open_run, run
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.progress import Display

ROUNDS = [["a", "b", "c"], ["d"]]


def make_config(root: Path, rounds: list[list[str]] = ROUNDS) -> Path:
    return tiny.make_config(root, rounds=rounds, train={"max_steps": 2, "lr": 1e-2}, evaluate={"max_clips": 1})


@pytest.fixture(scope="module")
def without_c(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The bases of a run that was never asked for c: with a quorum, c is as if it had not been there."""
    path = make_config(tmp_path_factory.mktemp("without"))
    config = load_config(path, ["rounds=[[a, b], [d]]"])
    run(config, Display(plain=True))
    return [base.sha256 for base in open_run(config.run_dir()).bases]


@pytest.mark.parametrize("backend", ["in_process", "ray"])
def test_with_a_quorum_the_round_does_without_it_for_good(tmp_path: Path, without_c: list[str], backend: str) -> None:
    path = make_config(tmp_path)
    command = (path, f"cluster.backend={backend}", "centralize.quorum=2")
    code, said = run_damaged(*command)
    assert code == 0, said
    opened = open_run(tmp_path / "runs" / "tiny")
    assert [base.sha256 for base in opened.bases] == without_c
    assert list(opened.base(1).missing) == ["c"] and "c/train: cannot read audio" in opened.base(1).missing["c"]
    assert opened.base(1).facts["weights"] == {"a": 0.5, "b": 0.5} and opened.base(2).missing == {}
    (line,) = events(opened, "quarantined")
    assert (line["round"], line["dataset"]) == (1, "c") and "the file has no bytes" in line["traceback"]
    assert events(opened, "base")[1]["missing"] == opened.base(1).missing

    card = (opened.base(1).path / "README.md").read_text()
    assert "Base 1 was made without c, whose training failed" in card and str(tmp_path) not in card
    assert "base 1 was made without c: InputError" in wfc("status", opened.path).stdout
    assert "c: missing, InputError" in wfc("lineage", opened.path).stdout
    assert '"state": "missing"' in wfc("status", opened.path, "--json").stdout
    assert "missing: InputError" in (opened.path / "report" / "index.html").read_text()
    assert read_matrix(opened.path).learned == {"a": 1, "b": 1, "d": 2}

    (opened.base(1).path / "manifest.json").unlink()  # made anew without c, though c could be trained now
    wfc("run", *command)
    assert [base.sha256 for base in opened.bases] == without_c and list(opened.base(1).missing) == ["c"]
    assert verify_run(opened.path, deep=True).damaged == {}


def test_without_a_quorum_the_remedy_may_change_and_nothing_is_trained_again(tmp_path: Path) -> None:
    path = make_config(tmp_path)
    code, said = run_damaged(path)
    assert code == 2 and "c/train: cannot read audio" in said
    opened = open_run(tmp_path / "runs" / "tiny")
    assert opened.num_bases == 1 and [adapter.dataset for adapter in opened.adapters(1)] == ["a", "b"]
    assert "round 1 waits for c: InputError" in wfc("status", opened.path).stdout.replace("\n", " ")

    refused = wfc("run", path, "train.lr=1e12", "lora.r=8", check=False)
    assert refused.returncode == 2 and "changed: lora.r. Set them back" in refused.stderr
    diverged = wfc("run", path, "train.lr=1e12", "train.warmup_steps=0", check=False)
    assert diverged.returncode == 1 and "round 1, data set c: loss" in diverged.stderr
    small = wfc("run", path, "train.lr=5e-3", "train.max_update_ratio=1e-6", check=False)
    assert small.returncode == 1 and "times the weights that it changes" in small.stderr
    wfc("run", path, "train.lr=5e-3")

    assert opened.num_bases == 3 and not any(base.missing for base in opened.bases)
    assert [line["dataset"] for line in events(opened, "adapter")] == ["a", "b", "c", "d"]
    assert [line["dataset"] for line in events(opened, "quarantined")] == ["c", "c", "c"]
    changes = [line["keys"] for line in events(opened, "changed")]
    assert changes == [
        {"train.lr": [1e-2, 1e12], "train.warmup_steps": [1, 0]},
        {"train.lr": [1e12, 5e-3], "train.max_update_ratio": [None, 1e-6], "train.warmup_steps": [0, 1]},
        {"train.max_update_ratio": [1e-6, None]},
    ]
    refused = wfc("run", path, "train.lr=1e-3", check=False)
    assert refused.returncode == 2 and "changed: train.lr" in refused.stderr, "nothing has failed since"
