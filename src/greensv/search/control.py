"""How a search is told to stop: by Ctrl-C or SIGTERM (end cleanly), or by its budget."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from greensv.errors import BudgetError


class Interrupted(Exception):
    """The user asked to stop; what was measured is saved."""


class BudgetExhausted(BudgetError):
    """The lease and the account cannot pay for the next metering interval."""


class TooDear(BudgetError):
    """A training turned out to need more than is left; it was stopped early, and others may still fit."""

    def __init__(self, message: str, *, joules_per_step: float, seconds_per_step: float) -> None:
        super().__init__(message)
        self.joules_per_step = joules_per_step
        self.seconds_per_step = seconds_per_step


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Asks to stop at the next safe point."""
        self._event.set()

    @property
    def is_set(self) -> bool:
        """Whether someone asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raises Interrupted when someone asked to stop."""
        if self._event.is_set():
            raise Interrupted


@contextmanager
def stop_on_signals(request: StopRequest) -> Iterator[None]:
    """Turns SIGINT and SIGTERM into the stop request while the block runs. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.set()

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
