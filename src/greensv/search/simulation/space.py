"""A search problem in the terms of a real search: its space, and what is known of its candidates beforehand."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from greensv.config import FeatureConfig
from greensv.errors import ConfigError
from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.cost import Prediction
from greensv.search.simulation.problem import Problem
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Params, Space
from greensv.units import j_from_kwh

if TYPE_CHECKING:
    from torch import nn

BACKBONE = "simulated"
UPPER_MARGIN = 1.15
"""A lease exceeds the expected cost by so much, as that of a well-known network does."""


class SimulatedBackbone(Backbone):
    """Stands for a problem's space in `SearchSpace`; its networks are never built."""

    name = BACKBONE

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def space(self) -> Space:
        """Returns the problem's space."""
        return self._problem.space()

    def systems(self) -> dict[str, Params]:
        """Returns the problem's known systems."""
        return {f"seed {number}": params for number, params in enumerate(self._problem.seeds(), start=1)}

    def build(self, params: Params, *, features: FeatureConfig) -> "nn.Module":
        """Raises ConfigError: nothing is trained in a simulation."""
        raise ConfigError("a simulated network cannot be built; use a problem's own train()")


def search_space(problem: Problem) -> SearchSpace:
    """Returns a problem's space as a search has it."""
    return SearchSpace(backbones={BACKBONE: SimulatedBackbone(problem)}, spaces={BACKBONE: problem.space()})


class ProblemCosts:
    """What the scheduler and the samplers are told beforehand: the problem's own predictions."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def rung_costs(self, candidates: Sequence[Candidate], *, from_step: int, to_step: int) -> list[Prediction]:
        """Returns what training each from one step to another will use; how long it takes is not predicted."""
        predict = self._problem.predict_kwh
        energies_j = [j_from_kwh(predict(c.params, from_step=from_step, to_step=to_step)) for c in candidates]
        return [Prediction(energy_j=e, upper_j=UPPER_MARGIN * e, duration_s=math.nan) for e in energies_j]

    def known_objectives(self, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Returns (EER, kWh) of each, the EER not known."""
        predict = self._problem.predict_train_energy_kwh
        return np.array([(math.nan, predict(c.params)) for c in candidates], dtype=np.float64).reshape(-1, 2)

    def refusal(self, candidate: Candidate) -> None:
        """Returns None: a problem has no constraints."""
