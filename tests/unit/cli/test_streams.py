"""Standard streams that are closed, or whose reader goes away, of real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLOSED = """
import os, sys
os.close(1), os.close(2)
sys.stdout = sys.stderr = None  # as Python has them where it starts so
from wfc_dist.cli import streams
streams.fill_closed()
ledger = open(sys.argv[1], "w")
os.write(1, b"a library's words")
os.write(2, b"a library's words")
print("said to nobody")
print("said to nobody", file=sys.stderr)
ledger.write("a line")
"""

READER_GONE = """
import os, sys
from wfc_dist.cli import streams
streams.outlive_readers()
sys.stdin.read()
for _ in range(3):
    print("x" * 100_000)
    print("y", file=sys.stderr, flush=True)
open(sys.argv[1], "w").write("worked on")
sys.exit(75)
"""


@pytest.mark.process
def test_what_is_written_to_a_closed_stream_gets_into_no_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED, str(tmp_path / "ledger")], env=environment(), check=False)
    assert done.returncode == 0
    assert (tmp_path / "ledger").read_text() == "a line"


@pytest.mark.process
def test_a_process_works_on_when_the_reader_of_its_output_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READER_GONE, str(tmp_path / "file")]
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdin and process.stdout
    process.stdout.close()
    process.stdin.close()
    assert process.wait(60) == 75, "neither EPIPE, nor 120 of a flush at the end"
    assert (tmp_path / "file").read_text() == "worked on"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
