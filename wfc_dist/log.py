"""Logging and events. Configured by entry points only: text for people, `events.jsonl` with start and end spans for reports."""

import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from wfc_dist import activity
from wfc_dist.storage import durable, faults

NOISY = ("transformers", "datasets", "peft", "accelerate", "deepspeed", "DeepSpeed", "torch", "ray", "urllib3", "httpx",
         "huggingface_hub", "matplotlib", "fsspec", "torch.distributed")  # fmt: skip

_context: dict[str, Any] = {}
_events_path: Path | None = None


def _add_context(record: logging.LogRecord) -> bool:
    record.context = " ".join(f"{key}={value}" for key, value in _context.items())
    return True


class _TextLog(logging.FileHandler):
    """A text log. What the disk does not take is lost; the work that needs the disk fails by itself."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Prints the traceback of a mistake in the call, as the library does for any error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Closes the file, also where the disk does not take its end."""
        with contextlib.suppress(OSError):
            super().close()


def configure(log_file: Path | None = None, *, console: bool = True) -> None:
    """Sets up the logging of this process: to standard error if `console`, and appended to `log_file`, whose folder is made.

    For entry points (command, actor) only.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)] if console else []
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_TextLog(log_file, encoding="utf-8"))
    for handler in handlers:
        handler.addFilter(_add_context)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(context)s %(name)s: %(message)s"))
    logger = logging.getLogger("wfc_dist")
    logger.handlers, logger.propagate = handlers, False
    logger.setLevel(logging.INFO)


def quiet_libraries() -> None:
    """Limits libraries to errors. Call it before importing them: some read their settings at import."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger(name).addFilter(_errors_only)  # DeepSpeed sets its own level when it is imported
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"torch|peft|transformers|deepspeed|accelerate")
    if "transformers" in sys.modules:
        sys.modules["transformers"].utils.logging.disable_progress_bar()


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """Puts back at the end what `configure`, `quiet_libraries`, `set_context` and `open_events` change in this process."""
    global _events_path
    loggers = [logging.getLogger(name) for name in ("wfc_dist", *NOISY)]
    before = [(logger.level, logger.propagate, list(logger.filters), list(logger.handlers)) for logger in loggers]
    context, events_path = dict(_context), _events_path
    shows_bars = "transformers" not in sys.modules or sys.modules["transformers"].utils.logging.is_progress_bar_enabled()
    try:
        yield
    finally:
        close()
        for logger, (level, propagate, filters, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate, logger.filters, logger.handlers = propagate, filters, handlers
        _context.clear()
        _context.update(context)
        _events_path = events_path
        if shows_bars and "transformers" in sys.modules:
            sys.modules["transformers"].utils.logging.enable_progress_bar()


def set_context(**fields: Any) -> None:
    """Sets fields of every later line and event of this process, such as round, dataset, world_rank."""
    _context.update(fields)


def open_events(path: Path) -> None:
    """Directs the events of this process to `path`. Each process has a file of its own, so that lines do not mix."""
    global _events_path
    path.parent.mkdir(parents=True, exist_ok=True)
    _events_path = path


def close() -> None:
    """Ends the text log and the events of this process: an entry point is done with the folder that they are in."""
    global _events_path
    _events_path = None
    logger = logging.getLogger("wfc_dist")
    for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()


def event(name: str, **fields: Any) -> None:
    """Appends one event: time_s since the epoch, name, context, fields. Does nothing before `open_events`."""
    if _events_path is not None:
        durable.append_line(_events_path, json.dumps({"time_s": time.time(), "event": name, **_context, **fields}))


Phase = Literal["training", "dev", "checkpoint", "scoring", "loading", "merging", "recording", "curvature", "fitting",
                "waiting for trainers"]  # fmt: skip
"""What a process spends its time on, in the order of the report's table."""


@contextlib.contextmanager
def span(name: str, *, phase: Phase, beside: bool = False, **fields: Any) -> Iterator[None]:
    """Records the start and the end of a piece of work; an end with `error` when it was left by an exception.

    Args:
        name: Names the work in events and in tests that kill a process there.
        phase: The report books the time of the work there.
        beside: A thread does the work beside the others: its time counts only while nothing else is open in the process.
        fields: Facts for both events.
    """
    fields |= {"phase": phase} | ({"beside": True} if beside else {})
    event(f"{name}.start", **fields)
    start = time.monotonic()
    try:
        with contextlib.nullcontext() if beside else activity.doing(name):
            faults.reached(name)
            yield
    except BaseException as error:
        event(f"{name}.end", duration_s=time.monotonic() - start, error=repr(error), **fields)
        raise
    event(f"{name}.end", duration_s=time.monotonic() - start, **fields)
    activity.moved()
