"""One energy window over power that is known, read by the real monitor on a simulated clock."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from greensv.energy.meter import Availability, Domain, MeterSession
from greensv.energy.metering.reading import OpenMeter
from greensv.energy.monitoring import EnergyWindow, Monitor
from greensv.errors import MeterError
from simulated.powers import (
    CounterSession,
    FailingSession,
    PowerCurve,
    PowerSession,
    Sensor,
    bursts,
    constant,
    ramp,
    step,
)
from simulated.scripted import ScriptedClock

GAIN_UNCERTAINTY = 0.05
LOW_W, HIGH_W = 100.0, 300.0
LONGEST_LEAD_S = 8.0
WRAP_S = 30.0
LATEST_WAKE_S = 0.005
"""A thread wakes up late by up to that much."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A kind of meter: how often it changes, and how it is read."""

    domain: Domain
    update_s: float
    poll_interval_s: float | None
    make: Callable[[Domain, Sensor, float, int | None], MeterSession]


def _rapl(domain: Domain, sensor: Sensor, gain: float, range_count: int | None) -> MeterSession:
    return CounterSession(domain, sensor, unit_j=1e-6, range_count=range_count, gain=gain)


def _nvml_counter(domain: Domain, sensor: Sensor, gain: float, range_count: int | None) -> MeterSession:
    return CounterSession(domain, sensor, unit_j=1e-3, gain=gain)


def _nvml_power(domain: Domain, sensor: Sensor, gain: float, range_count: int | None) -> MeterSession:
    return PowerSession(domain, sensor, gain=gain)


HARDWARE: Mapping[str, Hardware] = MappingProxyType(
    {
        "RAPL counter": Hardware(domain=Domain("cpu", "0"), update_s=0.001, poll_interval_s=None, make=_rapl),
        "NVML counter": Hardware(domain=Domain("gpu", "GPU-1"), update_s=0.1, poll_interval_s=None, make=_nvml_counter),
        "NVML power": Hardware(domain=Domain("gpu", "GPU-1"), update_s=0.1, poll_interval_s=0.05, make=_nvml_power),
    }
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What the power does between `opens_at_s` and `closes_at_s`, and what the meter suffers."""

    curve: PowerCurve
    fails: Callable[[float], bool] = lambda now_s: False
    wraps: bool = False


def _constant(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    return Scene(curve=constant(rng.uniform(LOW_W, HIGH_W)))


def _step(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    quarter_s = (closes_s - opens_s) / 4
    return Scene(curve=step(LOW_W, HIGH_W, at_s=rng.uniform(opens_s + quarter_s, closes_s - quarter_s)))


def _ramp(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    return Scene(curve=ramp(LOW_W, HIGH_W, from_s=opens_s, to_s=closes_s))


def _bursts(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    curve = bursts(rng, low_w=LOW_W, high_w=HIGH_W, mean_low_s=2.0, mean_high_s=6.0, length_s=closes_s + LONGEST_LEAD_S)
    return Scene(curve=curve)


def _wraps(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    return Scene(curve=_bursts(rng, opens_s, closes_s).curve, wraps=True)


def _lost(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    """Each read fails with probability 0.1, whatever became of those before: so does each further try of one."""
    curve = _bursts(rng, opens_s, closes_s).curve
    return Scene(curve=curve, fails=lambda now_s: now_s > 0 and rng.random() < 0.1)


def _gap(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    curve = _bursts(rng, opens_s, closes_s).curve
    from_s = rng.uniform(opens_s, closes_s - 3.0)
    return Scene(curve=curve, fails=lambda now_s: from_s < now_s < from_s + 3.0)


def _dies(rng: random.Random, opens_s: float, closes_s: float) -> Scene:
    curve = _bursts(rng, opens_s, closes_s).curve
    return Scene(curve=curve, fails=lambda now_s: now_s > (opens_s + closes_s) / 2)


SCENES: Mapping[str, Callable[[random.Random, float, float], Scene]] = MappingProxyType(
    {
        "constant": _constant,
        "step": _step,
        "ramp": _ramp,
        "random bursts": _bursts,
        "bursts, wrap every 30 s": _wraps,
        "bursts, one read in ten lost": _lost,
        "bursts, 3 s without a read": _gap,
        "bursts, dies half-way": _dies,
    }
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was true and what was said of it. `error` instead of `window` where the monitor refused to say."""

    true_j: float
    window: EnergyWindow | None
    error: str | None
    known_j: float
    """What the totals hold of the window's energy, whatever happened."""
    true_known_j: float
    """What was true up to the latest good reading."""


def measure(hardware: str, scene: str, *, window_s: float, gain: float, rng: random.Random) -> Outcome:
    """Opens a window of `window_s` to one second more over a scene, on a simulated clock; returns what came of it.

    The monitor is driven as its thread drives it: `advance` after each `wait_s` or a little later. Sensors, window and
    polls are at random to one another.
    """
    kind = HARDWARE[hardware]
    clock = ScriptedClock(0.0)
    opens_s = rng.uniform(2.5, LONGEST_LEAD_S)
    closes_s = opens_s + window_s + rng.random()  # a multiple of the counter's interval would cancel its age
    made = SCENES[scene](rng, opens_s, closes_s)
    true_j = made.curve.energy_j(closes_s) - made.curve.energy_j(opens_s)
    sensor = Sensor(made.curve, clock, update_s=kind.update_s, phase_s=rng.uniform(0, kind.update_s))
    range_count = round(WRAP_S * true_j / (closes_s - opens_s) * 1e6) if made.wraps else None
    good_s = [0.0]

    def fails() -> bool:
        failed = made.fails(clock())
        if not failed:
            good_s.append(sensor.looked_at_s())
        return failed

    session = FailingSession(kind.make(kind.domain, sensor, gain, range_count), fails)
    about = Availability(
        domains=(kind.domain,),
        resolution_s=kind.update_s,
        gain_uncertainty=GAIN_UNCERTAINTY,
        max_power_w=500.0,
        poll_interval_s=kind.poll_interval_s,
    )
    meter = OpenMeter(name=hardware, quality="measured", session=session, availability=about)
    monitor = Monitor([meter], clock=clock)
    monitor.poll()
    next_s = clock() + monitor.wait_s

    def pass_time(until_s: float) -> None:
        nonlocal next_s
        while next_s < until_s:
            clock.now_s = next_s
            monitor.advance()
            next_s += monitor.wait_s + rng.uniform(0, LATEST_WAKE_S)
        clock.now_s = until_s

    pass_time(opens_s)
    window, error = None, None
    try:
        with monitor.window(scene) as open_window:
            before_j = sum(reading.energy_j for reading in monitor.known_totals())
            opened_at_s = sensor.looked_at_s()
            pass_time(closes_s)
        window = open_window.result
    except MeterError as failure:
        error = str(failure)
    return Outcome(
        true_j=true_j,
        window=window,
        error=error,
        known_j=sum(reading.energy_j for reading in monitor.known_totals()) - before_j,
        true_known_j=made.curve.energy_j(good_s[-1]) - made.curve.energy_j(opened_at_s),
    )
