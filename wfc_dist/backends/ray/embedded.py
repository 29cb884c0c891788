"""A Ray node of this program's own: started again when it fails to start, kept from signals, watched, and ended even if it hangs.

Ray's processes are children of this one, and end with it. They start with SIGNALS blocked: a signal to the process group, or to
every process of a job, reaches this program alone, which has its trainers checkpoint. SIGKILL, which nobody can block, ends them.
"""

import atexit
import contextlib
import glob
import logging
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from wfc_dist import activity
from wfc_dist.backends.ray.start_limit import ends_after
from wfc_dist.caller import SIGNALS
from wfc_dist.errors import EXIT_INTERRUPTED, EXIT_USAGE, ConfigError, Interrupted, exit_code_of

logger = logging.getLogger(__name__)
VITAL = ("raylet", "gcs_server")
"""Names of the processes without which Ray is deaf."""
STARTS, PAUSE_S = 3, 2.0
POLL_S = 0.5
STOPPED_S = 15.0
"""Seconds after which a process that somebody has stopped (SIGSTOP) counts as lost."""
STARTING_S = 20.0
"""Seconds for which Ray may notice itself that a process is gone while it starts; after 60 it ends the program, with code 1."""
START_LIMIT_S = 300
"""Seconds that one start of Ray, or of a connection to it, may take."""
_TOO_LONG = "Ray has not started on this machine for minutes; look at its load and memory; the same command tries again"
SHUTDOWN_S = 10.0


