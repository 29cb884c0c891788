"""Text logs of a process."""

import logging
from pathlib import Path

import pytest

from wfc_dist import log


def test_a_log_that_the_disk_does_not_take_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.log").symlink_to("/dev/full")
    with log.put_back():
        log.configure(tmp_path / "x.log", console=False)
        logging.getLogger("wfc_dist.test").info("%s", "lost")
        assert capsys.readouterr().err == ""
        logging.getLogger("wfc_dist.test").info("%d", "no number")
        assert "no number" in capsys.readouterr().err
