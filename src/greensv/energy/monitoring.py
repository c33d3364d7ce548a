"""Reads any number of open meters and accounts for their joules: running totals, and nested or overlapping windows."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.metering.recent_power import RecentPower
from greensv.energy.metering.tally import Tally
from greensv.energy.metering.window import Edge, EnergyWindow, Window
from greensv.errors import MeterError

__all__ = ["EnergyWindow", "Monitor", "OpenMeter", "Reading", "Window"]

logger = logging.getLogger(__name__)

Observer = Callable[[tuple[Reading, ...]], None]
ROUNDING = 1e-9


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
        interval_s: seconds between two polls; a meter with a shorter `poll_interval_s` is read that often in between.
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
        wanted_s = [_poll_interval_s(meter, interval_s) for meter in meters]
        self._num_ticks = math.ceil(interval_s / min(wanted_s, default=interval_s))
        self._polled_every = [max(1, int(wanted / self.tick_s * (1 + ROUNDING))) for wanted in wanted_s]
        self._tallies = [
            Tally(meter, interval_s=every * self.tick_s, max_failures=math.ceil(max_failures * self._num_ticks / every))
            for meter, every in zip(meters, self._polled_every, strict=True)
        ]
        self._tick = 0
        self._clock = clock
        self._synchronise = synchronise
        self._lock = threading.Lock()
        self._notes: list[str] = []
        self._observers: list[Observer] = []
        self._error: Exception | None = None
        # Joules of a meter that is slower than our polls come in lumps: power between two polls would be several times
        # the true one.
        self._recent = RecentPower(max(interval_s, 2 * self.resolution_s))
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    @property
    def meters(self) -> tuple[OpenMeter, ...]:
        """The meters it reads."""
        return tuple(tally.meter for tally in self._tallies)

    @property
    def tick_s(self) -> float:
        """Seconds between two calls of `tick` by the polling thread: those of the meter that is read most often."""
        return self.interval_s / self._num_ticks

    @property
    def resolution_s(self) -> float:
        """How often the slowest of the counters and sensors changes that are charged, in seconds; 0 without any."""
        return max((tally.meter.availability.resolution_s for tally in self._charged), default=0.0)

    @property
    def power_w(self) -> float | None:
        """The power of all domains over the last few polls, in watts; None before one interval has passed."""
        with self._lock:
            return self._recent.power_w

    @property
    def peak_power_w(self) -> float | None:
        """The largest power between two polls so far, in watts; None before one interval has passed."""
        with self._lock:
            return self._recent.peak_w

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
        failures = [tally.failure for tally in self._charged if tally.failure is not None]
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
        """Calls `observer` with the known totals each `interval_s`, in the polling thread and unlocked.

        What it raises is logged, and raised again by the next `check`; after the next poll it is called all the same.
        """
        with self._lock:
            self._observers.append(observer)

    def tick(self) -> None:
        """What the polling thread does each `tick_s`: reads the meters whose time has come, and tells the observers."""
        self._tick = (self._tick + 1) % self._num_ticks
        if self._tick:
            with self._lock:
                for tally, every in zip(self._tallies, self._polled_every, strict=True):
                    if self._tick % every == 0 and not self._is_closed:
                        self._notes += tally.poll()
            return
        readings = self.poll()
        with self._lock:
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
        """Raises what an observer or the polling thread raised, once; then what `totals` would raise."""
        with self._lock:
            error, self._error = self._error, None
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

    def _wait_for_device(self) -> None:
        if self._synchronise is not None:
            self._synchronise()

    def _open_edge(self) -> Edge:
        with self._lock:
            num_notes = len(self._notes)
            self._poll_locked(Tally.poll_edge)
            at_s = self._clock()
            return Edge(
                started_at=datetime.now(UTC),
                at_s=at_s,
                tallies=tuple(tally.edge(at_s) for tally in self._tallies),
                num_notes=num_notes,
            )

    def _close(self, name: str, edge: Edge) -> EnergyWindow:
        readings: list[Reading] = []
        with self._lock:
            self._poll_locked(Tally.poll_edge)
            at_s = self._clock()
            notes = self._notes[edge.num_notes :]
            for tally, opening in zip(self._tallies, edge.tallies, strict=True):
                try:
                    if tally.meter.is_charged and tally.problem is not None:
                        raise MeterError(tally.problem) from tally.failure
                    found, held = tally.since(opening, at_s)
                except MeterError as error:
                    if tally.meter.is_charged:
                        known_j = tally.known_since(opening)
                        raise MeterError(
                            f"energy window {name!r}: {error}; it had read {known_j:.6g} J by then"
                        ) from error
                    notes.append(f"left out of the window: {error}")
                else:
                    readings += found
                    notes += held
        return EnergyWindow(
            name=name,
            started_at=edge.started_at,
            duration_s=at_s - edge.at_s,
            readings=tuple(reading for reading in readings if reading.role == "charged"),
            others=tuple(reading for reading in readings if reading.role != "charged"),
            notes=tuple(dict.fromkeys(notes)),
        )

    def _run(self) -> None:
        while not self._stopping.wait(self.tick_s):
            try:
                self.tick()
            except Exception as error:
                logger.exception("the energy meters could not be polled")
                self._keep(error)

    def _keep(self, error: Exception) -> None:
        with self._lock:
            self._error = error

    @property
    def _charged(self) -> list[Tally]:
        return [tally for tally in self._tallies if tally.meter.is_charged]

    def _poll_locked(self, poll: Callable[[Tally], list[str]] = Tally.poll) -> tuple[Reading, ...]:
        if self._is_closed:
            return self._known_locked()
        for tally in self._tallies:
            self._notes += poll(tally)
        readings = self._known_locked()
        if all(tally.failure is None for tally in self._charged):
            self._recent.add(self._clock(), sum(reading.energy_j for reading in readings))
        return readings

    def _known_locked(self) -> tuple[Reading, ...]:
        return tuple(reading for tally in self._charged for reading in tally.readings() if reading.role == "charged")

    def _raise_problem_locked(self) -> None:
        for tally in self._charged:
            if problem := tally.problem:
                raise MeterError(problem) from tally.failure

    def _close_meters(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                for meter in self.meters:
                    _close(meter)


def _poll_interval_s(meter: OpenMeter, interval_s: float) -> float:
    wanted_s = meter.availability.poll_interval_s
    return interval_s if wanted_s is None else min(wanted_s, interval_s)


def _close(meter: OpenMeter) -> None:
    try:
        meter.session.close()
    except Exception as error:
        if meter.is_charged:
            raise
        logger.warning("meter %r could not be closed: %s", meter.name, error)
