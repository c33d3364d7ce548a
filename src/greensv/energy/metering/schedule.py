"""When which meter is read: each at its own interval, and soon again after a read that failed."""

import math
from collections.abc import Iterable, Sequence

NUM_RETRIES = 3
RETRY_PART = 0.1
"""Of a meter's interval, until a read that failed is tried again."""
ROUNDING = 1e-9


class Schedule:
    """Counts the time that should have passed, and knows no clock: who follows it waits `wait_s`, then calls
    `next_tick` or, where `is_retry_next`, `next_retries`.

    The meters are told apart by their place in `wanted_s`.

    Args:
        wanted_s: how often each meter wants to be read, in seconds; None: each `interval_s`.
        interval_s: seconds after which all of them are read.
    """

    def __init__(self, wanted_s: Sequence[float | None], *, interval_s: float) -> None:
        wanted = [interval_s if own_s is None else min(own_s, interval_s) for own_s in wanted_s]
        self._ticks_per_interval = math.ceil(interval_s / min(wanted, default=interval_s))
        self.tick_s = interval_s / self._ticks_per_interval
        self._read_every = [max(1, int(own_s / self.tick_s * (1 + ROUNDING))) for own_s in wanted]
        self._tick = 0
        self._now_s = 0.0
        """Since the latest tick."""
        self._retry_at_s: dict[int, float] = {}
        self._num_retries: dict[int, int] = {}

    @property
    def wait_s(self) -> float:
        """Seconds from what was done last to what is to be done next."""
        return min(self.tick_s, *self._retry_at_s.values(), math.inf) - self._now_s

    @property
    def is_retry_next(self) -> bool:
        """Whether reads that failed are to be tried again before the next tick."""
        return min(self._retry_at_s.values(), default=math.inf) < self.tick_s

    def interval_s(self, meter: int) -> float:
        """Returns the seconds between two reads of a meter."""
        return self._read_every[meter] * self.tick_s

    def num_reads(self, meter: int, *, num_intervals: int) -> int:
        """Returns how often a meter is read in so many intervals."""
        return math.ceil(num_intervals * self._ticks_per_interval / self._read_every[meter])

    def next_tick(self) -> list[int]:
        """Goes on to the next tick; returns the meters that are to be read then."""
        self._tick = (self._tick + 1) % self._ticks_per_interval
        self._now_s = 0.0
        due = [meter for meter, every in enumerate(self._read_every) if self.ends_interval or self._tick % every == 0]
        self._retry_at_s = {meter: at_s - self.tick_s for meter, at_s in self._retry_at_s.items() if meter not in due}
        for meter in due:
            self._num_retries.pop(meter, None)
        return due

    @property
    def ends_interval(self) -> bool:
        """Whether the latest tick was one at which all meters are read."""
        return self._tick == 0

    def next_retries(self) -> list[int]:
        """Goes on to the next moment at which reads that failed are tried again; returns their meters."""
        self._now_s = min(self._retry_at_s.values())
        due = [meter for meter, at_s in self._retry_at_s.items() if at_s <= self._now_s]
        for meter in due:
            del self._retry_at_s[meter]
        return due

    def retry(self, meters: Iterable[int]) -> None:
        """Plans another try of the meters, whose reads failed just now; none where they were tried often enough."""
        for meter in meters:
            num_retries = self._num_retries.get(meter, 0)
            if num_retries < NUM_RETRIES:
                self._num_retries[meter] = num_retries + 1
                self._retry_at_s[meter] = self._now_s + RETRY_PART * self.interval_s(meter)
