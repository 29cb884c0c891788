"""The `wfc` command as a user types it: exit codes, messages, nothing written over."""

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from processes import kill_tree, start_wfc, wait_for, wfc
from transformers import WhisperForConditionalGeneration

from wfc_dist.merging import catalog
from wfc_dist.merging.factors import squared_norm_of
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.weights import base_chain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny.make_config(tmp_path_factory.mktemp("finished"), rounds=[["a", "b"], ["c"]])
    wfc("run", config, "--plain")
    return config


def run_dir(config: Path) -> Path:
    return config.parent / "runs" / "tiny"


def test_help_names_every_command() -> None:
    assert wfc("--version").stdout.startswith("wfc_dist 0.")
    text = wfc("--help").stdout
    commands = "run stream compare sweep plan audit status lineage report analyze stop evaluate average merge rebuild transcribe"
    assert all(f" {command} " in text for command in [*commands.split(), "export", "push", "diff", "config"])


def test_help_of_average_names_every_method() -> None:
    text = wfc("average", "--help").stdout
    assert all(f"{name}: {entry.summary}" in text for name, entry in catalog.METHODS.items())


def test_adapters_of_a_run_are_averaged_by_any_method(finished: Path, tmp_path: Path) -> None:
    adapters = [run_dir(finished) / "round-0001" / "adapters" / name for name in "ab"]
    wfc("average", *adapters, "--out", tmp_path / "ties", "--method", "ties", "--option", "density=0.5", "--norm", "mean")
    wfc("average", *adapters, "--out", tmp_path / "mean")
    norms = [sum(squared_norm_of(item) for item in base_chain.read_delta(tmp_path / name).values()) for name in ("ties", "mean")]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_a_finished_run_is_told_of_and_not_repeated(finished: Path) -> None:
    before = RunPaths(run_dir(finished)).ledger.read_text()
    done = wfc("run", finished, "--plain")
    added = RunPaths(run_dir(finished)).ledger.read_text().removeprefix(before)
    (line,) = map(json.loads, added.splitlines())
    assert line["event"] == "attempt" and line["environment"]["packages"]["torch"] == torch.__version__
    assert done.stdout.strip().endswith("base-0002")
    assert "new sets" in done.stderr or "BWT" in done.stderr


def test_status_lineage_and_report_tell_of_a_run(finished: Path) -> None:
    folder = run_dir(finished)
    assert "done" in wfc("status", folder).stdout
    lineage = wfc("lineage", folder).stdout
    assert "weight 0.5000" in lineage and "exactness gap" in lineage
    page = Path(wfc("report", folder).stdout.strip()).read_text()
    assert "<svg" in page and torch.__version__ in page and f"wfc_dist run {finished} --plain" in page
    assert json.loads(RunPaths(folder).status.read_text())["exit_code"] == 0


def test_plan_counts_what_a_run_trains(finished: Path) -> None:
    lines = map(json.loads, RunPaths(run_dir(finished)).ledger.read_text().splitlines())
    (num_trained,) = {line["num_trainable"] for line in lines if line["event"] == "adapter"}
    changed = json.loads((run_dir(finished) / "base-0001" / "manifest.json").read_text())["changed"]
    text = wfc("plan", finished).stdout
    assert f"{num_trained:,} parameters" in text and f"{len(changed)} of " in text


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_base_is_rebuilt_bit_for_bit(finished: Path, tmp_path: Path, index: int) -> None:
    out = tmp_path / "rebuilt"
    sha256 = wfc("rebuild", run_dir(finished), "--base", index, "--out", out).stdout.split()[1]
    base = run_dir(finished) / f"base-{index:04d}"
    assert sha256 == json.loads((base / "manifest.json").read_text())["sha256"]
    if index:
        ours, theirs = (WhisperForConditionalGeneration.from_pretrained(folder).state_dict() for folder in (out, base))
        assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_rebuild_refuses_a_changed_delta_and_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    copy = tmp_path / "run"
    shutil.copytree(run_dir(finished), copy)
    delta = RunPaths(copy).delta(1) / "delta.safetensors"
    tensors = load_file(delta)
    next(tensor for name, tensor in tensors.items() if name.endswith("lora_B"))[0, 0] += 1
    save_file(tensors, delta)
    done = wfc("rebuild", copy, "--base", 2, "--out", tmp_path / "out", check=False)
    assert done.returncode == 1 and "rebuilt from root and deltas" in done.stderr and not (tmp_path / "out").exists()


