"""Our meters beside an external one, over the same stretch of time: by what factor ours are off, and how surely."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greensv.energy.baseline.external import ExternalReadings
from greensv.energy.baseline.idle import Source
from greensv.errors import MeterError

Array = NDArray[np.float64]

MAX_OFFSET_S = 10.0
OFFSET_STEP_S = 0.1
"""Clocks that disagree by no more than this are set right by the powers themselves, in such steps."""
MIN_CORRELATION = 0.8
MIN_VARIATION = 0.05
"""Powers that vary by less, relative to their mean, do not tell the clocks' offset, and hardly depend on it."""
MIN_COVERAGE = 0.8
"""The external readings should cover that share of the run."""
MIN_DURATION_S = 20.0
NUM_BLOCKS = 10
FACTORS = (0.5, 2.0)
"""A meter off by more is not off in its scale: it measures something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """The running joules of every domain over a run, against time."""

    at_s: tuple[float, ...]
    """UTC epoch seconds."""
    energy_j: Mapping[Source, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An external meter against ours."""

    ratio: float
    """External joules / our joules."""
    uncertainty: float
    """Relative standard uncertainty of the ratio."""
    external_j: float
    our_j: float
    duration_s: float
    offset_s: float | None
    """External clock - ours, in seconds; None where the power varied too little to tell."""
    correlation: float | None
    constant_w: float
    """What the external meter reads where ours read 0, by a straight line through both powers."""
    slope: float
    """Watts of the external meter for each of ours, by the same line."""


def compare(trace: Trace, external: ExternalReadings, *, accuracy: float) -> Comparison:
    """Compares the joules of all of a trace's domains together with the external meter's.

    The clocks' offset is the one, within ±10 s, at which the two powers correlate best. The ratio's variance is the sum
    of the squares of: `accuracy`; the standard error of the ratios of ten equal stretches, each weighted by our joules,
    which a drift or an error that depends on the load widens; and the external counter's step, over √12, at each end.

    Args:
        trace: of our meters.
        external: the other's readings.
        accuracy: relative standard uncertainty of the external meter, by its maker.

    Raises:
        MeterError: they do not cover the same time, readings are missing, the clocks are too far apart, or the powers
            do not vary alike.
    """
    at_s, energy_j = np.array(trace.at_s), np.sum([trace.energy_j[source] for source in trace.energy_j], axis=0)
    offset_s, correlation = _offset(at_s, energy_j, external)
    shifted = at_s + (offset_s or 0.0)
    inside = (shifted >= external.at_s[0]) & (shifted <= external.at_s[-1])
    _refuse_elsewhere(shifted, inside, external)
    shifted, energy_j = shifted[inside], energy_j[inside]
    for from_s, to_s in external.gaps:
        if from_s < shifted[-1] and to_s > shifted[0]:
            raise MeterError(
                f"{external.name} has no readings for {to_s - from_s:.0f} s within the run; log without gaps, and "
                "calibrate again"
            )
    our_j = float(energy_j[-1] - energy_j[0])
    external_j = float(external.energy_between(shifted[0], shifted[-1]))
    if our_j <= 0 or external_j <= 0:
        raise MeterError(f"nothing to compare: our meters saw {our_j:g} J and {external.name} {external_j:g} J")
    ratio = external_j / our_j
    of_step = external.quantum_j / math.sqrt(12) * math.sqrt(2) / external_j
    constant_w, slope = _line(shifted, energy_j, external)
    return Comparison(
        ratio=ratio,
        uncertainty=math.sqrt(accuracy**2 + _spread(shifted, energy_j, external, ratio) ** 2 + of_step**2),
        external_j=external_j,
        our_j=our_j,
        duration_s=float(shifted[-1] - shifted[0]),
        offset_s=offset_s,
        correlation=correlation,
        constant_w=constant_w,
        slope=slope,
    )


def check_factor(found: Comparison) -> None:
    """Refuses a ratio that no wrong scale explains.

    Raises:
        MeterError: it is below 0.5 or above 2.
    """
    if not FACTORS[0] <= found.ratio <= FACTORS[1]:
        raise MeterError(
            f"the external meter saw {found.ratio:.3g} times what ours did, which is no wrong scale: they measure "
            "different things; check --domain, the unit of the column, and what is plugged into the meter"
        )


