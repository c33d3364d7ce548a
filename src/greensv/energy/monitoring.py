"""Reads any number of open meters and accounts for their joules: running totals, and nested or overlapping windows."""

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from greensv.energy.tally import OpenMeter, Reading, Tally
from greensv.energy.window import Edge, EnergyWindow, Window, difference
from greensv.errors import MeterError

__all__ = ["EnergyWindow", "Monitor", "OpenMeter", "Reading", "Window"]

logger = logging.getLogger(__name__)

Observer = Callable[[tuple[Reading, ...]], None]
GAP_INTERVALS = 3
"""Power not read for that many polling intervals is a gap."""
NUM_MARKS = 6
"""`power_w` looks back over so many polls."""


class Monitor:
    """Polls open meters from a thread of its own; a context manager that starts and stops it.

    Example::

        with Monitor(open_meters(choices)) as monitor:
            with monitor.window("training") as window:
                train()
            print(window.result.energy_j)

    Args:
        meters: the open meters; the monitor closes them when it stops.
        interval_s: seconds between two polls.
        clock: the monotonic clock, in seconds.
        synchronise: waits for the device at both edges of a window, so that a window holds the work done in it.
        max_failures: a meter failing that many times in a row makes the totals unavailable until it reads again.
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
        self._tallies = [Tally(m, gap_s=GAP_INTERVALS * interval_s, max_failures=max_failures) for m in meters]
        self._num_good_polls = [0] * len(self._tallies)
        self._clock = clock
        self._synchronise = synchronise
        self._lock = threading.Lock()
        self._notes: list[str] = []
        self._observers: list[Observer] = []
        self._observer_error: Exception | None = None
        self._marks: deque[tuple[float, float]] = deque(maxlen=NUM_MARKS)
        self._latest: tuple[float, float] = (0.0, 0.0)
        self._peak_power_w: float | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def meters(self) -> tuple[OpenMeter, ...]:
        """The meters it reads."""
        return tuple(tally.meter for tally in self._tallies)

    @property
    def power_w(self) -> float | None:
        """The power of all domains over the last few polls, in watts; None before one interval has passed."""
        with self._lock:
            if not self._marks or self._latest[0] - self._marks[0][0] < self._mark_spacing_s:
                return None
            return _slope(self._marks[0], self._latest)

    @property
    def peak_power_w(self) -> float | None:
        """The largest power between two polls so far, in watts; None before one interval has passed."""
        with self._lock:
            return self._peak_power_w

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything that went wrong with the meters since the start."""
        with self._lock:
            return tuple(self._notes)

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
        failures = [tally.failure for tally in self._tallies if tally.failure is not None]
        if failures:
            self._close_meters()
            raise failures[0]
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
        """Calls `observer` with the known totals after each poll of the polling thread, in that thread and unlocked.

        What it raises is logged, and raised again by the next `check`; after the next poll it is called all the same.
        """
        with self._lock:
            self._observers.append(observer)

    def poll(self) -> tuple[Reading, ...]:
        """Reads every meter now, in the calling thread, and returns the known totals as `known_totals` does."""
        with self._lock:
            return self._poll_locked()

    def totals(self, *, fresh: bool) -> tuple[Reading, ...]:
        """Returns the joules of each domain since the start; since the process started, for meters that count from it.

        Args:
            fresh: read the meters first; otherwise the totals of the latest poll.

        Raises:
            MeterError: a counter lost energy, or a meter keeps failing, so that the totals would be too low.
        """
        with self._lock:
            readings = self._poll_locked() if fresh else self._known_locked()
            self._raise_problem_locked()
            return readings

    def known_totals(self) -> tuple[Reading, ...]:
        """Returns the joules known at the latest poll, of broken meters too: what is booked before giving up."""
        with self._lock:
            return self._known_locked()

    def check(self) -> None:
        """Raises what an observer raised, once; then what `totals` would raise."""
        with self._lock:
            error, self._observer_error = self._observer_error, None
            if error is not None:
                raise error
            self._raise_problem_locked()

    @contextmanager
    def window(self, name: str) -> Iterator[Window]:
        """Measures the energy of a `with` block. Windows nest and overlap freely, in any thread.

        An exception in the block passes through; the window is closed all the same where the meters allow it.

        Raises:
            MeterError: on leaving, when the meters cannot tell the block's energy.
        """
        window = Window(name)
        self._wait_for_device()
        edge = self._open_edge()
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

    @property
    def _mark_spacing_s(self) -> float:
        return 0.9 * self.interval_s

    def _wait_for_device(self) -> None:
        if self._synchronise is not None:
            self._synchronise()

    def _open_edge(self) -> Edge:
        with self._lock:
            num_notes = len(self._notes)
            readings = self._poll_locked()
            return Edge(
                started_at=datetime.now(UTC),
                opened_at_s=self._clock(),
                readings=readings,
                num_polls=tuple(self._num_good_polls),
                num_notes=num_notes,
            )

    def _close(self, name: str, edge: Edge) -> EnergyWindow:
        with self._lock:
            readings = self._poll_locked()
            duration_s = self._clock() - edge.opened_at_s
            self._raise_problem_locked()
            for tally, before, now in zip(self._tallies, edge.num_polls, self._num_good_polls, strict=True):
                if now == before:
                    reason = tally.failure or "the monitor has stopped"
                    raise MeterError(f"energy window {name!r}: meter {tally.meter.name!r} was not read in it: {reason}")
            notes = tuple(dict.fromkeys(self._notes[edge.num_notes :]))
        return EnergyWindow(
            name=name,
            started_at=edge.started_at,
            duration_s=duration_s,
            readings=difference(edge.readings, readings),
            notes=notes,
        )

    def _run(self) -> None:
        while not self._stopping.wait(self.interval_s):
            readings = self.poll()
            with self._lock:
                observers = tuple(self._observers)
            for observer in observers:
                try:
                    observer(readings)
                except Exception as error:
                    logger.exception("an observer of the energy monitor failed")
                    with self._lock:
                        self._observer_error = error

    def _poll_locked(self) -> tuple[Reading, ...]:
        if self._is_closed:
            return self._known_locked()
        for index, tally in enumerate(self._tallies):
            self._notes += tally.poll()
            self._num_good_polls[index] += tally.failure is None
        readings = self._known_locked()
        if all(tally.failure is None for tally in self._tallies):
            self._mark(sum(reading.energy_j for reading in readings))
        return readings

    def _known_locked(self) -> tuple[Reading, ...]:
        return tuple(itertools.chain.from_iterable(tally.readings() for tally in self._tallies))

    def _raise_problem_locked(self) -> None:
        for tally in self._tallies:
            if problem := tally.problem:
                raise MeterError(problem) from tally.failure

    def _mark(self, energy_j: float) -> None:
        """Remembers a poll about an interval after the last one remembered: closer ones tell mostly noise."""
        self._latest = (self._clock(), energy_j)
        if self._marks and self._latest[0] - self._marks[-1][0] < self._mark_spacing_s:
            return
        if self._marks:
            self._peak_power_w = max(self._peak_power_w or 0.0, _slope(self._marks[-1], self._latest))
        self._marks.append(self._latest)

    def _close_meters(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                for tally in self._tallies:
                    tally.meter.session.close()


def _slope(before: tuple[float, float], now: tuple[float, float]) -> float:
    return (now[1] - before[1]) / (now[0] - before[0])
