"""What has been measured of a training up to a rung, by whichever workers did the parts of it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from greensv.search.measuring import TrainingCost


@dataclass(frozen=True, slots=True, kw_only=True)
class RungFigures:
    """What a rung showed: one point of the trial's curve."""

    step: int
    eer: float
    min_dcf: float
    train_energy_kwh: float
    measured_energy_kwh: float
    """Used by the training up to this rung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoFar:
    """Sums over the parts of a training. Joules include PUE; uncertainties are standard and add up, since the meters'
    scale is off in all parts alike.

    What a step costs (`steady_j`, `other_phases`) is in joules of the hardware that the study began on, whichever
    machines did the parts; what was used (`energy_j`, `data_wait_j`, `net_j`) is in joules of those.
    """

    num_steps: int = 0
    duration_s: float = 0.0
    """From the beginning of each part to its end, evaluation included."""
    energy_j: float = 0.0
    uncertainty_j: float = 0.0
    steady_steps: int = 0
    steady_j: float = 0.0
    steady_uncertainty_j: float = 0.0
    steady_s: float = 0.0
    data_wait_s: float | None = 0.0
    data_wait_j: float | None = 0.0
    net_j: float | None = 0.0
    net_uncertainty_j: float = 0.0
    num_skipped: int = 0
    part: tuple[float, float] | None = None
    """Of the latest part, on the machine that did it: joules per step and seconds per step."""
    other_phases: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """Of each phase of the recipe with another crop: measured joules per step, and their uncertainty."""
    curve: tuple[Mapping[str, float], ...] = ()

    @property
    def joules_per_step(self) -> float:
        """Over all steady steps."""
        return self.steady_j / self.steady_steps

    @property
    def joules_per_step_uncertainty(self) -> float:
        """Its standard uncertainty."""
        return self.steady_uncertainty_j / self.steady_steps

    @property
    def seconds_per_step(self) -> float:
        """Over all steady steps."""
        return self.steady_s / self.steady_steps

    def plus(self, cost: TrainingCost, *, num_skipped: int, unit_factor: float = 1.0) -> Self:
        """Returns the sums with another part; what is not known of one part is not known of the whole."""
        steady = cost.num_steady_steps
        wait, net = cost.data_wait, cost.net
        return dataclasses.replace(
            self,
            num_steps=self.num_steps + cost.num_steps,
            energy_j=self.energy_j + cost.energy_j,
            uncertainty_j=self.uncertainty_j + cost.uncertainty_j,
            steady_steps=self.steady_steps + steady,
            steady_j=self.steady_j + unit_factor * steady * cost.joules_per_step,
            steady_uncertainty_j=self.steady_uncertainty_j + unit_factor * steady * cost.joules_per_step_uncertainty,
            part=(cost.joules_per_step, cost.seconds_per_step),
            steady_s=self.steady_s + steady * cost.seconds_per_step,
            data_wait_s=None if wait is None or self.data_wait_s is None else self.data_wait_s + wait.duration_s,
            data_wait_j=None if wait is None or self.data_wait_j is None else self.data_wait_j + wait.energy_j,
            net_j=None if net is None or self.net_j is None else self.net_j + net.energy_j,
            net_uncertainty_j=self.net_uncertainty_j + (net.uncertainty_j if net is not None else 0.0),
            num_skipped=max(self.num_skipped, num_skipped),
        )

    def at_rung(self, figures: RungFigures, *, duration_s: float) -> Self:
        """Returns the sums with what a rung showed, `duration_s` after its part began."""
        return dataclasses.replace(
            self,
            curve=(*self.curve, dataclasses.asdict(figures)),
            duration_s=self.duration_s + duration_s,
        )

    def as_json(self) -> dict[str, Any]:
        """Returns plain values, for the book of rungs."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Returns what `as_json` made; what is missing, in a run that was never judged, is nothing so far."""
        known = {f.name for f in dataclasses.fields(cls)}
        found = {key: value for key, value in values.items() if key in known}
        if found.get("part") is not None:
            found["part"] = (found["part"][0], found["part"][1])
        found["curve"] = tuple(found.get("curve", ()))
        found["other_phases"] = {k: (v[0], v[1]) for k, v in found.get("other_phases", {}).items()}
        return cls(**found)
