"""Programs that convert: what they write is kept, one that hangs is ended, one that is slow is not."""

import os
import sys
from pathlib import Path

import psutil
import pytest

from wfc_dist.errors import HungError
from wfc_dist.exporting import programs

pytestmark = pytest.mark.process

READS_FOR_EVER = """
import os, sys
sys.stdout.write(str(os.getpid()))
sys.stdout.flush()
open(sys.argv[2], "w").write(str(os.getpid()))
os.read(os.open(sys.argv[1], os.O_RDWR), 1)
"""
COMPUTES = """
import sys, time
end = time.monotonic() + 3
while time.monotonic() < end:
    sum(range(10000))
print("done")
sys.exit(3)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "POLL_S", 0.2)
    monkeypatch.setattr(programs, "STILL_S", 2.0)


def test_one_that_waits_for_ever_is_ended_and_named_with_its_file(tmp_path: Path) -> None:
    pipe, number = tmp_path / "weights.bin", tmp_path / "pid"
    os.mkfifo(pipe)
    with pytest.raises(HungError, match=f"convert.py has computed nothing for 2 s and is ended; it has open: {pipe}; look"):
        programs.run([sys.executable, "-c", READS_FOR_EVER, str(pipe), str(number)], "convert.py")
    assert not psutil.pid_exists(int(number.read_text()))


def test_one_that_is_slow_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "STILL_S", 1.5)
    done = programs.run([sys.executable, "-c", COMPUTES], "convert.py")
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\n", "")


def test_one_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        programs.run([str(tmp_path / "none")], "convert.py")
