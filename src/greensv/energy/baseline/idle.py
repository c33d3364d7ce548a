"""What a machine draws while it does nothing: measured once before a study works there, to tell gross energy from net.

net = gross - idle power × duration. The budget is charged gross: the machine would not have been on for nothing.
"""

import itertools
import math
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import stdev

from greensv.energy.meter import Domain
from greensv.energy.metering.reading import OpenMeter, Reading, total_uncertainty_j
from greensv.energy.metering.window import COVERAGE_FACTOR, EnergyWindow
from greensv.energy.monitoring import Monitor

MIN_INTERVALS = 3
"""The spread of fewer says nothing."""
RESOLUTIONS_PER_INTERVAL = 20
"""A counter that changes every 0.1 s is read 2 s apart, so that the moment of a change moves a power by 5 % at most."""
BUSY_SHARE = 0.1
"""A machine with more of its CPU time in use than this is not idle."""
SPREAD_SHARE = 0.15
"""Power that varies by more than this share of its mean, as a standard deviation, is not that of a machine at rest."""
MIN_SPREAD_W = 1.0
"""Below, a spread is that of the reading and not of the load."""

Source = tuple[str, str]
"""A meter and one of its domains, as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdlePower:
    """What one domain draws at rest, PUE not included."""

    host: str
    meter: str
    domain: str
    power_w: float
    uncertainty_w: float
    """Standard: the meter's scale, and how far the power varied."""
    duration_s: float
    """For how long it was measured; 0 where it is what the meter's own model says."""
    measured_at: datetime
    gain: float = 1.0
    """What its joules had been multiplied by: it is known only of joules that are multiplied by the same."""

    @property
    def source(self) -> Source:
        """Its meter and domain."""
        return self.meter, self.domain


@dataclass(frozen=True, slots=True, kw_only=True)
class NetEnergy:
    """Energy less what the machine would have used anyway, and its standard uncertainty, both in joules."""

    energy_j: float
    uncertainty_j: float

    @property
    def is_impossible(self) -> bool:
        """Whether it is below 0 by more than its uncertainty explains: the idle power is not this machine's at rest."""
        return self.energy_j < -COVERAGE_FACTOR * self.uncertainty_j


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleBaseline:
    """The idle power of every domain that is known on this machine."""

    powers: tuple[IdlePower, ...]

    def power_w(self, sources: Iterable[Source]) -> tuple[float, float] | None:
        """Returns the idle power of some domains together and its uncertainty, in watts; None when one is not known."""
        known = {power.source: power for power in self.powers}
        try:
            wanted = [known[source] for source in sources]
        except KeyError:
            return None
        # Linear: the scale of one meter is off alike in all its domains.
        return sum(power.power_w for power in wanted), sum(power.uncertainty_w for power in wanted)

    def net(self, window: EnergyWindow) -> NetEnergy | None:
        """Returns the net energy of a window, PUE not included; None when a domain's idle power is not known.

        Nor is it known which part of it a process bears that shares the machine with others, who come and go.

        A meter's scale is off alike in the gross energy and in the idle power, so that it is off by that share of the
        net energy. What else makes the two uncertain is independent, and adds in quadrature.
        """
        known = {power.source: power for power in self.powers}
        if any(source_of(reading) not in known or reading.quality == "attributed" for reading in window.readings):
            return None
        net = [_net(reading, known[source_of(reading)], window.duration_s) for reading in window.readings]
        return NetEnergy(energy_j=sum(reading.energy_j for reading in net), uncertainty_j=total_uncertainty_j(net))


