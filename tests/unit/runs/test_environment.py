"""What is recorded of an attempt's environment."""

import json
import platform
import subprocess
import sys

import pytest
import torch

from wfc_dist.runs.environment import command_line, commit_of, describe_environment, driver, gpus


@pytest.mark.process
def test_versions_and_machine_of_this_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/wfc", "status"])
    facts = describe_environment()

    assert facts["python"] == platform.python_version() and facts["packages"]["torch"] == torch.__version__
    assert facts["num_cpus"] > 0 and facts["system"] and facts["command"] == "wfc status"
    assert json.loads(json.dumps(facts)) == facts
    assert all(facts.values()), "what is not known is left out"


@pytest.mark.parametrize(
    ("arguments", "typed"),
    [
        (["/a/bin/wfc", "run", "c.yaml", "run.name=two words"], "wfc run c.yaml 'run.name=two words'"),
        (["/a/wfc_dist/__main__.py", "run", "c.yaml"], "python -m wfc_dist run c.yaml"),
        (["-c"], ""),
        ([], ""),
    ],
)
def test_the_command_as_it_is_typed(arguments, typed):
    assert command_line(arguments) == typed


@pytest.mark.process
def test_the_commit_of_a_checkout(tmp_path):
    assert commit_of(tmp_path) == ""
    (tmp_path / "a").write_text("1")
    identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
    for command in (["init", "-q"], ["add", "a"], [*identity, "commit", "-qm", "m"], [*identity, "tag", "-a", "v1", "-m", "m"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)

    commit = commit_of(tmp_path)
    assert len(commit) == 40 and set(commit) <= set("0123456789abcdef")
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == f"{commit}-dirty"


def test_gpus_and_driver_as_the_driver_lists_them(tmp_path):
    for number in range(2):
        (tmp_path / "gpus" / f"0000:0{number}").mkdir(parents=True)
        (tmp_path / "gpus" / f"0000:0{number}" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 5\n")
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\nGCC version:  gcc version 12.2.0\n"
    (tmp_path / "version").write_text(text)

    assert gpus(tmp_path / "gpus") == ["NVIDIA H200", "NVIDIA H200"]
    assert driver(tmp_path / "version") == "570.86.15"
    assert (gpus(tmp_path / "none"), driver(tmp_path / "none")) == ([], "")
