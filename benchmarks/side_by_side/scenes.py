"""What the simulated hardware does in a window, and what its counters suffer."""

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

PACKAGE_W, GPU_W, MEMORY_W = (40.0, 150.0), (100.0, 300.0), 12.0
AFTER_S = 60.0
"""The power goes on that long after the window."""

Make = Callable[[random.Random, tuple[float, float], float, float], Any]
"""From a generator, the lowest and highest power, and the window's edges to a curve of power."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The power of the package and the GPU, and what becomes of the counters."""

    make: Make
    wraps: bool = False
    """The package's counter wraps in the middle of the window."""
    fails: str | None = None
    """What failing_reads.c does."""
    fails_from: float = 0.0
    """From that part of the window on."""

    def curves(self, seed: int, opens_s: float, closes_s: float) -> dict[str, Any]:
        """Returns the power of each domain as a function of the time since the start."""
        from simulated.powers import constant

        rng = random.Random(seed)
        package, gpu = (self.make(rng, levels_w, opens_s, closes_s) for levels_w in (PACKAGE_W, GPU_W))
        return {"package": package, "dram": constant(MEMORY_W), "gpu": gpu}


def _constant(rng: random.Random, levels_w: tuple[float, float], opens_s: float, closes_s: float) -> Any:
    from simulated.powers import constant

    return constant(rng.uniform(*levels_w))


def _step(rng: random.Random, levels_w: tuple[float, float], opens_s: float, closes_s: float) -> Any:
    from simulated.powers import step

    quarter_s = (closes_s - opens_s) / 4
    return step(*levels_w, at_s=rng.uniform(opens_s + quarter_s, closes_s - quarter_s))


def _ramp(rng: random.Random, levels_w: tuple[float, float], opens_s: float, closes_s: float) -> Any:
    from simulated.powers import ramp

    return ramp(*levels_w, from_s=opens_s, to_s=closes_s)


def _bursts(rng: random.Random, levels_w: tuple[float, float], opens_s: float, closes_s: float) -> Any:
    from simulated.powers import bursts

    low_w, high_w = levels_w
    return bursts(rng, low_w=low_w, high_w=high_w, mean_low_s=2.0, mean_high_s=6.0, length_s=closes_s + AFTER_S)


SCENES: Mapping[str, Scene] = MappingProxyType(
    {
        "constant": Scene(make=_constant),
        "step": Scene(make=_step),
        "ramp": Scene(make=_ramp),
        "random bursts": Scene(make=_bursts),
        "bursts, package wraps": Scene(make=_bursts, wraps=True),
        "bursts, one read in ten lost": Scene(make=_bursts, fails="lost"),
        "bursts, package dies half-way": Scene(make=_bursts, fails="package", fails_from=0.5),
        "bursts, GPU dies half-way": Scene(make=_bursts, fails="gpu", fails_from=0.5),
    }
)
