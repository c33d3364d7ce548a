"""All open meters together: each is read when its time has come, and their joules are told together."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.metering.recent_power import RecentPower
from greensv.energy.metering.schedule import Schedule
from greensv.energy.metering.tally import Tally
from greensv.energy.metering.window import Edge, EnergyWindow, window_between
from greensv.errors import MeterError

logger = logging.getLogger(__name__)


class Tallies:
    """Reads open meters and adds up what they say. For one thread at a time: the monitor holds its lock.

    Args:
        meters: the open meters.
        interval_s: seconds between two polls of all of them.
        clock: the monotonic clock, in seconds.
        max_failures: a meter failing for that many intervals in a row is a problem.
    """

    def __init__(
        self, meters: Sequence[OpenMeter], *, interval_s: float, clock: Callable[[], float], max_failures: int
    ) -> None:
        self.schedule = Schedule([meter.availability.poll_interval_s for meter in meters], interval_s=interval_s)
        self.notes: list[str] = []
        """Everything that went wrong with the meters since the start."""
        self._clock = clock
        self._tallies = [
            Tally(
                meter,
                interval_s=self.schedule.interval_s(index),
                max_failures=self.schedule.num_reads(index, num_intervals=max_failures),
            )
            for index, meter in enumerate(meters)
        ]
        # Joules of a meter that is slower than our polls come in lumps: power between two polls would be several times
        # the true one.
        self.recent_power = RecentPower(max(interval_s, 2 * self.resolution_s))
        self._is_closed = False

    @property
    def meters(self) -> tuple[OpenMeter, ...]:
        """The meters it reads."""
        return tuple(tally.meter for tally in self._tallies)

    @property
    def resolution_s(self) -> float:
        """How often the slowest of the counters and sensors changes that are charged, in seconds; 0 without any."""
        return max((tally.meter.availability.resolution_s for tally in self._charged), default=0.0)

    @property
    def failure(self) -> MeterError | None:
        """Why a meter that is charged could not be read the last time; None where all were."""
        return next((tally.failure for tally in self._charged if tally.failure is not None), None)

    def known(self) -> tuple[Reading, ...]:
        """Returns the joules of what is charged, as far as they were read."""
        return tuple(reading for tally in self._charged for reading in tally.readings() if reading.role == "charged")

    def check(self) -> None:
        """Raises a MeterError where what is `known` is too low: a counter lost energy, or a meter keeps failing."""
        for tally in self._charged:
            if problem := tally.problem:
                raise MeterError(problem) from tally.failure

    def tick(self) -> None:
        """Reads the meters whose time has come; `schedule.ends_interval` then says whether these were all of them."""
        self._read(self.schedule.next_tick(), Tally.poll)

    def retry(self) -> None:
        """Reads the meters again that could not be read and whose time for another try has come."""
        self._read(self.schedule.next_retries(), Tally.retry)

    def poll(self) -> tuple[Reading, ...]:
        """Reads every meter now; returns the joules known then."""
        self._poll_all(Tally.poll)
        return self.known()

    def edge(self) -> Edge:
        """Reads every meter now; returns what a window that opens is to remember."""
        num_notes = len(self.notes)
        self._poll_all(Tally.poll_edge)
        at_s = self._clock()
        return Edge(
            started_at=datetime.now(UTC),
            at_s=at_s,
            tallies=tuple(tally.edge(at_s) for tally in self._tallies),
            num_notes=num_notes,
        )

    def window_since(self, edge: Edge, name: str) -> EnergyWindow:
        """Reads every meter now; returns the window from an edge on. Raises as `window_between` does."""
        self._poll_all(Tally.poll_edge)
        return window_between(name, edge, self._tallies, now_s=self._clock(), notes=self.notes[edge.num_notes :])

    def close(self) -> None:
        """Closes the meters. What was read stays."""
        if not self._is_closed:
            self._is_closed = True
            for meter in self.meters:
                _close(meter)

    @property
    def _charged(self) -> list[Tally]:
        return [tally for tally in self._tallies if tally.meter.is_charged]

    def _poll_all(self, poll: Callable[[Tally], list[str]]) -> None:
        if self._is_closed:
            return
        for tally in self._tallies:
            self.notes += poll(tally)
        self._add_power()

    def _read(self, due: Sequence[int], read: Callable[[Tally], list[str]]) -> None:
        if self._is_closed:
            return
        for index in due:
            self.notes += read(self._tallies[index])
        # A meter that is given up is left to its interval: trying may take its time.
        failed = [index for index in due if self._tallies[index].failure and self._tallies[index].problem is None]
        self.schedule.retry(failed)
        if self.schedule.ends_interval:
            self._add_power()

    def _add_power(self) -> None:
        if self.failure is None:
            self.recent_power.add(self._clock(), sum(reading.energy_j for reading in self.known()))


def _close(meter: OpenMeter) -> None:
    try:
        meter.session.close()
    except Exception as error:
        if meter.is_charged:
            raise
        logger.warning("meter %r could not be closed: %s", meter.name, error)
