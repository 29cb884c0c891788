"""A process that hangs says where, and ends if it is a command or a job."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wfc_dist import activity
from wfc_dist.backends.hangs import Hang, Limits
from wfc_dist.backends.watchdog import Watchdog, stacks

HANGS = """
import os, sys
from wfc_dist import activity
from wfc_dist.backends.hangs import Limits
from wfc_dist.backends.watchdog import Watchdog

def read_for_ever(path):
    with activity.reading(path), open(path, "rb") as file:
        return file.read()

activity.may_end_process = sys.argv[2] == "ours"
activity.begin("es")
tell = lambda hang: print(hang.facts(), flush=True)
with Watchdog(Limits(2.0), tell):
    for step in range(3):
        activity.moved(step=step)
    read_for_ever(sys.argv[1])
print("read to its end")
"""


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    os.mkfifo(path)
    return path


def start(pipe: Path, whose: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HANGS, str(pipe), whose]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.process
def test_a_command_that_hangs_names_the_file_and_ends_so_that_it_can_be_tried_again(pipe: Path) -> None:
    process = start(pipe, "ours")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert out.startswith("{'rank': 0, 'step': 2") and f"'file': '{pipe}'" in out and "read to its end" not in out
    assert "nothing has moved for" in err and "in read_for_ever" in err, "the stack says where"


@pytest.mark.process
def test_the_program_of_a_user_is_told_once_and_left_alone(pipe: Path) -> None:
    process = start(pipe, "theirs")
    assert process.stdout is not None
    said = process.stdout.readline()
    assert str(pipe) in said
    with open(pipe, "wb"):  # what hangs comes to its end
        pass
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "read to its end\n"


def test_work_that_moves_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Hang] = []
    looked = threading.Event()
    monkeypatch.setattr("wfc_dist.backends.watchdog.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(activity, "now", lambda: looked.set() or activity.Activity(idle_s=0.9))
    with Watchdog(Limits(1.0), told.append):
        assert looked.wait(30)
    assert not told


def test_the_stacks_are_those_of_the_other_threads() -> None:
    here, leave = threading.Event(), threading.Event()

    def waits_there() -> None:
        here.set()
        leave.wait(30)

    thread = threading.Thread(target=waits_there, name="loader_0")
    thread.start()
    here.wait(30)
    said = stacks()
    leave.set()
    thread.join()
    assert "loader_0:" in said and "in waits_there" in said and "in stacks" not in said


TRANSCRIBES = """
import sys
from pathlib import Path
from wfc_dist.backends import hangs
from wfc_dist.data import audio_paths, audio_streams
hangs.LEAST_S = 2.0
# a file on a dead mount looks like any other, until it is read
audio_paths._found_at = lambda place: [audio_paths.FoundAudio(place, Path(place.name))]
audio_streams.facts_of = lambda path: open(path, "rb").read()
from wfc_dist.cli import main
sys.argv = ["wfc", "transcribe", "no-model", sys.argv[1]]
main()
"""


@pytest.mark.process
def test_a_command_without_a_configuration_names_the_file_that_it_waits_for(pipe: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRANSCRIBES, str(pipe)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 75, done.stderr
    assert "wfc: transcribe: the process on " in done.stderr and f"reading {pipe}; look at the file and its mount" in done.stderr
    assert "then run the same command" in done.stderr and "hang_timeout_s" not in done.stderr
