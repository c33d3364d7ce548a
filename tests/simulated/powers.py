"""Power that is known at every moment, and hardware that shows it as RAPL and NVML do: late, cut to units, wrapping."""

import bisect
import random
from collections.abc import Callable, Sequence
from itertools import pairwise

from greensv.energy.meter import CounterSample, Domain, MeterSession, PowerSample, Sample
from greensv.errors import MeterError

Clock = Callable[[], float]


class PowerCurve:
    """Power as a function of time, straight between given points, with its exact integral from time 0.

    Args:
        points: (seconds, watts) in order of time, from 0 on; two at one time are a jump. Constant after the last.
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        self._times_s = [time_s for time_s, _ in points]
        self._powers_w = [power_w for _, power_w in points]
        self._energies_j = [0.0]
        for (before_s, before_w), (now_s, now_w) in pairwise(points):
            self._energies_j.append(self._energies_j[-1] + (before_w + now_w) / 2 * (now_s - before_s))

    def power_w(self, at_s: float) -> float:
        """Returns the watts at a moment; of a jump, those after it."""
        index = bisect.bisect_right(self._times_s, at_s) - 1
        if index + 1 == len(self._times_s):
            return self._powers_w[index]
        share = (at_s - self._times_s[index]) / (self._times_s[index + 1] - self._times_s[index])
        return self._powers_w[index] + share * (self._powers_w[index + 1] - self._powers_w[index])

    def energy_j(self, at_s: float) -> float:
        """Returns the joules from time 0 to a moment."""
        index = bisect.bisect_right(self._times_s, at_s) - 1
        since_s = at_s - self._times_s[index]
        return self._energies_j[index] + (self._powers_w[index] + self.power_w(at_s)) / 2 * since_s


def constant(power_w: float) -> PowerCurve:
    """The same power at all times."""
    return PowerCurve([(0.0, power_w)])


def step(low_w: float, high_w: float, *, at_s: float) -> PowerCurve:
    """A jump."""
    return PowerCurve([(0.0, low_w), (at_s, low_w), (at_s, high_w)])


def ramp(low_w: float, high_w: float, *, from_s: float, to_s: float) -> PowerCurve:
    """A straight rise."""
    return PowerCurve([(0.0, low_w), (from_s, low_w), (to_s, high_w)])


def bursts(
    rng: random.Random, *, low_w: float, high_w: float, mean_low_s: float, mean_high_s: float, length_s: float
) -> PowerCurve:
    """Jumps between two levels, staying at each for times drawn from exponential distributions."""
    at_s, is_high = 0.0, rng.random() < mean_high_s / (mean_high_s + mean_low_s)
    points = [(0.0, high_w if is_high else low_w)]
    while at_s < length_s:
        at_s += rng.expovariate(1 / (mean_high_s if is_high else mean_low_s))
        points.append((at_s, points[-1][1]))
        is_high = not is_high
        points.append((at_s, high_w if is_high else low_w))
    return PowerCurve(points)


class Sensor:
    """When hardware looks at the power: every `update_s`, from a moment of its own."""

    def __init__(self, curve: PowerCurve, clock: Clock, *, update_s: float, phase_s: float = 0.0) -> None:
        self.curve = curve
        self.clock = clock
        self._update_s = update_s
        self._phase_s = phase_s

    def looked_at_s(self) -> float:
        """Returns the time of its latest look."""
        num_updates = int((self.clock() + self._update_s - self._phase_s) / self._update_s)
        return max(0.0, (num_updates - 1) * self._update_s + self._phase_s)


class CounterSession(MeterSession):
    """A counter of `unit_j` joules that wraps after `range_count`, off by a factor `gain`."""

    def __init__(
        self, domain: Domain, sensor: Sensor, *, unit_j: float, range_count: int | None = None, gain: float = 1.0
    ) -> None:
        self._domain = domain
        self._sensor = sensor
        self._unit_j = unit_j
        self._range_count = range_count
        self._gain = gain

    def read(self) -> Sequence[Sample]:
        count = int(self._gain * self._sensor.curve.energy_j(self._sensor.looked_at_s()) / self._unit_j)
        if self._range_count is not None:
            count %= self._range_count
        return [
            CounterSample(
                domain=self._domain,
                taken_at_s=self._sensor.clock(),
                count=count,
                unit_j=self._unit_j,
                range_count=self._range_count,
            )
        ]


class PowerSession(MeterSession):
    """A gauge in whole `unit_w` watts, off by a factor `gain`."""

    def __init__(self, domain: Domain, sensor: Sensor, *, unit_w: float = 0.001, gain: float = 1.0) -> None:
        self._domain = domain
        self._sensor = sensor
        self._unit_w = unit_w
        self._gain = gain

    def read(self) -> Sequence[Sample]:
        power_w = self._gain * self._sensor.curve.power_w(self._sensor.looked_at_s())
        shown_w = int(power_w / self._unit_w) * self._unit_w
        return [PowerSample(domain=self._domain, taken_at_s=self._sensor.clock(), power_w=shown_w)]


class FailingSession(MeterSession):
    """Another session, whose reads fail when `fails` says so."""

    def __init__(self, session: MeterSession, fails: Callable[[], bool]) -> None:
        self._session = session
        self._fails = fails

    def read(self) -> Sequence[Sample]:
        if self._fails():
            raise MeterError("the hardware does not answer")
        return self._session.read()
