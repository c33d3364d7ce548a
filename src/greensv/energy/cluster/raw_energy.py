"""From the raw samples of one time series to joules: counters unwrapped, power integrated, gaps told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from greensv.energy.cluster.prometheus import RawSample
from greensv.energy.meter import CounterSample, Domain, PowerSample
from greensv.energy.metering.unwrap import counter_step_j, power_step_j, sample_problem
from greensv.errors import MeterError
from greensv.units import MICROJOULES_PER_JOULE

SeriesKind = Literal["counter-joules", "power-watts"]
GAP_INTERVALS = 2.5
"""Without samples for that many scrape intervals there is a gap: at least two scrapes in a row were lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a series' numbers mean."""

    domain: Domain
    kind: SeriesKind
    unit: float = 1.0
    """Joules or watts of a 1 in the series."""
    range_j: float | None = None
    """A counter starts again at 0 beyond that many joules; None: it does not."""
    max_power_w: float = 20_000.0
    """The domain draws no more. Tells a counter's wrap from a reset, and one wrap from two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch without samples. A counter still knows its energy; power is interpolated across it."""

    domain: Domain
    started_at: float
    duration_s: float
    is_interpolated: bool

    def __str__(self) -> str:
        how = "its power was interpolated" if self.is_interpolated else "its counter bridges it"
        return f"{self.domain}: no samples for {self.duration_s:.3g} s; {how}"


class RawEnergy:
    """The joules of one series since its first sample, from all of its samples, however many come at once.

    Args:
        scale: what the series' numbers mean.
        interval_s: the time between two scrapes, in seconds.
    """

    def __init__(self, scale: Scale, *, interval_s: float) -> None:
        self.scale = scale
        self._interval_s = interval_s
        self.energy_j = 0.0
        self._last: CounterSample | PowerSample | None = None

    @property
    def newest_at(self) -> float | None:
        """When the newest sample was taken (UTC epoch seconds, by the server's clock); None before the first."""
        return None if self._last is None else self._last.taken_at_s

    def add(self, samples: Sequence[RawSample]) -> list[Gap]:
        """Adds the samples that are newer than those before; returns the gaps that they end.

        Raises:
            MeterError: the counter was reset, or may have wrapped twice, or a sample is impossible.
        """
        gaps = []
        for at_s, value in samples:
            before = self._last
            if before is not None and at_s <= before.taken_at_s:
                continue
            now = self._sample(at_s, value)
            if problem := sample_problem(now):
                raise MeterError(problem)
            if before is not None:
                self.energy_j += self._step_j(before, now)
                if at_s - before.taken_at_s > GAP_INTERVALS * self._interval_s:
                    gaps.append(self._gap(before.taken_at_s, at_s))
            self._last = now
        return gaps

    def _sample(self, at_s: float, value: float) -> CounterSample | PowerSample:
        scale = self.scale
        if scale.kind == "power-watts":
            return PowerSample(domain=scale.domain, taken_at_s=at_s, power_w=value * scale.unit)
        return CounterSample(
            domain=scale.domain,
            taken_at_s=at_s,
            count=round(value * scale.unit * MICROJOULES_PER_JOULE),
            unit_j=1 / MICROJOULES_PER_JOULE,
            range_count=None if scale.range_j is None else round(scale.range_j * MICROJOULES_PER_JOULE),
        )

    def _step_j(self, before: CounterSample | PowerSample, now: CounterSample | PowerSample) -> float:
        if isinstance(before, CounterSample) and isinstance(now, CounterSample):
            # An exporter may have read its counter a moment before the scrape's own time.
            return counter_step_j(
                before, now, max_power_w=self.scale.max_power_w, resolution_s=min(self._interval_s, 1.0)
            )
        assert isinstance(before, PowerSample)
        assert isinstance(now, PowerSample)
        return power_step_j(before, now)

    def _gap(self, from_s: float, to_s: float) -> Gap:
        return Gap(
            domain=self.scale.domain,
            started_at=from_s,
            duration_s=to_s - from_s,
            is_interpolated=self.scale.kind == "power-watts",
        )


def cumulative_j(samples: Sequence[RawSample], scale: Scale, *, interval_s: float) -> tuple[list[RawSample], list[Gap]]:
    """Returns the joules since the first sample at each sample, and the gaps. Raises as `RawEnergy.add` does."""
    series = RawEnergy(scale, interval_s=interval_s)
    curve, gaps = [], []
    for sample in samples:
        gaps += series.add([sample])
        curve.append((sample[0], series.energy_j))
    return curve, gaps


def unbroken_j(samples: Sequence[RawSample], scale: Scale, *, interval_s: float) -> list[list[RawSample]]:
    """Returns what `cumulative_j` does, a new curve begun after each sample at which it would raise."""
    curves: list[list[RawSample]] = [[]]
    series = RawEnergy(scale, interval_s=interval_s)
    for sample in samples:
        try:
            series.add([sample])
        except MeterError:
            curves.append([])
            series = RawEnergy(scale, interval_s=interval_s)
        else:
            curves[-1].append((sample[0], series.energy_j))
    return [curve for curve in curves if len(curve) > 1]
