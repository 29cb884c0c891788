"""The `wfc` command: arguments in, messages and exit codes out; what it does is the public API of `wfc_dist`."""

import sys

from wfc_dist import activity
from wfc_dist.errors import EXIT_FAILED, WfcError, exit_code_of, explain_os

_COMPLETION = {"--install-completion", "--show-completion"}
"""Options that write a shell's completion, always of `wfc`: shells complete no `python -m wfc_dist`."""


def main() -> None:
    """Entry point: errors become one message and an exit code."""
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
        if error.filename is None:
            raise
        print(f"wfc: {explain_os(error)}", file=sys.stderr)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        sys.exit(EXIT_FAILED)
