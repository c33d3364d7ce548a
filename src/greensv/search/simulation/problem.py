"""What a search problem is, for `greensv bench search --problem FILE.py:NAME`.

A problem has a space, says what training a point of it costs, and how its error falls with training. The scheduler, the
samplers and the ledger of a real search run on it unchanged; only the training is replaced, and time passes at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from greensv.speaker.space import Params, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What training a candidate from one step to another used, and showed at its end."""

    energy_kwh: float
    """Used by this piece of training, its evaluation included."""
    duration_s: float
    eer: float
    """At the end of this piece, a fraction, as the development pairs show it: with their noise."""
    train_energy_kwh: float
    """Energy of the full recipe, as projected from what was measured: the second objective."""


class Problem(ABC):
    """A search problem. Points are parameters of `space`, as a backbone's are.

    A complete problem::

        class Bowl(Problem):
            name = "bowl"
            rung_steps = (10, 30, 90)

            def space(self):
                return {"x": FloatRange(low=0.0, high=1.0, default=0.5)}

            def predict_kwh(self, params, *, from_step, to_step):
                return 1e-3 * (1 + params["x"]) * (to_step - from_step)

            def predict_train_energy_kwh(self, params):
                return 10 * (1 + params["x"])

            def train(self, params, *, seed, from_step, to_step):
                eer = 0.02 + (params["x"] - 0.7) ** 2 / 10 + 0.1 / to_step
                return Outcome(
                    energy_kwh=self.predict_kwh(params, from_step=from_step, to_step=to_step),
                    duration_s=float(to_step - from_step),
                    eer=eer,
                    train_energy_kwh=10 * (1 + params["x"]),
                )
    """

    name: str
    rung_steps: Sequence[int]
    """Training steps at which trainings are compared, rising; the last is a whole short training."""

    @abstractmethod
    def space(self) -> Space:
        """Returns what may be chosen."""

    @abstractmethod
    def predict_kwh(self, params: Params, *, from_step: int, to_step: int) -> float:
        """Returns what a piece of training is expected to use, evaluation included: what a cost model would say."""

    @abstractmethod
    def predict_train_energy_kwh(self, params: Params) -> float:
        """Returns the expected energy of the full recipe: the second objective before any training."""

    @abstractmethod
    def train(self, params: Params, *, seed: int, from_step: int, to_step: int) -> Outcome:
        """Trains from one step to another. The same arguments give the same outcome."""

    def seeds(self) -> Sequence[Params]:
        """Returns known systems, of which every method is given the six cheapest first; none by default."""
        return ()

    def truth(self, params: Params) -> tuple[float, float]:
        """Returns the true (EER, kWh) of the full training, by which the points that a search returns are scored.

        By default what a whole short training shows with seed 0: right for a problem without noise.
        """
        outcome = self.train(params, seed=0, from_step=0, to_step=self.rung_steps[-1])
        return outcome.eer, outcome.train_energy_kwh

    def reference(self) -> tuple[float, float]:
        """Returns the (EER, kWh) beyond which a point adds nothing to the hypervolume, logarithmic in energy.

        By default a tenth beyond the worst of 1,000 random points.
        """
        from greensv.search.simulation.hypervolume import worst_of_random

        return worst_of_random(self)