def _print(message: str) -> None:
    print(f"wfc: {message}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class User:
    """Who uses the node, and is told of it.

    Attributes:
        say: Gets a line when Ray is started again.
        raise_if_stopped: Raises Interrupted when the user was asked to stop; gets when that was noticed, in words.
        lost: Gets a message, on another thread, when Ray is lost. Then the process ends with EXIT_INTERRUPTED if it is a command
            (`activity.may_end_process`), since calls of Ray that wait for what is lost may never return.
    """

    say: Callable[[str], None] = logger.warning
    raise_if_stopped: Callable[[str], None] = lambda when: None
    lost: Callable[[str], None] = _print


NOBODY = User()
_ERROR = re.compile(r"\[[^]]* [EFC] \d+ \d+\]")
_users: list[User] = []


@contextlib.contextmanager
def used_by(user: User) -> Iterator[None]:
    """Has `user` told of the node while the context lasts, in place of who is told outside of it."""
    _users.append(user)
    try:
        yield
    finally:
        _users.pop()


@contextlib.contextmanager
def node(store_bytes: int, user: User) -> Iterator[None]:
    """Starts Ray on the loopback address, and ends it at the end. If Ray is lost meanwhile, a command ends.

    Args:
        store_bytes: Size of the object store.
        user: See `User`.

    Raises:
        Interrupted: Ray did not start in STARTS attempts, or `user` was asked to stop.
        ConfigError: Ray refuses the settings of this machine.
    """
    with used_by(user):
        processes = _start(store_bytes, user)
        try:
            with _watched(lambda: processes, 0.0):
                yield
        finally:
            _shutdown(processes)


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def _children_but(before: Collection[psutil.Process]) -> list[psutil.Process]:
    return list(_children() - set(before))


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Blocks SIGNALS in this thread and in what it starts; those that come meanwhile arrive at the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(store_bytes: int, user: User) -> list[psutil.Process]:
    """Returns Ray's processes, each a child of this one."""
    for number in range(1, STARTS + 1):
        before = _children()
        try:
            with _watched(partial(_children_but, before), STARTING_S), ends_after(START_LIMIT_S, _TOO_LONG):
                _init(store_bytes)
            return _children_but(before)
        except Interrupted:  # by a signal
            _clear_away(_children_but(before))
            raise
        except Exception as error:  # Ray raises anything, also a bare Exception
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
            begun = _children_but(before)
            words = "".join(f"; {name} {how}" for name, how in _ended(begun)) + last_words()
            _clear_away(begun)
            if _is_of_settings(error):
                raise ConfigError(f"Ray does not start on this machine: {said}") from error
            user.raise_if_stopped("while Ray was started")
            if number == STARTS:
                raise Interrupted(
                    f"Ray did not start on this machine in {STARTS} attempts: {said}{words}; the same command tries again"
                ) from error
            user.say(f"Ray did not start, attempt {number} of {STARTS}: {said}{words}")
            time.sleep(PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def _init(store_bytes: int) -> None:
    import ray

    on_term, asked_to_end = signal.getsignal(signal.SIGTERM), False
    try:
        with _signals_blocked():
            ray.init(
                address="local", include_dashboard=False, object_store_memory=store_bytes, log_to_driver=False,
                logging_level=logging.ERROR,
            )  # fmt: skip
    except SystemExit:  # of the handler that ray.init sets for SIGTERM: another thread has received one
        asked_to_end = True
        raise RuntimeError("SIGTERM") from None
    finally:
        _take_back(on_term)
        if asked_to_end:
            signal.raise_signal(signal.SIGTERM)


def _is_of_settings(error: Exception) -> bool:
    """Says whether another attempt would fail likewise: a value that Ray refuses, a path too long, a folder that is closed."""
    refused = isinstance(error, ValueError) or (type(error) is OSError and error.errno is None)
    return refused or exit_code_of(error) == EXIT_USAGE


@contextlib.contextmanager
def beside(name: str, look: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `look` on a thread while the context lasts; it returns soon after the event that it gets is set."""
    over = threading.Event()
    watch = threading.Thread(target=look, args=(over,), name=name, daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watched(processes: Callable[[], Collection[psutil.Process]], patience_s: float) -> contextlib.AbstractContextManager[None]:
    return beside("ray-watch", partial(_watch, processes, patience_s))


def _watch(processes: Callable[[], Collection[psutil.Process]], patience_s: float, over: threading.Event) -> None:
    """Says when a vital process has been gone for more than `patience_s`, or stopped, and ends this one where that is allowed."""
    vital: dict[psutil.Process, str] = {}
    num_gone, num_stopped = Counter[psutil.Process](), Counter[psutil.Process]()  # polls: Ctrl-Z stops this process, too
    while not over.wait(POLL_S):
        vital |= {process: name for process in processes() if (name := _name(process)) in VITAL}
        for process, name in vital.items():
            state = _state(process)
            is_gone = state in (None, psutil.STATUS_ZOMBIE)
            num_gone[process] += is_gone
            num_stopped[process] = num_stopped[process] + 1 if state == psutil.STATUS_STOPPED else 0
            is_lost = is_gone and num_gone[process] * POLL_S > patience_s
            if (is_lost or num_stopped[process] * POLL_S >= STOPPED_S) and not over.is_set():
                how = _how_it_ended(process.pid) if is_gone else f"has been stopped (SIGSTOP) for {STOPPED_S:g} s"
                end(f"{name}, a part of Ray on this machine, {how}{last_words()}", [*processes(), *vital])
                return


def end(what: str, processes: Collection[psutil.Process]) -> None:
    """Tells the user that Ray is lost, and ends a command with EXIT_INTERRUPTED, and processes with it.

    Args:
        what: What was lost, and how.
        processes: Ray's own, where they belong to this program.
    """
    family = _with_children(processes)
    try:
        _users[-1].lost(f"{what}; the same command goes on from the last checkpoints")
    finally:
        if activity.may_end_process:
            _kill(family)
            os._exit(EXIT_INTERRUPTED)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _state(process: psutil.Process) -> str | None:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return None


def _ended(processes: Collection[psutil.Process]) -> list[tuple[str, str]]:
    """Returns name and end of the vital processes among `processes` that have ended."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() in VITAL and process.status() == psutil.STATUS_ZOMBIE:
                found.append((process.name(), _how_it_ended(process.pid)))
    return found


def _how_it_ended(pid: int) -> str:
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        ended = None
    if ended is None:
        return "is gone"
    if ended.si_code == os.CLD_EXITED:
        return f"ended with exit code {ended.si_status}"
    return f"was ended by {signal.Signals(ended.si_status).name}"


def _shutdown(processes: Collection[psutil.Process]) -> None:
    """Disconnects from Ray and ends its processes; those that hang are killed after SHUTDOWN_S."""
    family = _with_children(processes)
    vital = [process for process in processes if process.is_running() and process.name() in VITAL]
    _kill([process for process in processes if process not in vital])  # ray.shutdown would ask each to end, and wait a second
    limit = threading.Timer(SHUTDOWN_S, _kill, [vital])
    limit.daemon = True
    limit.start()
    try:
        disconnect()
    finally:
        limit.cancel()
        _kill(family)


def disconnect() -> None:
    """Calls `ray.shutdown` on another thread, and waits for 2 * SHUTDOWN_S at most.

    Ray gives SIGTERM back to the system on the way, which would end this process: the main thread takes it again at once.
    """
    import ray

    thread = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
    on_term, end_s = signal.getsignal(signal.SIGTERM), time.monotonic() + 2 * SHUTDOWN_S
    thread.start()
    while thread.is_alive() and time.monotonic() < end_s:
        thread.join(0.02)
        _take_back(on_term)
    if thread.is_alive():
        atexit.unregister(ray.shutdown)  # it would wait there again
        activity.is_stuck = True
        logger.warning("Ray did not disconnect within %g s", 2 * SHUTDOWN_S)


def _take_back(on_term: Any) -> None:
    """Has SIGTERM handled by `on_term` again, in place of Ray; elsewhere than in the main thread Python handles no signals."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)


def _clear_away(processes: Collection[psutil.Process]) -> None:
    """Ends what a start that failed has left behind."""
    family = _with_children(processes)
    _kill(processes)
    disconnect()
    _kill(family)


def _with_children(processes: Collection[psutil.Process]) -> list[psutil.Process]:
    family = list(processes)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            family += process.children(recursive=True)
    return family


def _kill(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def last_words() -> str:
    """Returns where the logs of this program's Ray are, and the last errors in them, as a part of a message; "" without logs."""
    roots = {os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp"} - {None}
    found = [path for root in roots for path in glob.glob(f"{glob.escape(str(root))}/ray/session_*_{os.getpid()}/*/gcs_server.*")]
    if not found:
        return ""
    folder = Path(max(found)).parent
    pairs = [(name, (_last_error(folder / f"{name}.out"), _last_line(folder / f"{name}.err"))) for name in VITAL]
    errors = [f"{name}: {line}" for name, lines in pairs for line in lines if line]
    return f" ({'; '.join([*errors, f'its logs are {folder}'])})"


def _last_error(path: Path) -> str:
    return next((line for line in reversed(_lines(path)) if _ERROR.match(line)), "")


def _last_line(path: Path) -> str:
    return next(reversed(_lines(path)), "")


def _lines(path: Path) -> list[str]:
    """Returns the last lines of a log that are not empty, each cut to 300 characters."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip()[:300] for line in text.splitlines()[-1000:] if line.strip()]
