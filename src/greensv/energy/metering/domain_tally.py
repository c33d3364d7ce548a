"""The running joules of one domain of one open meter, and what is not known of them."""

import math
from dataclasses import dataclass

from greensv.energy.meter import CounterSample, Domain, PowerSample, Sample
from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.metering.uncertainty import EdgePower, PowerHistory, StepSums, counter_edges_j2, lag_j
from greensv.energy.metering.unwrap import counter_step_j, power_step_j
from greensv.errors import MeterError

SLOPE_RESOLUTIONS = 10
"""The power of a counter is its slope over so many of its changes: over fewer it is mostly noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainEdge:
    """What is known of a domain at one moment: the edge of a window."""

    domain: Domain
    energy_j: float
    """Since the start, the power being held from the last sample to the edge where that matters."""
    held_s: float
    """Seconds over which it was held because the meter could not be read; 0 when it was."""
    held_j2: float
    """The variance of what was held."""
    power: EdgePower | None
    """None where it is not known yet."""
    unheld_s: float
    """Seconds from the last sample to the edge over which there was no power to hold yet, though there should be."""
    unit_j: float | None
    """Of a counter; None for integrated power."""
    steps: StepSums


class DomainTally:
    """Adds up one domain's joules. For one thread at a time: the monitor holds its lock.

    Args:
        domain: the domain.
        meter: the open meter.
        interval_s: seconds between two readings.
        gap_s: a stretch without readings that long is a gap.
    """

    def __init__(self, domain: Domain, meter: OpenMeter, *, interval_s: float, gap_s: float) -> None:
        about = meter.availability
        self.domain = domain
        self._meter = meter
        self._gain = meter.gains.get(domain, 1.0)
        self._share = meter.shares.get(domain)
        self._lag_s = 0.0 if about.is_dated else about.resolution_s
        self._slope_s = max(SLOPE_RESOLUTIONS * self._lag_s, interval_s / 2)
        self._gap_s = gap_s
        self._energy_j = 0.0
        self._last: Sample | None = None
        self._steps = StepSums()
        self._last_change_j = 0.0
        self._history = PowerHistory()
        self._slope_w: float | None = None
        self._slope_from: tuple[float, float] | None = None

    @property
    def energy_j(self) -> float:
        """Joules so far."""
        return self._energy_j

    def total(self) -> Reading:
        """Returns the joules so far."""
        return self._reading(self._energy_j, self._steps.variance_j2)

    def add(self, sample: Sample) -> list[str]:
        """Takes a sample in; returns what is to be noted.

        Raises:
            MeterError: the energy since the last sample cannot be known. The sample is the one to count from then.
        """
        before, self._last = self._last, sample
        if before is None:
            if isinstance(sample, CounterSample) and self._meter.availability.since_process_start:
                self._energy_j = self._gain * sample.count * sample.unit_j
            self._energy_j += self._own_j(sample, 0.0)
            self._mark_slope(sample)
            return []
        interval_s = sample.taken_at_s - before.taken_at_s
        if interval_s < 0:
            raise MeterError(
                f"{self.domain}: a reading is {-interval_s:.3g} s older than the one before it; fix that meter"
            )
        match before, sample:
            case CounterSample(), CounterSample():
                limit_w = self._meter.availability.max_power_w
                resolution_s = self._meter.availability.resolution_s
                step_j = counter_step_j(before, sample, max_power_w=limit_w, resolution_s=resolution_s)
                self._energy_j += self._own_j(sample, step_j)
                self._mark_slope(sample)
                return []
            case PowerSample(), PowerSample():
                self._energy_j += self._own_j(sample, power_step_j(before, sample))
                return self._add_change(before, sample, interval_s)
        raise MeterError(f"{self.domain}: the meter changed from counting energy to reporting power; fix that meter")

    def edge(self, now_s: float, *, is_unread: bool) -> DomainEdge | None:
        """Returns what is known at `now_s`; None before the first sample.

        Args:
            now_s: the moment, on the clock of the samples.
            is_unread: the latest read failed, so that the last sample is an old one.
        """
        if self._last is None:
            return None
        unit_j = self._last.unit_j if isinstance(self._last, CounterSample) else None
        power = self._power_at_edge(self._last)
        late_s = max(0.0, now_s - self._last.taken_at_s)
        # An undated counter has in its next reading what it has not shown yet. Power, and what a dated one read long
        # ago, is held to the edge.
        held_s = late_s if is_unread or unit_j is None or self._meter.availability.is_dated else 0.0
        held = power or EdgePower(power_w=0.0)
        return DomainEdge(
            domain=self.domain,
            energy_j=self._energy_j + held.power_w * held_s,
            held_s=late_s if is_unread else 0.0,
            held_j2=self._history.hold_j2(held, held_s=held_s),
            power=power,
            unheld_s=0.0 if power else held_s,
            unit_j=unit_j,
            steps=self._steps,
        )

    def between(self, opening: DomainEdge, closing: DomainEdge, *, duration_s: float) -> Reading:
        """Returns the joules between two edges that are `duration_s` seconds apart.

        Raises:
            MeterError: a dated meter showed no new sample, so that nothing is known of what was used.
        """
        unheld = self._unheld_power(opening, closing)
        unheld_s = closing.unheld_s - opening.unheld_s
        read_j = closing.energy_j - opening.energy_j + unheld.power_w * unheld_s
        # Without a power at one edge, the window's own stands in at both: what is not known cannot be corrected for.
        mean = EdgePower(power_w=max(0.0, read_j) / duration_s if duration_s > 0 else 0.0)
        edges = (opening.power, closing.power) if opening.power and closing.power else (mean, mean)
        variance_j2 = opening.held_j2 + closing.held_j2 + closing.steps.minus(opening.steps).variance_j2
        # A power seen at the other edge alone says little of this one: it may have been none, or twice as much.
        variance_j2 += (unheld.power_w * unheld_s) ** 2
        if closing.unit_j is not None:
            variance_j2 += counter_edges_j2(*edges, resolution_s=self._lag_s, unit_j=self._gain * closing.unit_j)
        if self._share is not None and self._share.is_shared:
            # Who used what is known as late as the others say it, by U(0, r) as a counter's edges are.
            variance_j2 += sum(edge.power_w**2 for edge in edges) * self._share.resolution_s**2 / 12
        # A window that is short against all this may come out below 0, which energy cannot be.
        return self._reading(max(0.0, read_j + lag_j(*edges, resolution_s=self._lag_s)), variance_j2)

    def _unheld_power(self, opening: DomainEdge, closing: DomainEdge) -> EdgePower:
        """Returns what is to be held at an edge at which no power was known: that of the other edge."""
        known = opening.power or closing.power
        about = self._meter.availability
        if known is None and about.is_dated and (opening.unheld_s or closing.unheld_s):
            raise MeterError(
                f"{self.domain}: no new sample in the window: the meter's newest one is still the one it began with; "
                f"make it longer than two of its samples are apart ({2 * about.resolution_s:.3g} s)"
            )
        return known or EdgePower(power_w=0.0)

    def _power_at_edge(self, last: Sample) -> EdgePower | None:
        if isinstance(last, PowerSample):
            return EdgePower(power_w=self._gain * self._fraction * last.power_w)
        if self._slope_w is None:
            return None
        # The mean over a time is not the power at its end: a third of what that changes by in the time.
        square_change_w2 = self._history.square_change_w2(self._slope_s, power_w=0.0)
        return EdgePower(power_w=self._slope_w, variance_w2=square_change_w2 / 3)

    @property
    def _fraction(self) -> float:
        return 1.0 if self._share is None else self._share.fraction

    def _own_j(self, sample: Sample, step_j: float) -> float:
        return self._gain * (step_j if self._share is None else self._share.own_j(sample, step_j))

    def _reading(self, energy_j: float, variance_j2: float) -> Reading:
        meter = self._meter
        is_shared = self._share is not None and self._share.is_shared
        scale_j = meter.availability.gain_uncertainty * energy_j
        return Reading(
            domain=self.domain,
            meter=meter.name,
            quality="attributed" if is_shared and meter.quality == "measured" else meter.quality,
            energy_j=energy_j,
            uncertainty_j=math.sqrt(scale_j**2 + variance_j2),
            role=meter.role(self.domain),
            scale_uncertainty_j=scale_j,
            resolution_s=max(
                meter.availability.resolution_s, self._share.resolution_s if self._share and is_shared else 0.0
            ),
        )

    def _add_change(self, before: PowerSample, now: PowerSample, interval_s: float) -> list[str]:
        scale = self._gain * self._fraction
        before_w, now_w = scale * before.power_w, scale * now.power_w
        if interval_s == 0 and now_w == before_w:
            return []
        is_gap = interval_s > self._gap_s
        change_j = 0.0 if is_gap else (now_w - before_w) * math.hypot(interval_s, self._lag_s)
        gap_j2 = self._history.gap_j2(before_w, now_w, interval_s=interval_s) if is_gap else 0.0
        self._steps = StepSums(
            squares_j2=self._steps.squares_j2 + change_j**2,
            neighbours_j2=self._steps.neighbours_j2 + change_j * self._last_change_j,
            gaps_j2=self._steps.gaps_j2 + gap_j2,
        )
        self._last_change_j = change_j
        self._history.add(before_w, now_w, interval_s=interval_s)
        return [f"{self.domain}: no reading for {interval_s:.3g} s; its power was interpolated"] if is_gap else []

    def _mark_slope(self, sample: Sample) -> None:
        now = (sample.taken_at_s, self._energy_j)
        if self._slope_from is None:
            self._slope_from = now
            return
        interval_s = now[0] - self._slope_from[0]
        if interval_s < self._slope_s or interval_s <= 0:
            return
        slope_w = (now[1] - self._slope_from[1]) / interval_s
        if self._slope_w is not None:
            self._history.add(self._slope_w, slope_w, interval_s=interval_s)
        self._slope_w, self._slope_from = slope_w, now