def test_transcribe_and_evaluate_take_runs_bases_and_adapters(finished: Path) -> None:
    folder, audio = run_dir(finished), finished.parent / "a" / "audio" / "test-0.flac"
    for model in (folder, folder / "base-0000", folder / "base-0001", folder / "round-0001" / "adapters" / "a"):
        wfc("transcribe", model, audio, "--language", "en")
    explained = wfc("evaluate", folder / "base-0001", "--on", finished, "--explain", "evaluate.language=detect").stdout
    assert "language detect" in explained and re.search(r"language_errors +│ +\d+\.\d", explained)
    refused = wfc("evaluate", folder / "base-0001", "--on", finished, "--explain", "--json", check=False)
    assert refused.returncode == 2 and "leave --json out" in refused.stderr
    table = wfc("evaluate", folder / "base-0001", "--on", finished).stdout
    matrix = json.loads((folder / "round-0001" / "evaluation" / "base-0001" / "scores.json").read_text())
    assert f"{100 * matrix['sets']['a']['rate']:.1f}" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "CONFIG", "train.lrr=1"], "unknown key"),
        (["run", "CONFIG", "train.lr=2"], "started with another configuration; changed: train.lr"),
        (["run", "CONFIG", "datasets.a.source=nowhere"], "nowhere"),
        (["run", "CONFIG", "run.name=new", "base.model=no/where"], "no folder and the hub did not give it"),
        (["run", "CONFIG", "run.name=new", "centralize.method=soup"], "centralize.method"),
        (["run", "CONFIG", "run.name=new", "train.precision=fp16"], "fp16 needs GPUs"),
        (["run", "none.yaml"], "cannot read"),
        (["status", "ROOT"], "not a run directory"),
        (["stop", "ROOT"], "not a run directory"),
        (["rebuild", "RUN", "--base", "9", "--out", "ROOT/x"], "no committed base 9"),
        (["average", "ROOT/model", "--out", "ROOT/x"], "not a PEFT adapter"),
        (["average", "ROOT/model", "--out", "ROOT/x", "--option", "density"], "not NAME=NUMBER, such as density=0.2"),
        (["average", "RUN/round-0001/adapters/a", "--out", "ROOT/x", "--method", "tie"], "did you mean 'ties'"),
        (["average", "RUN/round-0001/adapters/a", "--out", "ROOT/x", "--option", "density=1"], "no option of mean"),
        (["average", "RUN/round-0001/adapters/a", "--out", "ROOT/x", "--norm", "max"], "give own or mean"),
        (["average", "RUN/round-0001/adapters/a", "--out", "ROOT/x", "--method", "fisher"], "train.curvature"),
        (["merge", "ROOT/model", "RUN/round-0001/delta", "--out", "ROOT/model"], "not written over"),
        (["transcribe", "RUN", "none.wav"], "no such audio file"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(finished: Path, arguments: list[str], message: str) -> None:
    places = {"CONFIG": finished, "ROOT": finished.parent, "RUN": run_dir(finished)}
    filled = arguments
    for name, path in places.items():
        filled = [word.replace(name, str(path)) for word in filled]
    names = {path.name for path in finished.parent.iterdir()}
    done = wfc(*filled, check=False, HF_HUB_OFFLINE="1")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert {path.name for path in finished.parent.iterdir()} == names and not (
        finished.parent / "runs" / "new" / "base-0000"
    ).exists()


def _spoil_data(root: Path, what: str) -> None:
    rows = [json.loads(line) for line in (root / "a" / "train.jsonl").read_text().splitlines()]
    if what == "audio":
        (root / "a" / rows[0]["audio_filepath"]).unlink()
    elif what == "text":
        rows[0]["text"] = " "
    else:
        rows = []
    (root / "a" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("what", "message"), [("audio", "audio is missing"), ("text", "the text is empty"), ("rows", "no clips")]
)
def test_bad_data_is_found_before_anything_starts(tmp_path: Path, what: str, message: str) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]])
    _spoil_data(tmp_path, what)
    done = wfc("run", config, check=False)
    assert done.returncode == 2 and message in done.stderr and not (tmp_path / "runs").exists()


