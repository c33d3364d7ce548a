"""The recent joules of one domain, as this process has read them: to count from where another process stopped."""

from bisect import bisect_right
from collections import deque

from greensv.energy.meter import Availability, CounterSample, PowerSample, Sample
from greensv.energy.metering.unwrap import counter_step_j, power_step_j
from greensv.energy.sharing.rows import Mark
from greensv.errors import MeterError

NUM_POINTS = 2048
"""More than three minutes at ten readings a second: an owner that falls silent is replaced sooner."""


class Trace:
    """Remembers how the joules of a domain grew. For one thread at a time.

    Args:
        about: what the meter says of itself.
    """

    def __init__(self, about: Availability) -> None:
        self._about = about
        self._points: deque[tuple[float, float]] = deque(maxlen=NUM_POINTS)
        self._first: Sample | None = None

    def add(self, sample: Sample, step_j: float) -> None:
        """Takes in a sample and the joules since the one before it."""
        self._first = self._first or sample
        self._points.append((sample.taken_at_s, (self._points[-1][1] if self._points else 0.0) + step_j))

    def energy_j(self, before: Mark, now: Sample, *, meter: str) -> float:
        """Returns the joules from `before` to `now`, one of the samples taken in.

        Exactly, where both are counts of the same counter. Otherwise what was read here between the two moments, and
        for power a straight line to the first reading where `before` is older than that.

        Raises:
            MeterError: `before` is older than this process's first reading, and of a counter that it cannot go on from.
        """
        about = self._about
        if before.meter == meter and isinstance(before.sample, CounterSample) and isinstance(now, CounterSample):
            try:
                return counter_step_j(
                    before.sample, now, max_power_w=about.max_power_w, resolution_s=about.resolution_s
                )
            except MeterError:
                pass  # too long ago to tell the number of wraps; this process has read the counter all along
        return max(0.0, self._until_j(now.taken_at_s) - self._until_j(before.sample.taken_at_s)) + self._older_j(before)

    def _until_j(self, at_s: float) -> float:
        points = list(self._points)
        index = bisect_right(points, (at_s, float("inf")))
        if index == 0:
            return points[0][1]
        if index == len(points):
            return points[-1][1]
        (from_s, from_j), (to_s, to_j) = points[index - 1], points[index]
        return from_j + (to_j - from_j) * (at_s - from_s) / (to_s - from_s)

    def _older_j(self, before: Mark) -> float:
        assert self._first is not None
        if before.sample.taken_at_s >= self._first.taken_at_s:
            return 0.0
        if isinstance(before.sample, PowerSample) and isinstance(self._first, PowerSample):
            return power_step_j(before.sample, self._first)
        raise MeterError(
            f"{self._first.domain}: what it used before this process read it is not known: the counter was reset, or "
            f"is another than that of meter {before.meter!r}"
        )
