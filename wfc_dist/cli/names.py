"""What is meant by a word that is no command of `wfc`."""

from typing import Any

from typer.core import TyperGroup

from wfc_dist.errors import nearest

OTHER_NAMES = {
    "train": "run", "fit": "run", "start": "run", "resume": "run", "continue": "run", "finetune": "run",
    "dry-run": "plan", "estimate": "plan", "check": "audit", "validate": "audit", "lint": "audit",
    "info": "status", "ps": "status", "list": "status", "ls": "status", "logs": "status", "progress": "status", "watch": "status",
    "cancel": "stop", "kill": "stop", "abort": "stop", "eval": "evaluate", "score": "evaluate", "test": "evaluate",
    "benchmark": "compare", "ablate": "compare", "tune": "sweep", "grid": "sweep", "history": "lineage", "tree": "lineage",
    "predict": "transcribe", "infer": "transcribe", "decode": "transcribe", "asr": "transcribe", "convert": "export",
    "upload": "push", "publish": "push", "html": "report", "plot": "report", "combine": "average", "fuse": "merge",
    "schema": "config", "docs": "config", "show": "config",
}  # fmt: skip
"""What other tools, or a user's own words, call a command -> ours."""


class Commands(TyperGroup):
    """A group of commands that says which command is meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Fails for an unknown command with the name of the one that is meant."""
        word, known = args[0], self.list_commands(ctx)
        if word not in known and not word.startswith("-") and not ctx.resilient_parsing:  # that is a shell's question
            other = OTHER_NAMES.get(word.lower(), "")
            ctx.fail(f"no such command: {word!r}{f'; did you mean {other!r}?' if other in known else nearest(word, known)}")
        return super().resolve_command(ctx, args)
