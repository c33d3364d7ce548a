"""The paper's search space as a formula fitted to its Table 1: a search problem in microseconds, without a GPU.

It is smooth, and no claim about real networks: Table 1 prints no curves, so how far short trainings mislead is an
assumption, `kappa`. Methods are compared on several of them.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from greensv.search.simulation.problem import Outcome, Problem
from greensv.speaker.space import IntRange, Params, Space
from greensv.units import j_from_kwh

_CHANNELS = (128, 128, 256, 256)
_POSITIONS = (80 * 350, 40 * 175, 20 * 88, 10 * 44)
_STAGES = ("blocks1", "blocks2", "blocks3", "blocks4")
_MOST_BLOCKS = (8, 24, 36, 8)
_DEFAULT_BLOCKS = (3, 4, 6, 3)
# kWh per GMAC, per million activations and per block: non-negative least squares on the relative error of the 15 rows.
_KWH_PER_WORK = (0.516043, 0.0154987, 2.15815)
_DEPTH_GAINS = (0.588916, 1.154100, 0.883789, 0.162483)
SHORT_SHARE = 0.02
"""What a whole short training uses of the full recipe's energy."""
_COST_NOISE, _MEASURING_NOISE = 0.05, 0.04
_POWER_W = 300.0

PUBLISHED = (
    ("2-2-2-2", 0),
    ("2-2-2-8", 0),
    ("2-2-8-2", 0),
    ("2-8-2-2", 0),
    ("3-4-6-3", -2),
    ("3-4-6-3", -1),
)
"""Blocks and log2 of the width of the six systems of Table 1 that the formula finds cheapest."""


class Table1Surrogate(Problem):
    """Blocks per stage and width of a ResNet, with the fitted energy and error rate of its full training.

    The error after r of R = 27 units of a short training is 1.35·EER·(1 + max(0.15, A)·((R/r)^0.45 - 1)) with noise of
    deviation 0.012 + 0.02/√r on its logarithm; A = 0.9 + kappa·(log10(GMAC + 1) - 1.5). So `kappa` is how far larger
    networks start behind: ranks of short trainings predict those of long ones at 0.02 and mislead at 0.2.
    """

    rung_steps: Sequence[int] = (1, 3, 9, 27)

    def __init__(self, kappa: float) -> None:
        self.kappa = kappa
        self.name = f"table1-k{kappa:g}"

    def space(self) -> Space:
        """Returns the blocks of the four stages, and the width as a power of two: 1/4 to 2."""
        blocks = {
            stage: IntRange(low=1, high=high, default=default, log=True)
            for stage, high, default in zip(_STAGES, _MOST_BLOCKS, _DEFAULT_BLOCKS, strict=True)
        }
        return {**blocks, "width_log2": IntRange(low=-2, high=1, default=0)}

    def predict_kwh(self, params: Params, *, from_step: int, to_step: int) -> float:
        """Returns the expected energy of a piece of training; what is used deviates by 5 %."""
        return SHORT_SHARE * self.predict_train_energy_kwh(params) * (to_step - from_step) / self.rung_steps[-1]

    def predict_train_energy_kwh(self, params: Params) -> float:
        """Returns the fitted energy of the full recipe."""
        return _of(params)[0]

    def train(self, params: Params, *, seed: int, from_step: int, to_step: int) -> Outcome:
        """Returns what a piece of training uses, and the error at its end; the noise is drawn anew at every step."""
        energy_kwh, eer, gmac = _of(params)
        at_end = _normals(params, seed, to_step)
        used_kwh = self.predict_kwh(params, from_step=from_step, to_step=to_step)
        used_kwh *= math.exp(_COST_NOISE * _normals(params, seed, to_step, from_step)[0])
        behind = max(0.15, 0.9 + self.kappa * (math.log10(gmac + 1) - 1.5))
        shown = 1.35 * eer * (1 + behind * ((self.rung_steps[-1] / to_step) ** 0.45 - 1))
        return Outcome(
            energy_kwh=used_kwh,
            duration_s=j_from_kwh(used_kwh) / _POWER_W,
            eer=shown * math.exp((0.012 + 0.02 / math.sqrt(to_step)) * at_end[0]),
            train_energy_kwh=energy_kwh * math.exp(_MEASURING_NOISE * at_end[1]),
        )

    def seeds(self) -> Sequence[Params]:
        """Returns six published systems, the cheapest by the formula."""
        return [
            {**dict(zip(_STAGES, map(int, blocks.split("-")), strict=True)), "width_log2": width_log2}
            for blocks, width_log2 in PUBLISHED
        ]

    def truth(self, params: Params) -> tuple[float, float]:
        """Returns the fitted error rate and energy of the full training, without noise."""
        energy_kwh, eer, _ = _of(params)
        return eer, energy_kwh

    def reference(self) -> tuple[float, float]:
        """Returns 5 % and 900 kWh: beyond the worst and the dearest row of Table 1."""
        return 0.05, 900.0


def _of(params: Params) -> tuple[float, float, float]:
    blocks = tuple(int(params[stage]) for stage in _STAGES)
    return _full_training(blocks, int(params["width_log2"]))


@lru_cache(maxsize=100_000)
def _full_training(blocks: tuple[int, ...], width_log2: int) -> tuple[float, float, float]:
    """Returns the energy in kWh, the EER as a fraction, and the multiply-accumulates in units of 10⁹."""
    width = 2.0**width_log2
    stages = [(b, width * c, p) for b, c, p in zip(blocks, _CHANNELS, _POSITIONS, strict=True)]
    gmac = sum(b * 18 * c**2 * p for b, c, p in stages) / 1e9
    activations = sum(b * 2 * c * p for b, c, p in stages) / 1e6
    energy_kwh = sum(k * work for k, work in zip(_KWH_PER_WORK, (gmac, activations, sum(blocks)), strict=True))
    depth = 1 + sum(gain * math.log1p(b) for gain, b in zip(_DEPTH_GAINS, blocks, strict=True))
    narrow = 0.072422 * (width**-1.854988 - 1)
    eer_percent = 2.942823 + 4.277466 / depth + narrow + 0.032912 * max(0, width_log2) ** 2
    return energy_kwh, eer_percent / 100, gmac


def _normals(params: Params, seed: int, *steps: int) -> np.ndarray:
    point = [int(params[stage]) for stage in _STAGES] + [int(params["width_log2"]) + 2]
    return np.random.default_rng([*point, seed, *steps]).standard_normal(2)
