"""Reads any number of open meters from a thread: running totals, and nested or overlapping windows, for any thread."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.metering.tallies import Tallies
from greensv.energy.metering.window import Edge, EnergyWindow, Window
from greensv.errors import MeterError

__all__ = ["EnergyWindow", "Monitor", "OpenMeter", "Reading", "Window"]

logger = logging.getLogger(__name__)

Observer = Callable[[tuple[Reading, ...]], None]


class Monitor:
    """Polls open meters from a thread of its own; a context manager that starts and stops it.

    Totals, power and what observers see hold what is charged; what other meters read is in windows alone, and their
    failures end nothing.

    Example::

        with Monitor(open_meters(choices)) as monitor:
            with monitor.window("training") as window:
                train()
            print(window.result.energy_j)

    Args:
        meters: the open meters; the monitor closes them when it stops.
        interval_s: seconds between two polls; a meter with a shorter `poll_interval_s` is read that often in between,
            and one that could not be read is tried again after a tenth of its interval, three times at the most.
        clock: the monotonic clock, in seconds.
        synchronise: waits for the device at both edges of a window, so that a window holds the work done in it.
        max_failures: a meter failing for that many intervals in a row makes the totals unavailable until it reads
            again.
    """

    def __init__(
        self,
        meters: Sequence[OpenMeter],
        *,
        interval_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        synchronise: Callable[[], None] | None = None,
        max_failures: int = 5,
    ) -> None:
        self.interval_s = interval_s
        self._tallies = Tallies(meters, interval_s=interval_s, clock=clock, max_failures=max_failures)
        self._synchronise = synchronise
        self._lock = threading.Lock()
        self._observers: list[Observer] = []
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def meters(self) -> tuple[OpenMeter, ...]:
        """The meters it reads."""
        return self._tallies.meters

    @property
    def tick_s(self) -> float:
        """Seconds between two calls of `tick` by the polling thread: those of the meter that is read most often."""
        return self._tallies.schedule.tick_s

    @property
    def wait_s(self) -> float:
        """Seconds that the polling thread waits before it calls `advance` next."""
        return self._tallies.schedule.wait_s

    @property
    def resolution_s(self) -> float:
        """How often the slowest of the counters and sensors changes that are charged, in seconds; 0 without any."""
        return self._tallies.resolution_s

    @property
    def power_w(self) -> float | None:
        """The power of all domains over the last few polls, in watts; None before one interval has passed."""
        with self._lock:
            return self._tallies.recent_power.power_w

    @property
    def peak_power_w(self) -> float | None:
        """The largest power between two polls so far, in watts; None before one interval has passed."""
        with self._lock:
            return self._tallies.recent_power.peak_w

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything that went wrong with the meters since the start."""
        with self._lock:
            return tuple(self._tallies.notes)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Reads every meter once and starts the polling thread.

        Raises:
            MeterError: a meter cannot be read, so that there is nothing to count from. The meters are closed then.
        """
        self.poll()
        if (failure := self._tallies.failure) is not None:
            self._close_meters()
            raise failure
        self._thread = threading.Thread(target=self._run, name="greensv-meters", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the polling thread, reads a last time, and closes the meters. The totals stay."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.poll()
        self._close_meters()

    def add_observer(self, observer: Observer) -> None:
        """Calls `observer` with the known totals each `interval_s`, in the polling thread and unlocked.

        What it raises is logged, and raised again by the next `check`; after the next poll it is called all the same.
        """
        with self._lock:
            self._observers.append(observer)

    def advance(self) -> None:
        """What the polling thread does after each `wait_s`: a `tick`, or another try where a read has failed."""
        if not self._tallies.schedule.is_retry_next:
            self.tick()
            return
        with self._lock:
            self._tallies.retry()

    def tick(self) -> None:
        """What is done each `tick_s`: reads the meters whose time has come, and tells the observers."""
        with self._lock:
            self._tallies.tick()
            if not self._tallies.schedule.ends_interval:
                return
            readings = self._tallies.known()
            observers = tuple(self._observers)
        for observer in observers:
            try:
                observer(readings)
            except Exception as error:
                logger.exception("an observer of the energy monitor failed")
                self._keep(error)

    def poll(self) -> tuple[Reading, ...]:
        """Reads every meter now, in the calling thread, and returns the known totals as `known_totals` does."""
        with self._lock:
            return self._tallies.poll()

    def totals(self, *, fresh: bool) -> tuple[Reading, ...]:
        """Returns the joules of each domain since the start; since the process started, for meters that count from it.

        Args:
            fresh: read the meters first; otherwise the totals of the latest poll.

        Raises:
            MeterError: a counter lost energy, or a meter keeps failing, so that the totals would be too low.
        """
        with self._lock:
            readings = self._tallies.poll() if fresh else self._tallies.known()
            self._tallies.check()
            return readings

    def known_totals(self) -> tuple[Reading, ...]:
        """Returns the joules known at the latest poll, of broken meters too: what is booked before giving up."""
        with self._lock:
            return self._tallies.known()

    def check(self) -> None:
        """Raises what an observer or the polling thread raised, once; then what `totals` would raise."""
        with self._lock:
            error, self._error = self._error, None
            if error is not None:
                raise error
            self._tallies.check()

    @contextmanager
    def window(self, name: str) -> Iterator[Window]:
        """Measures the energy of a `with` block. Windows nest and overlap freely, in any thread.

        An exception in the block passes through; the window is closed all the same where the meters allow it.

        Raises:
            MeterError: on leaving, when the meters cannot tell the block's energy.
        """
        window = Window(name)
        self._wait_for_device()
        with self._lock:
            edge = self._tallies.edge()
        try:
            yield window
        except BaseException:
            try:
                window.close(self._close(name, edge))
            except MeterError as error:
                logger.warning("energy window %r, left by an exception, has no result: %s", name, error)
            raise
        self._wait_for_device()
        window.close(self._close(name, edge))

    def _wait_for_device(self) -> None:
        if self._synchronise is not None:
            self._synchronise()

    def _close(self, name: str, edge: Edge) -> EnergyWindow:
        with self._lock:
            return self._tallies.window_since(edge, name)

    def _run(self) -> None:
        while not self._stopping.wait(self.wait_s):
            try:
                self.advance()
            except Exception as error:
                logger.exception("the energy meters could not be polled")
                self._keep(error)

    def _keep(self, error: Exception) -> None:
        with self._lock:
            self._error = error

    def _close_meters(self) -> None:
        with self._lock:
            self._tallies.close()
