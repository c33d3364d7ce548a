"""The power of the last few polls, and the highest so far."""

from collections import deque

NUM_MARKS = 6
"""`power_w` looks back over so many polls."""
SPACING = 0.9
"""A poll counts when so much of an interval has passed since the one before: closer ones tell mostly noise."""


class RecentPower:
    """Derives power from running joules. For one thread at a time: the monitor holds its lock.

    Args:
        interval_s: seconds between two polls.
    """

    def __init__(self, interval_s: float) -> None:
        self._spacing_s = SPACING * interval_s
        self._marks: deque[tuple[float, float]] = deque(maxlen=NUM_MARKS)
        self._latest = (0.0, 0.0)
        self._peak_w: float | None = None

    @property
    def power_w(self) -> float | None:
        """The power over the last few polls, in watts; None before one interval has passed."""
        if not self._marks or self._latest[0] - self._marks[0][0] < self._spacing_s:
            return None
        return _slope(self._marks[0], self._latest)

    @property
    def peak_w(self) -> float | None:
        """The largest power between two polls so far, in watts; None before one interval has passed."""
        return self._peak_w

    def add(self, at_s: float, energy_j: float) -> None:
        """Takes in the joules since the start, and when they were read."""
        self._latest = (at_s, energy_j)
        if self._marks and at_s - self._marks[-1][0] < self._spacing_s:
            return
        if self._marks:
            self._peak_w = max(self._peak_w or 0.0, _slope(self._marks[-1], self._latest))
        self._marks.append(self._latest)


def _slope(before: tuple[float, float], now: tuple[float, float]) -> float:
    return (now[1] - before[1]) / (now[0] - before[0])
