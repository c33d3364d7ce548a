"""The same work measured several times: its mean energy, how much it varies, and how well the mean is known."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from greensv.energy.metering.reading import total_uncertainty_j
from greensv.energy.metering.window import EnergyWindow

STUDENT_T = (
    (1, 12.71),
    (2, 4.30),
    (3, 3.18),
    (4, 2.78),
    (5, 2.57),
    (6, 2.45),
    (7, 2.36),
    (8, 2.31),
    (9, 2.26),
    (10, 2.23),
    (12, 2.18),
    (15, 2.13),
    (20, 2.09),
    (30, 2.04),
    (50, 2.01),
    (100, 1.984),
    (10_000, 1.96),
)
"""Degrees of freedom, and the factor for 95 % (JCGM 100:2008, table G.2). In between, the row above counts (G.4.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repetitions:
    """Windows of the same work, together."""

    num: int
    mean_j: float
    deviation_j: float | None
    """The standard deviation of one window, in joules; None for a single one."""
    uncertainty_j: float
    """The standard uncertainty of the mean, in joules: its spread, and the scale of the meters."""
    repeatability_j: float
    """The part of it that is not the meters' scale: what remains in a ratio of two energies of the same meters."""
    interval_j: tuple[float, float]
    """The 95 % interval of the mean, in joules."""


def combine_repetitions(windows: Sequence[EnergyWindow]) -> Repetitions:
    """Combines at least one window of the same work, measured by the same meters.

    Repeating averages out what differs from window to window: deviation/√n (JCGM 100:2008, 4.2.3), though not less
    than what the windows say of themselves, since few may agree by chance. The scale of a meter is off alike in all of
    them, and stays. A deviation seen in few windows is itself uncertain; hence Student's t, with the effective degrees
    of freedom of Welch and Satterthwaite (G.4.1), in which the scale counts as fully known.
    """
    assert windows, "at least one window"
    energies_j = [window.energy_j for window in windows]
    num, mean_j = len(windows), fmean(energies_j)
    deviation_j = stdev(energies_j) if num > 1 else None
    spread_j = (deviation_j or 0.0) / math.sqrt(num)
    own_j = math.sqrt(sum(max(0.0, w.uncertainty_j**2 - _scale_uncertainty_j([w]) ** 2) for w in windows)) / num
    random_j, degrees = (spread_j, num - 1.0) if spread_j > own_j else (own_j, math.inf)
    uncertainty_j = math.hypot(random_j, _scale_uncertainty_j(windows))
    if random_j > 0:
        degrees *= (uncertainty_j / random_j) ** 4
    half_j = _factor(degrees) * uncertainty_j
    return Repetitions(
        num=num,
        mean_j=mean_j,
        deviation_j=deviation_j,
        uncertainty_j=uncertainty_j,
        repeatability_j=random_j,
        interval_j=(max(0.0, mean_j - half_j), mean_j + half_j),
    )


def _scale_uncertainty_j(windows: Sequence[EnergyWindow]) -> float:
    """Returns the standard uncertainty of the windows' mean from the scale of their meters, in joules."""
    readings = [reading for window in windows for reading in window.readings]
    scales = [replace(reading, uncertainty_j=reading.scale_uncertainty_j) for reading in readings]
    return total_uncertainty_j(scales) / len(windows)


def _factor(degrees: float) -> float:
    index = bisect_right([row[0] for row in STUDENT_T], degrees) - 1
    return STUDENT_T[max(0, index)][1]