def test_a_nan_adapter_does_not_reach_the_base(tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a", "b"]])
    done = wfc("run", config, "train.lr=1e12", "train.schedule=constant", check=False)
    assert done.returncode == 1 and "lower train.lr" in done.stderr and "Traceback" not in done.stderr
    assert Run(tmp_path / "runs" / "tiny").base().index == 0
    assert json.loads((tmp_path / "runs" / "tiny" / "status.json").read_text())["state"] == "failed"


@pytest.mark.parametrize("how", ["signal", "stop"])
def test_stop_checkpoints_and_the_same_command_goes_on(finished: Path, tmp_path: Path, how: str) -> None:
    command = ("run", finished, f"run.dir={tmp_path / 'runs'}", "train.max_steps=4000", "train.checkpoint_every=4000")
    folder = tmp_path / "runs" / "tiny"
    process = start_wfc(*command, log=tmp_path / "log")
    try:
        assert wait_for(folder / "round-0001" / "training-curves" / "a.jsonl", process)
        second = wfc(*command, check=False)
        assert second.returncode == 75 and f"process {process.pid}" in second.stderr, "the second run names the first"
        if how == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            wfc("stop", folder)
        assert process.wait(120) == 75
    finally:
        kill_tree(process)
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    (checkpoint,) = (folder / "round-0001" / "training" / "a").glob("step-*")
    assert int(checkpoint.name.removeprefix("step-")) > 0
    assert "checkpoint at" in wfc("status", folder).stdout


def test_watching_ends_when_the_process_of_the_run_is_killed(finished: Path, tmp_path: Path) -> None:
    folder, held, said = tmp_path / "runs" / "tiny", tmp_path / "held", tmp_path / "said"
    process = start_wfc("run", finished, f"run.dir={tmp_path / 'runs'}", log=tmp_path / "log", WFC_HOLD_AT=f"train={held}")
    watching = None
    try:
        assert wait_for(held, process)
        watching = start_wfc("status", folder, "--watch", log=said)
        with pytest.raises(subprocess.TimeoutExpired):
            watching.wait(8)  # more than two looks: while the process lives, watching goes on
        kill_tree(process)
        assert watching.wait(60) == 1
    finally:
        kill_tree(process)
        if watching is not None:
            kill_tree(watching)
    lines = said.read_text().splitlines()
    assert lines[0].startswith("running") or "round 1" in lines[0]
    assert f"attempt 1 is running by its records, but process {process.pid} on " in lines[-1]
    assert lines[-1].endswith("the same `wfc run` goes on")
    wfc("run", finished, f"run.dir={tmp_path / 'runs'}", "--plain")
    assert "done" in wfc("status", folder, "--watch").stdout


def test_config_show_and_schema_are_complete(finished: Path) -> None:
    shown = yaml.safe_load(wfc("config", "show", finished, "train.lr=0.5").stdout)
    assert shown["train"]["lr"] == 0.5 and shown["evaluate"]["metric"] == "wer"
    assert "properties" in json.loads(wfc("config", "schema").stdout)
