"""What a training step will cost, before it runs: a prior from the network's work, scaled by what was measured here.

FLOPs alone mispredict energy by up to 77 % (leave-one-out over the 15 systems of the paper's Table 1); with the
activations written beside them, by 57 %, 12 % in the median. So the prior weighs both, and every measurement on this
machine corrects it.
"""

import math
from dataclasses import dataclass, field

import numpy as np

# From a fit of the paper's Table 1 (kWh per GMAC and per million activations of one forward pass; non-negative least
# squares on the relative error): only their ratio matters here, the machine's own scale is measured.
GMAC_WEIGHT = 0.516
MEGA_ACTIVATION_WEIGHT = 0.0155
TRAINING_PASSES = 3.0
"""Forward plus backward, in units of one forward pass (two matrix products per layer backward, one forward)."""
UNKNOWN_SPREAD = 0.5
"""Standard deviation of ln(energy) assumed before two points have been measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one forward pass of one second of speech."""

    macs: float
    activations: float

    @property
    def units(self) -> float:
        """The prior's cost in arbitrary units."""
        return GMAC_WEIGHT * self.macs / 1e9 + MEGA_ACTIVATION_WEIGHT * self.activations / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A measured training: joules and seconds per second of training speech."""

    work: Work
    joules: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Joules and seconds for so many seconds of training speech, and an upper bound of the joules."""

    energy_j: float
    upper_j: float
    duration_s: float


@dataclass(slots=True)
class CostModel:
    """Predicts cost from `Work`, through ln(cost) = a + b·ln(units), fitted to what was measured on this machine.

    With one measurement b is 1. With more, b is held within [0.3, 1.2]: narrow networks cost more than in proportion,
    since a step has a fixed part.
    """

    measured: list[Measured] = field(default_factory=list)

    def add(self, measured: Measured) -> None:
        """Learns from a measured training."""
        self.measured.append(measured)

    def predict(self, work: Work, *, speech_s: float) -> Prediction:
        """Returns the cost of training on `speech_s` seconds of speech.

        Needs one measurement at least. The upper bound is two standard deviations of the fit above the prediction, and
        15 % at least.
        """
        assert self.measured, "probe a network before predicting"
        joules, spread = self._fit(work, [m.joules for m in self.measured])
        seconds, _ = self._fit(work, [m.seconds for m in self.measured])
        energy_j = joules * speech_s
        upper_j = energy_j * math.exp(min(2 * spread, 1.5))
        return Prediction(energy_j=energy_j, upper_j=max(upper_j, 1.15 * energy_j), duration_s=seconds * speech_s)

    def _fit(self, work: Work, costs: list[float]) -> tuple[float, float]:
        x = np.log([m.work.units for m in self.measured])
        y = np.log(costs)
        slope = 1.0
        if len(x) > 1 and float(np.ptp(x)) > 0.1:
            slope = float(np.clip(np.polyfit(x, y, 1)[0], 0.3, 1.2))
        intercept = float(np.mean(y - slope * x))
        residuals = y - (intercept + slope * x)
        # Two points fit a line exactly; a few say little. The unknown spread fades as points come in.
        num = len(x)
        variance = (float(np.sum(residuals**2)) + 2 * UNKNOWN_SPREAD**2 / num) / (num + 1)
        return math.exp(intercept + slope * math.log(work.units)), math.sqrt(variance)
