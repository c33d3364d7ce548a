"""What is not known of an energy read between two moments, as variances in J² (type B evaluations, JCGM 100:2008, 4.3).

A counter or sensor that changes every r seconds is old by anything from 0 to r when it is read: a rectangular
distribution of mean r/2, which is corrected for (GUM, 3.2.4), and variance r²/12. Power that is sampled may have done
anything between two samples. It is taken for a process that forgets exponentially, of which a signal that jumps between
levels is one; how fast it forgets is seen in the samples themselves.
"""

import math
from dataclasses import dataclass

CAUTION = 0.1
"""A correlation is known to about that from some dozens of samples, and what it costs to miss it is steep near 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgePower:
    """The power just before an edge, in watts, and the variance of what it is taken for about what it was, in W²."""

    power_w: float
    variance_w2: float = 0.0


def lag_j(opening: EdgePower, closing: EdgePower, *, resolution_s: float) -> float:
    """Returns the joules to be added to what was read between two edges, for readings that are old by r/2 on average.

    What was used in that time before an edge is not in the reading yet.
    """
    return (closing.power_w - opening.power_w) * resolution_s / 2


def counter_edges_j2(opening: EdgePower, closing: EdgePower, *, resolution_s: float, unit_j: float) -> float:
    """Returns the variance of a counter's difference after `lag_j` was added.

    Each reading misses power × age, the age being uniform on 0 to r: power² × r²/12 about the mean; where the power was
    another, the difference is missed with the age's mean square, r²/3. And each is cut to a whole unit: unit²/12.

    Args:
        opening: the power just before the opening edge.
        closing: the power just before the closing edge.
        resolution_s: how often the counter changes, in seconds: r.
        unit_j: joules of one count.
    """
    return sum(
        (edge.power_w**2 / 12 + edge.variance_w2 / 3) * resolution_s**2 + unit_j**2 / 12 for edge in (opening, closing)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSums:
    """What a run of power samples says of what lies between them: sums that are taken over any stretch by subtraction.

    With x = change of power × t, in joules: the sum of x², and of the products of neighbours. t² is the square of the
    time between the samples plus that of the sensor's r: a jump is seen late by both, independently.
    """

    squares_j2: float = 0.0
    neighbours_j2: float = 0.0
    gaps_j2: float = 0.0
    """The variance of stretches without samples, added up."""

    def minus(self, before: "StepSums") -> "StepSums":
        """Returns the sums since `before`."""
        return StepSums(
            squares_j2=self.squares_j2 - before.squares_j2,
            neighbours_j2=self.neighbours_j2 - before.neighbours_j2,
            gaps_j2=self.gaps_j2 - before.gaps_j2,
        )

    @property
    def variance_j2(self) -> float:
        """The variance of the trapezoids over these samples.

        A jump at an unknown moment between two samples is a rectangular distribution of width x: x²/12. That holds for
        jumps that are rare. Power that jumps many times between two samples makes each sample a lot drawn from all its
        levels, and costs more. For a process with correlation ρ between successive samples, a = -ln ρ apart in units
        of its memory, the error of the sum of trapezoids has per step the variance

            x² × (coth(a/2) - 2/a) / (2 (1 - ρ)),

        which is that of the sum of samples, plus that of the integral, less twice their covariance: x²/12 as ρ → 1, and
        x²/2 as ρ → 0. For such a process, neighbouring changes have the mean product -x² (1 - ρ) / 2: hence ρ, which is
        then taken for a little less.
        """
        if self.squares_j2 <= 0:
            return max(0.0, self.gaps_j2)
        correlation = 1 + 2 * min(0.0, self.neighbours_j2 / self.squares_j2) - CAUTION
        return self.squares_j2 * _step_factor(correlation) + max(0.0, self.gaps_j2)


def _step_factor(correlation: float) -> float:
    if correlation <= 0:
        return 1 / 2
    distance = -math.log(correlation)
    return ((1 + correlation) / (1 - correlation) - 2 / distance) / (2 * (1 - correlation))


class PowerHistory:
    """How much one domain's power has been seen to change, for the stretches in which it is not seen."""

    def __init__(self) -> None:
        self._observed_s = 0.0
        self._sum_square_change_w2 = 0.0
        self._lowest_w = math.inf
        self._highest_w = 0.0

    def add(self, before_w: float, now_w: float, *, interval_s: float) -> None:
        """Takes in two successive powers, in watts, and the seconds between them."""
        self._observed_s += interval_s
        self._sum_square_change_w2 += (now_w - before_w) ** 2
        self._lowest_w = min(self._lowest_w, before_w, now_w)
        self._highest_w = max(self._highest_w, before_w, now_w)

    def square_change_w2(self, interval_s: float, *, power_w: float) -> float:
        """Returns the mean square change of power to be expected over `interval_s`, in W².

        It grows with time, as it did so far, up to that of two samples that are each as likely the lowest power seen as
        the highest. That none was seen does not exclude a change: it is at least as if one as large as `power_w` itself
        had been the next thing to come, which weighs less the longer the power was seen.
        """
        seen_w2 = 0.0
        if self._observed_s > 0:
            grown_w2 = self._sum_square_change_w2 / self._observed_s * interval_s
            seen_w2 = min(grown_w2, (self._highest_w - self._lowest_w) ** 2 / 2)
        if interval_s <= 0:
            return 0.0
        return max(seen_w2, power_w**2 * interval_s / (self._observed_s + interval_s))

    def gap_j2(self, before_w: float, now_w: float, *, interval_s: float) -> float:
        """Returns the variance of a trapezoid over a stretch without samples: equal ends do not mean equal between.

        One jump in it is square change/12; where the stretch outlasts the power's memory, the ends are two lots drawn
        from it, which is square change/4. In between is taken, since neither is known.
        """
        expected_w2 = self.square_change_w2(interval_s, power_w=(before_w + now_w) / 2)
        return max((now_w - before_w) ** 2, expected_w2) * interval_s**2 / 6

    def hold_j2(self, power: EdgePower, *, held_s: float) -> float:
        """Returns the variance of holding a power beyond its last sample.

        The square change grows with time, so that its integral twice over is a third of its end: D(t) t²/3.
        """
        return (self.square_change_w2(held_s, power_w=power.power_w) / 3 + power.variance_w2) * held_s**2