def _powers(at_s: Array, energy_j: Array) -> Array:
    found: Array = np.diff(energy_j) / np.diff(at_s)
    return found


def _offset(at_s: Array, energy_j: Array, external: ExternalReadings) -> tuple[float | None, float | None]:
    ours_w = _powers(at_s, energy_j)
    if np.std(ours_w) < MIN_VARIATION * np.mean(ours_w):
        return None, None
    num_steps = round(MAX_OFFSET_S / OFFSET_STEP_S)
    best_s, best = 0.0, -1.0
    for step in range(-num_steps, num_steps + 1):
        offset_s = step * OFFSET_STEP_S
        from_s, to_s = at_s[:-1] + offset_s, at_s[1:] + offset_s
        inside = (from_s >= external.at_s[0]) & (to_s <= external.at_s[-1])
        if np.mean(inside) < MIN_COVERAGE or inside.sum() < NUM_BLOCKS:
            continue
        theirs_w = external.energy_between(from_s, to_s)[inside] / (to_s - from_s)[inside]
        if np.std(theirs_w) > 0 and np.std(ours_w[inside]) > 0:
            correlation = float(np.corrcoef(ours_w[inside], theirs_w)[0, 1])
            if correlation > best + 1e-9:
                best_s, best = offset_s, correlation
    if best == -1.0:
        _refuse_elsewhere(at_s, (at_s >= external.at_s[0]) & (at_s <= external.at_s[-1]), external)
    if best < MIN_CORRELATION:
        raise MeterError(
            f"{external.name} does not follow our meters (correlation {best:.2f} at best, within ±{MAX_OFFSET_S:g} s); "
            "it is of another machine or time, or its readings are too rare: check the time zone, and log each second"
        )
    if abs(best_s) > MAX_OFFSET_S - 2 * OFFSET_STEP_S:
        raise MeterError(
            f"the clock of {external.name} differs from this machine's by {MAX_OFFSET_S:g} s or more; set both by NTP, "
            "and calibrate again"
        )
    return best_s, best


def _refuse_elsewhere(at_s: Array, inside: NDArray[np.bool_], external: ExternalReadings) -> None:
    share = float(np.mean(inside))
    if share < MIN_COVERAGE or at_s[inside][-1] - at_s[inside][0] < MIN_DURATION_S:
        run, theirs = _times(at_s[0], at_s[-1]), _times(external.at_s[0], external.at_s[-1])
        raise MeterError(
            f"{external.name} covers {share:.0%} of the run: the run was {run}, the readings are {theirs} (UTC); log "
            f"for all of a run of {MIN_DURATION_S:g} s at least, and check the time zone"
        )


def _times(from_s: float, to_s: float) -> str:
    first, last = (np.datetime64(round(moment), "s") for moment in (from_s, to_s))
    return f"from {first} to {last}"


def _spread(at_s: Array, energy_j: Array, external: ExternalReadings, ratio: float) -> float:
    """Relative standard error of the ratio, from the ratios of equal stretches."""
    edges_s = np.linspace(at_s[0], at_s[-1], NUM_BLOCKS + 1)
    ours_j = np.diff(np.interp(edges_s, at_s, energy_j))
    theirs_j = external.energy_between(edges_s[:-1], edges_s[1:])
    # The ratio of sums: W. G. Cochran, Sampling Techniques, 3rd ed., 1977, eq. 6.13.
    residuals_j = theirs_j - ratio * ours_j
    return float(np.sqrt(np.sum(residuals_j**2) / (NUM_BLOCKS * (NUM_BLOCKS - 1))) / np.mean(theirs_j))


def _line(at_s: Array, energy_j: Array, external: ExternalReadings) -> tuple[float, float]:
    """Constant and slope of the external power over ours, by least squares; the ratio alone where ours is constant."""
    ours_w = _powers(at_s, energy_j)
    theirs_w = external.energy_between(at_s[:-1], at_s[1:]) / np.diff(at_s)
    if np.std(ours_w) < MIN_VARIATION * np.mean(ours_w):
        return 0.0, float(np.mean(theirs_w) / np.mean(ours_w))
    slope, constant_w = np.polyfit(ours_w, theirs_w, 1)
    return float(constant_w), float(slope)