def _net(gross: Reading, idle: IdlePower, duration_s: float) -> Reading:
    gain = gross.scale_uncertainty_j / gross.energy_j if gross.energy_j > 0 else 0.0
    idle_rest_w = math.sqrt(max(0.0, idle.uncertainty_w**2 - (gain * idle.power_w) ** 2))
    gross_rest_j = math.sqrt(max(0.0, gross.uncertainty_j**2 - gross.scale_uncertainty_j**2))
    net_j = gross.energy_j - idle.power_w * duration_s
    return replace(
        gross,
        energy_j=net_j,
        scale_uncertainty_j=gain * abs(net_j),
        uncertainty_j=math.hypot(gain * net_j, gross_rest_j, idle_rest_w * duration_s),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleMeasurement:
    """A stretch of time in which nothing was done."""

    powers: tuple[IdlePower, ...]
    duration_s: float
    busy_share: float | None
    """Share of the whole machine's CPU time that was in use; None where /proc/stat does not tell."""
    spreads_w: Mapping[Source, float] = field(default_factory=dict)
    """Standard deviation of the power from one interval to the next."""

    @property
    def disturbance(self) -> str | None:
        """Why the machine was not at rest; None when it seems to have been."""
        if self.busy_share is not None and self.busy_share > BUSY_SHARE:
            return f"{self.busy_share:.0%} of the machine's CPU time was in use"
        for power in self.powers:
            spread_w = self.spreads_w.get(power.source, 0.0)
            if spread_w > max(MIN_SPREAD_W, SPREAD_SHARE * power.power_w):
                return f"the power of {power.domain} varied by ±{spread_w:.3g} W around {power.power_w:.3g} W"
        return None


def this_host() -> str:
    """Returns the name by which the idle power of this machine is kept."""
    return socket.gethostname()


def source_of(reading: Reading) -> Source:
    """Returns a reading's meter and domain."""
    return reading.meter, str(reading.domain)


def needs_measuring(meter: OpenMeter) -> bool:
    """Whether the idle power of a meter's domains has to be measured.

    That of a meter that counts this process alone is none of the machine's; its model may know it.
    """
    return meter.quality != "estimated" and meter.availability.counts_others


def charged_domains(meter: OpenMeter) -> tuple[Domain, ...]:
    """Returns the domains whose joules are charged: those that only tell the parts of a node are in no net figure."""
    return tuple(d for d in meter.availability.domains if meter.role(d) == "charged")


def modelled_powers(meters: Iterable[OpenMeter], *, host: str, at: datetime) -> tuple[IdlePower, ...]:
    """Returns the idle powers that meters know from their own models, `Availability.rest_power_w`."""
    return tuple(
        IdlePower(
            host=host,
            meter=meter.name,
            domain=str(domain),
            power_w=meter.gains.get(domain, 1.0) * power_w,
            uncertainty_w=meter.availability.gain_uncertainty * meter.gains.get(domain, 1.0) * power_w,
            duration_s=0.0,
            measured_at=at,
            gain=meter.gains.get(domain, 1.0),
        )
        for meter in meters
        if not needs_measuring(meter)
        for domain, power_w in meter.availability.rest_power_w.items()
        if domain in charged_domains(meter)
    )


def measure_idle(
    monitor: Monitor,
    *,
    duration_s: float,
    on_interval: Callable[[float, float], None],
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], None] = time.sleep,
    stat: Path = Path("/proc/stat"),
) -> IdleMeasurement:
    """Waits, and measures what the machine draws meanwhile, of the domains that need measuring.

    The mean power is that between the first and the last reading, so that a counter's edges matter once. Its standard
    uncertainty is √(s²/n + (g × P)²): s the standard deviation of the power in n intervals, g the relative uncertainty
    of the meter's scale (JCGM 100:2008, 4.2.3 and 5.1.2). What changes over hours, such as the temperature, is in none
    of it.

    Args:
        monitor: started, with the meters open.
        duration_s: seconds to wait.
        on_interval: called after each interval with the seconds so far and the watts of all these domains so far; what
            it raises ends the measurement.
        clock: the monitor's clock, in seconds.
        wait: waits so many seconds.
        stat: the kernel's CPU times.

    Raises:
        MeterError: a meter keeps failing.
    """
    meters = [meter for meter in monitor.meters if needs_measuring(meter)]
    interval_s = _interval_s(meters, at_least_s=monitor.interval_s, duration_s=duration_s)
    measured_at, cpu_before = datetime.now(UTC), _cpu_ticks(stat)
    marks = [_mark(monitor, meters, clock)]
    begun_s = marks[0][0]
    while (left_s := duration_s - (marks[-1][0] - begun_s)) > 0.25 * interval_s:
        wait(min(interval_s, left_s))
        marks.append(_mark(monitor, meters, clock))
        done_s = marks[-1][0] - begun_s
        on_interval(done_s, sum(marks[-1][1].values()) / done_s - sum(marks[0][1].values()) / done_s)
    scales = {meter.name: meter.availability.gain_uncertainty for meter in meters}
    gains = {(meter.name, str(domain)): gain for meter in meters for domain, gain in meter.gains.items()}
    spreads_w = {source: _spread_w(marks, source) for source in marks[0][1]}
    done_s = marks[-1][0] - begun_s
    powers = []
    for (meter, domain), first_j in marks[0][1].items():
        power_w = (marks[-1][1][meter, domain] - first_j) / done_s
        of_mean_w = spreads_w[meter, domain] / math.sqrt(len(marks) - 1)
        powers.append(
            IdlePower(
                host=this_host(),
                meter=meter,
                domain=domain,
                power_w=power_w,
                uncertainty_w=math.hypot(of_mean_w, scales[meter] * power_w),
                duration_s=done_s,
                measured_at=measured_at,
                gain=gains.get((meter, domain), 1.0),
            )
        )
    return IdleMeasurement(
        powers=tuple(powers),
        duration_s=done_s,
        busy_share=_busy_share(cpu_before, _cpu_ticks(stat)),
        spreads_w=spreads_w,
    )


Mark = tuple[float, dict[Source, float]]


def _interval_s(meters: Sequence[OpenMeter], *, at_least_s: float, duration_s: float) -> float:
    slowest_s = max((meter.availability.resolution_s for meter in meters), default=0.0)
    return min(max(at_least_s, RESOLUTIONS_PER_INTERVAL * slowest_s), duration_s / MIN_INTERVALS)


def _mark(monitor: Monitor, meters: Sequence[OpenMeter], clock: Callable[[], float]) -> Mark:
    names = {meter.name for meter in meters}
    readings = monitor.totals(fresh=True)
    return clock(), {source_of(r): r.energy_j for r in readings if r.meter in names}


def _spread_w(marks: Sequence[Mark], source: Source) -> float:
    powers_w = [
        (now[source] - before[source]) / (now_s - before_s)
        for (before_s, before), (now_s, now) in itertools.pairwise(marks)
    ]
    return stdev(powers_w) if len(powers_w) > 1 else 0.0


def _cpu_ticks(stat: Path) -> tuple[int, int] | None:
    """Busy and all clock ticks of the whole machine since boot, by proc(5): `cpu` line, idle and iowait not busy."""
    try:
        ticks = [int(word) for word in stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    except (OSError, ValueError, IndexError):
        return None


def _busy_share(before: tuple[int, int] | None, now: tuple[int, int] | None) -> float | None:
    if before is None or now is None or now[1] <= before[1]:
        return None
    return (now[0] - before[0]) / (now[1] - before[1])
