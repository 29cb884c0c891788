"""The files below FOLDER/tune, and the last message of a run there."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TuneFolder:
    """The files below FOLDER/tune."""

    path: Path

    @property
    def stop(self) -> Path:
        """The file that asks the trials to stop; its text is the reason."""
        return self.path / "stop"

    def config(self, run: str) -> Path:
        """Returns the configuration file of a run, which `wfc run` reads."""
        return self.path / "runs" / f"{run}.yaml"

    def log(self, run: str) -> Path:
        """Returns the file with the output of the last attempt of a run."""
        return self.path / "runs" / f"{run}.log"


def last_words(log: Path) -> str:
    """Returns the message with which the last attempt of a run ended, or where to look when it ended without one."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    _, has_message, message = f"\n{text}".rpartition("\nwfc: ")
    return message.strip() if has_message else f"ended without a word; see {log}"
