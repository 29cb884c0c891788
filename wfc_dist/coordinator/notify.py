"""`run.notify`: a command that is told when an attempt ends, without a shell; the run never depends on the command."""

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
from typing import Literal

from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError

TIMEOUT_S = 30.0
logger = logging.getLogger(__name__)


def require_notifier(config: Config) -> None:
    """Raises ConfigError where the program of `run.notify` is not on this machine."""
    if config.run.notify is not None and shutil.which(program := shlex.split(config.run.notify)[0]) is None:
        raise ConfigError(f"run.notify: there is no program {program!r} here; install it, or give its whole path")


def notify(
    config: Config, state: Literal["done", "failed", "stopped"], message: str, exit_code: int, timeout_s: float = TIMEOUT_S
) -> None:
    """Runs the command of `run.notify` and waits for it; what goes wrong is only logged, by the program's name.

    The command gets WFC_STATE, WFC_RUN (the name), WFC_RUN_DIR, WFC_MESSAGE and WFC_EXIT_CODE in its environment. Neither its
    arguments nor its output are logged: they may hold secrets.

    Args:
        config: Of the run.
        state, message, exit_code: How the attempt ended.
        timeout_s: After that the command is killed, with all that it started.
    """
    if config.run.notify is None:
        return
    arguments = shlex.split(config.run.notify)
    facts = {"STATE": state, "RUN": config.run.name, "RUN_DIR": config.run_url() or str(config.run_dir().absolute()),
             "MESSAGE": message.replace("\0", ""), "EXIT_CODE": str(exit_code)}  # fmt: skip
    environment = os.environ | {f"WFC_{key}": value for key, value in facts.items()}
    quiet = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            arguments, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )  # fmt: skip
    except OSError as error:
        logger.warning("run.notify: %s did not start: %s", arguments[0], error.strerror)
        return
    try:
        if code := process.wait(timeout_s):
            logger.warning("run.notify: %s exited with %d", arguments[0], code)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        logger.warning("run.notify: %s took longer than %g s and was killed", arguments[0], timeout_s)
