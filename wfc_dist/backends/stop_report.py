"""What is said of each training when a run is stopped: the last line of the command, status.json and the ledger say the same."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from wfc_dist.errors import Interrupted

MOST_NAMES, MOST_LETTERS = 20, 100  # of one kind, and of a reason, in the message; status.json and the ledger have all


@dataclass(frozen=True)
class Ending:
    """How the training of one data set has ended.

    Attributes:
        kind: "checkpointed" on request; "lost" while it was asked to stop; "late": no answer in time; "waiting" for a trainer.
        step: Optimizer steps in the checkpoint; None where nobody has said so.
        host: Where it ran; "" where it waited.
        reason: Why it was lost.
    """

    kind: Literal["checkpointed", "lost", "late", "waiting"]
    step: int | None = None
    host: str = ""
    reason: str = ""

    def __str__(self) -> str:
        step = f" at step {self.step}" if self.step is not None else ""
        host = f" on {self.host}" if self.host and self.kind != "checkpointed" else ""
        return step + host + (f" ({self.reason[:MOST_LETTERS]})" if self.reason else "")


WAITING = Ending("waiting")


def stopped(reason: str | None, endings: Mapping[str, Ending]) -> Interrupted:
    """Returns the error that ends a run that was asked to stop: data set -> how its training has ended, by name."""

    def named(kind: str) -> str:
        names = [f"{name}{ending}" for name, ending in endings.items() if ending.kind == kind]
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        return ", ".join(names[:MOST_NAMES]) + more

    lost, late = named("lost"), named("late")
    parts = {
        "checkpointed: " if lost or late else "every trainer has checkpointed: ": named("checkpointed"),
        "lost while stopping, without a new checkpoint: ": lost,
        "no checkpoint in time: ": late,
        "waiting for a trainer: ": named("waiting"),
    }
    said = "; ".join(f"{label}{names}" for label, names in parts.items() if names)
    facts = {name: {key: fact for key, fact in asdict(end).items() if fact not in (None, "")} for name, end in endings.items()}
    return Interrupted(f"{reason}: {said or 'stopped'}; the same command goes on", trainers=facts)
