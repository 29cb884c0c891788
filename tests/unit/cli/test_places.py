"""Places that cannot be read or written: one line, and an exit code that says whether trying again can help."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wfc_dist import cli
from wfc_dist.errors import ConfigError, GateError, exit_code_of, explain_os, is_of_a_place


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.EACCES, 2, "out/x: Permission denied; give another place"),
        (errno.EROFS, 2, "out/x: Read-only file system; give another place"),
        (errno.ENOTDIR, 2, "out/x: Not a directory; move it away, or give another place"),
        (errno.ENOSPC, 75, "out/x: No space left on device; free space there, and run the same command again"),
        (errno.EDQUOT, 75, "out/x: Disk quota exceeded; free space there, and run the same command again"),
        (errno.EIO, 1, "out/x: Input/output error; give another place"),
    ],
)
def test_what_the_system_says_becomes_a_line_and_a_code(number: int, code: int, said: str) -> None:
    error = OSError(number, os.strerror(number), "out/x")
    assert explain_os(error) == said
    assert exit_code_of(error) == code


def test_other_errors_keep_their_codes() -> None:
    assert exit_code_of(ConfigError("x")) == 2
    assert exit_code_of(GateError("x")) == 1
    assert exit_code_of(ValueError("a mistake of the program")) == 1
    assert exit_code_of(OSError("without a place")) == 1


@pytest.mark.parametrize(
    ("why", "code", "said"),
    [
        ("[Errno 28] No space left on device: 'to/x'", 75, "to/x: No space left on device; free space there, and run the same"),
        ("[Errno 6] No such device or address: 'from/x'", 1, "from/x: No such device or address; give another place"),
    ],
)
def test_a_folder_that_is_not_copied_names_the_file(why: str, code: int, said: str) -> None:
    error = shutil.Error([("from/x", "to/x", why), ("from/y", "to/y", why)])
    assert is_of_a_place(error) and exit_code_of(error) == code
    assert explain_os(error).startswith(said)


def test_a_full_disk_is_told_although_no_file_is_named() -> None:
    assert is_of_a_place(OSError(errno.ENOSPC, "No space left on device"))
    assert exit_code_of(OSError(errno.ENOSPC, "No space left on device")) == 75
    assert not is_of_a_place(OSError("a mistake of the program"))


def test_the_command_ends_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "argv", ["wfc", "files", "configs", "--out", str(tmp_path / "file" / "x")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"wfc: {tmp_path / 'file'}")


@pytest.mark.process
def test_a_folder_for_transcripts_that_cannot_be_made_is_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    import soundfile

    (tmp_path / "file").touch()
    soundfile.write(tmp_path / "a.wav", [0.0] * 1600, 16_000)
    command = [sys.executable, "-m", "wfc_dist", "transcribe", "no-such-model", str(tmp_path / "a.wav"), "--format", "srt"]
    done = subprocess.run([*command, "--out", str(tmp_path / "file" / "x")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.strip() == f"wfc: {tmp_path / 'file' / 'x'}: Not a directory; move it away, or give another place"
