"""Processes that stop answering in mid-work are noticed, named and replaced, and the bytes are those of a run without a hang."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest
import tiny
import yaml
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

LIMIT_S = 5.0
ON_RAY = ("cluster.backend=ray", f"cluster.hang_timeout_s={LIMIT_S:g}", "cluster.start_timeout_s=60", "--plain")


def ledger(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    train = {"max_steps": 12, "checkpoint_every": 2}
    config = tiny.make_config(tmp_path_factory.mktemp("one"), rounds=[["a"]], train=train, cluster={"workers_per_trainer": 1})
    wfc("run", config, "--plain")
    return config, Run(config.parent / "runs" / "tiny").base().sha256


@pytest.mark.slow
def test_a_trainer_that_is_stopped_in_mid_training_is_named_and_replaced(plain: tuple[Path, str], tmp_path: Path) -> None:
    config, expected = plain
    run_dir, held = tmp_path / "runs" / "tiny", tmp_path / "held"
    # The trainer is stopped by SIGSTOP at its third checkpoint, while it is held there.
    process = start_wfc(
        "run", config, f"run.dir={tmp_path / 'runs'}", *ON_RAY, log=tmp_path / "log", WFC_HOLD_AT=f"checkpoint:3={held}"
    )
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()
        trainer = psutil.Process(int(held.read_text()))
        trainer.send_signal(signal.SIGSTOP)
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
        assert not trainer.is_running(), "a stopped process is ended"
    finally:
        kill_tree(process)

    assert Run(run_dir).base().sha256 == expected
    (failure,) = [line for line in ledger(run_dir) if line["event"] == "failure"]
    assert (failure["kind"], failure["decision"], failure["dataset"]) == ("hung", "restart", "a")
    host, step = socket.gethostname(), failure["step"]
    assert (failure["host"], failure["rank"]) == (host, 0) and step <= 6
    assert re.search(rf"a: rank 0 on {host} has not answered for \d+ s, last seen in \w+", (tmp_path / "log").read_text())
    (adapter,) = [line for line in ledger(run_dir) if line["event"] == "adapter"]
    assert adapter["resumed_from"] == 4


def piped(folder: Path, splits: Path) -> dict:
    """Makes a Kaldi data set of the splits of a tiny one, whose audio comes through `cat`; returns its block."""
    for split in ("train", "dev", "test"):
        rows = [json.loads(line) for line in (splits / f"{split}.jsonl").read_text().splitlines()]
        (folder / split).mkdir(parents=True)
        for name, line in (("wav.scp", "cat {path} |"), ("text", "{text}")):
            lines = [f"u{n} {line.format(path=splits / row['audio_filepath'], text=row['text'])}" for n, row in enumerate(rows)]
            (folder / split / name).write_text("\n".join(lines) + "\n")
    block = {"format": "kaldi", "source": str(folder), "language": "en", "allow_pipes": ["cat"]}
    return block | {"splits": {name: name for name in ("train", "dev", "test")}}


@pytest.mark.slow
def test_audio_that_never_ends_in_this_process_is_named_and_the_run_goes_on_later(tmp_path: Path) -> None:
    config = tiny.make_config(
        tmp_path, rounds=[["a"]], train={"max_steps": 12, "checkpoint_every": 2}, evaluate={"adapters": False}
    )
    tree = yaml.safe_load(config.read_text())
    tree["datasets"]["a"] = piped(tmp_path / "kaldi", tmp_path / "a")
    config.write_text(yaml.safe_dump(tree))
    wfc("run", config, f"run.dir={tmp_path / 'plain'}", "--plain")

    run_dir, held, clip = tmp_path / "runs" / "tiny", tmp_path / "held", tmp_path / "a" / "audio" / "train-0.flac"
    command = ("run", config, f"cluster.hang_timeout_s={LIMIT_S:g}", "--plain")
    process = start_wfc(*command, log=tmp_path / "log", WFC_HOLD_AT=f"checkpoint:2={held}")
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()
        os.replace(clip, tmp_path / "aside")
        os.mkfifo(clip)  # a program that reads it waits for ever
        held.unlink()
        assert process.wait(120) == 75, (tmp_path / "log").read_text()
    finally:
        kill_tree(process)
        os.close(os.open(clip, os.O_RDWR))  # ends what still waits for the pipe
    said = (tmp_path / "log").read_text()
    assert f"round 1, a: the process on {socket.gethostname()} has not moved for" in said and f"reading cat {clip}" in said
    (failure,) = [line for line in ledger(run_dir) if line["event"] == "failure"]
    assert (failure["kind"], failure["dataset"], failure["file"]) == ("hung", "a", f"cat {clip}") and failure["step"] >= 4
    assert json.loads(RunPaths(run_dir).status.read_text())["state"] == "interrupted"
    (log,) = run_dir.rglob("*coordinator*.log")
    assert "in _output" in log.read_text(), "the stack of the thread that reads"

    os.replace(tmp_path / "aside", clip)
    wfc(*command)
    assert Run(run_dir).base().sha256 == Run(tmp_path / "plain" / "tiny").base().sha256


@pytest.mark.slow
def test_audio_that_never_ends_is_named_by_evaluate(tmp_path: Path) -> None:
    config, clip = tiny.make_config(tmp_path, rounds=[["a"]]), tmp_path / "a" / "audio" / "test-0.flac"
    tree = yaml.safe_load(config.read_text())
    tree["datasets"]["a"] = piped(tmp_path / "kaldi", tmp_path / "a")
    config.write_text(yaml.safe_dump(tree))
    clip.unlink()
    os.mkfifo(clip)
    try:
        limits = ("cluster.hang_timeout_s=25", "cluster.start_timeout_s=25")  # loading the libraries shows no moves
        done = wfc("evaluate", tmp_path / "model", "--on", config, *limits, check=False)
    finally:
        os.close(os.open(clip, os.O_RDWR))  # ends what still waits for the pipe
    assert done.returncode == 75
    assert f"wfc: evaluate: the process on {socket.gethostname()} has not moved for" in done.stderr
    assert f"reading cat {clip}; look at the file and its mount, or raise cluster.hang_timeout_s" in done.stderr


def test_a_pipe_in_the_place_of_audio_is_refused_at_once(tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]])
    clip = tmp_path / "a" / "audio" / "train-0.flac"
    clip.unlink()
    os.mkfifo(clip)
    for command in ("audit", "run"):
        done = wfc(command, config, check=False)
        assert done.returncode == 2 and f"audio file {clip} is no file, but a folder, a pipe" in done.stderr
