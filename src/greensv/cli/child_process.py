"""Runs another program as a shell would: its streams untouched, signals passed on, its end told as an exit code."""

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NOT_FOUND = 127
CANNOT_RUN = 126
FORWARDED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2})
HELD = FORWARDED | {signal.SIGCHLD}
Mask = frozenset[signal.Signals]
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class CannotRunError(Exception):
    """The program cannot be started: why, and the exit code that a shell would give."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def find_program(name: str) -> str:
    """Returns the path of a program, looked for as a shell does: in PATH, unless `name` has a slash.

    Raises:
        CannotRunError: there is none, or it is not for us to execute.
    """
    if path := shutil.which(name):
        return path
    if "/" in name and Path(name).exists():
        what = "is a folder" if Path(name).is_dir() else "may not be executed; chmod +x it, or name its interpreter"
        raise CannotRunError(f"{name} {what}", CANNOT_RUN)
    where = "there is no such file" if "/" in name else "no folder in PATH holds it"
    raise CannotRunError(f"{name}: command not found: {where}", NOT_FOUND)


@contextmanager
def held_signals() -> Iterator[Mask]:
    """Keeps signals for `run_program` inside the block, and yields the mask that the program is to have.

    To be entered before threads and helper processes are started: they inherit that Ctrl-C is not for them. Signals
    that arrive after the program has ended are dropped: there is nothing left to stop.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, children vanish without telling how they ended
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        yield frozenset(map(signal.Signals, before))
    finally:
        while signal.sigtimedwait(HELD, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_program(path: str, arguments: Sequence[str], *, mask: Mask) -> int:
    """Runs a program to its end inside `held_signals`, and returns its exit code; 128 + n where signal n ended it.

    A signal from another process is passed on. One from the terminal (Ctrl-C) is not: it has reached the program, too.

    Args:
        path: the program.
        arguments: its arguments, the name it is called by first.
        mask: the signals that are to be blocked in it.

    Raises:
        CannotRunError: it cannot be executed.
    """
    if early := signal.sigpending() & FORWARDED:
        return 128 + int(min(early))
    try:
        child = os.posix_spawn(path, list(arguments), os.environ, setsigmask=mask, setsigdef=IGNORED_BY_PYTHON)
    except OSError as error:
        message = f"{path} cannot be executed ({error.strerror}); is its interpreter there?"
        raise CannotRunError(message, CANNOT_RUN) from error
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        told = signal.sigwaitinfo(HELD)
        is_from_a_process = told.si_code <= 0  # SI_USER, SI_QUEUE, SI_TKILL; the kernel's own are above
        if told.si_signo in FORWARDED and is_from_a_process:
            os.kill(child, told.si_signo)
