"""The `wfc` command: arguments in, messages and exit codes out; what it does is the public API of `wfc_dist`."""

import contextlib
import os
import signal
import sys

from wfc_dist import activity, caller
from wfc_dist.backends import memory
from wfc_dist.cli import streams
from wfc_dist.errors import EXIT_FAILED, EXIT_INTERRUPTED, WfcError, exit_code_of, explain_os, is_of_a_place

_COMPLETION = {"--install-completion", "--show-completion"}
"""Options that write a shell's completion, always of `wfc`: shells complete no `python -m wfc_dist`."""
_LONG = {"run", "stream", "compare", "sweep"}
"""Commands that a signal ends with EXIT_INTERRUPTED at any moment, and that outlive the reader of their output."""


def main() -> None:
    """Entry point: errors become one message and an exit code."""
    streams.fill_closed()
    if _LONG.isdisjoint(sys.argv[1:2]):
        _run()
        return
    streams.outlive_readers()
    memory.have_few_arenas()
    try:
        with caller.handled(_end_at_once):  # outside of a run, which handles signals itself
            _run()
    except SystemExit as ended:
        if activity.is_stuck and isinstance(ended.code, int):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ended.code)
        raise
    finally:
        for number in caller.SIGNALS:  # how it has ended stands
            signal.signal(number, signal.SIG_IGN)


def _end_at_once(number: int, frame: object) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"wfc: {signal.Signals(number).name}: stopped; the same command goes on\n".encode())
    os._exit(EXIT_INTERRUPTED)


def _run() -> None:
    try:
        from wfc_dist.cli.commands import app
    except ImportError:  # a package of the command line's own is broken: the doctor needs none
        if sys.argv[1:2] != ["doctor"]:
            raise
        from wfc_dist.doctor.run import main as diagnose

        sys.exit(diagnose(sys.argv[2:]))
    activity.may_end_process = True
    try:
        app(prog_name="wfc" if _COMPLETION.intersection(sys.argv[1:]) else None)
    except WfcError as error:
        print(f"wfc: {error.message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if not is_of_a_place(error):
            raise
        print(f"wfc: {explain_os(error)}", file=sys.stderr)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_FAILED)
