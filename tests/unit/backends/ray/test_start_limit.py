"""The limit of the start of Ray: it ends a process whose only thread keeps Python's lock in C."""

import subprocess
import sys

import pytest

HELD = """
import ctypes, sys, time
from wfc_dist import activity
from wfc_dist.backends.ray.start_limit import ends_after
activity.may_end_process = sys.argv[1] == "command"
with ends_after(int(sys.argv[2]), "100 % of Ray has not started"):
    ctypes.PyDLL(None).sleep(int(sys.argv[3]))  # as ray.init: no other thread of Python runs
print("over")
time.sleep(3)
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "code", "said", "written"),
    [
        (("command", "1", "60"), 75, "wfc: 100 % of Ray has not started\n", ""),
        (("command", "2", "0"), 0, "", "over\n"),
        (("library", "1", "4"), 0, "", "over\n"),
    ],
)
def test_a_command_ends_with_75_and_says_why(words: tuple[str, ...], code: int, said: str, written: str) -> None:
    done = subprocess.run([sys.executable, "-c", HELD, *words], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, written)
