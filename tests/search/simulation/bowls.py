"""Small problems for tests of the simulation, which a child process and the command line can load."""

import math

from greensv.search.simulation.problem import Outcome, Problem
from greensv.speaker.space import Choice, FloatRange, IntRange


class Bowl(Problem):
    """The error is lowest in the middle, the energy grows with x; no noise."""

    name = "bowl"
    rung_steps = (10, 30, 90)

    def space(self):
        return {"x": FloatRange(low=0.0, high=1.0, default=0.5), "y": IntRange(low=0, high=9, default=0)}

    def predict_kwh(self, params, *, from_step, to_step):
        return 1e-3 * (1 + params["x"]) * (to_step - from_step)

    def predict_train_energy_kwh(self, params):
        return 10 * (1 + params["x"])

    def train(self, params, *, seed, from_step, to_step):
        return Outcome(
            energy_kwh=self.predict_kwh(params, from_step=from_step, to_step=to_step),
            duration_s=1_000.0 * (to_step - from_step) / 10,
            eer=0.02 + (params["x"] - 0.7) ** 2 / 10 + params["y"] / 1_000 + 0.1 / to_step,
            train_energy_kwh=10 * (1 + params["x"]),
        )

    def seeds(self):
        return [{"x": 0.0, "y": 3}, {"x": 1.0, "y": 3}]


class Wasteful(Bowl):
    """Uses twice what it predicts."""

    name = "wasteful"

    def predict_kwh(self, params, *, from_step, to_step):
        return super().predict_kwh(params, from_step=from_step, to_step=to_step) / 2

    def train(self, params, *, seed, from_step, to_step):
        outcome = super().train(params, seed=seed, from_step=from_step, to_step=to_step)
        return Outcome(
            energy_kwh=2 * self.predict_kwh(params, from_step=from_step, to_step=to_step),
            duration_s=outcome.duration_s,
            eer=outcome.eer,
            train_energy_kwh=outcome.train_energy_kwh,
        )


class Short(Bowl):
    """One rung of one step: as little to do for a worker as can be."""

    name = "short"
    rung_steps = (1,)

    def space(self):
        return {"x": FloatRange(low=0.0, high=1.0, default=0.5)}

    def train(self, params, *, seed, from_step, to_step):
        return super().train({**params, "y": 0}, seed=seed, from_step=from_step, to_step=to_step)

    def seeds(self):
        return []


class NotANumber(Bowl):
    def train(self, params, *, seed, from_step, to_step):
        outcome = super().train(params, seed=seed, from_step=from_step, to_step=to_step)
        return Outcome(energy_kwh=outcome.energy_kwh, duration_s=outcome.duration_s, eer=math.nan, train_energy_kwh=1.0)


class Raises(Bowl):
    def train(self, params, *, seed, from_step, to_step):
        return [1, 2][to_step]


class FallingSteps(Bowl):
    rung_steps = (10, 5)


class FreeTraining(Bowl):
    def predict_kwh(self, params, *, from_step, to_step):
        return 0.0


class SeedOutside(Bowl):
    def seeds(self):
        return [{"x": 2.0, "y": 0}]


class Pair(Bowl):
    """A space of two points."""

    def space(self):
        return {"x": Choice(options=("0", "1"), default="0")}

    def predict_kwh(self, params, *, from_step, to_step):
        return 1e-3 * (to_step - from_step)

    def predict_train_energy_kwh(self, params):
        return 10.0 + float(params["x"])

    def train(self, params, *, seed, from_step, to_step):
        return Outcome(
            energy_kwh=self.predict_kwh(params, from_step=from_step, to_step=to_step),
            duration_s=1.0,
            eer=0.2 - 0.1 * float(params["x"]),
            train_energy_kwh=10.0 + float(params["x"]),
        )

    def seeds(self):
        return []


bowl = Bowl()
ready = 3
