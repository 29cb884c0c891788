"""A run in which the audio of data set c is lost for the length of one attempt, and the events of a run."""

import shutil
from pathlib import Path

from processes import start_wfc, wait_for

from wfc_dist.runs.handle import Run


def run_damaged(path: Path, *more: object) -> tuple[int | None, str]:
    """Runs an attempt. The audio of c is emptied when the audit has passed it, and whole again after the attempt."""
    root, data = path.parent, path.parent / "c"
    held, log = root / "held", root / "log"
    shutil.copytree(data, root / "kept")
    process = start_wfc("run", path, *more, "--plain", log=log, WFC_HOLD_AT=f"open_root={held}")
    assert wait_for(held, process), log.read_text()
    for clip in (data / "audio").glob("train-*"):
        clip.write_bytes(b"")
    held.unlink()
    code = process.wait(300)
    shutil.rmtree(data)
    shutil.move(root / "kept", data)
    return code, log.read_text()


def events(opened: Run, kind: str) -> list[dict]:
    return [line for line in opened.ledger() if line["event"] == kind]
