"""Names below FOLDER/tune, and what a run there said last."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TuneFolder:
    """Names below FOLDER/tune."""

    path: Path

    @property
    def stop(self) -> Path:
        """Exists once a stop was asked for; holds the reason."""
        return self.path / "stop"

    def config(self, run: str) -> Path:
        """Returns the configuration of a run, as `wfc run` reads it."""
        return self.path / "runs" / f"{run}.yaml"

    def log(self, run: str) -> Path:
        """Returns what the last attempt of a run has printed."""
        return self.path / "runs" / f"{run}.log"


def last_words(log: Path) -> str:
    """Returns the message with which the last attempt of a run ended, or where to look when it ended without one."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    _, has_message, message = f"\n{text}".rpartition("\nwfc: ")
    return message.strip() if has_message else f"ended without a word; see {log}"
