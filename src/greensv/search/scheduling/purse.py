"""What moves cost, and whether they fit what is left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greensv.search.rungs.history import Run
from greensv.search.scheduling.policy import Outlook
from greensv.search.scheduling.ranking import Floats

MARGIN = 1.15
"""A move is begun when so many times its expected cost are left: predictions err, and a stopped training is wasted."""


def whole_j(runs: Sequence[Run], outlook: Outlook) -> Floats:
    """Returns what training runs' candidates from the beginning to the top costs, margin included, in joules."""
    if not runs:
        return np.zeros(0)
    candidates = [run.candidate for run in runs]
    found = outlook.costs.rung_costs(candidates, from_step=0, to_step=outlook.rung_steps[-1])
    return MARGIN * np.array([prediction.energy_j for prediction in found])


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """The costs of moves, and the joules that may be spent on them."""

    outlook: Outlook
    within_j: float
    """What the search may still use: what is left less what is kept back."""

    def fits(self, run: Run, *, rung: int) -> bool:
        """Returns whether what is left, all of it, pays for going on with a run up to a rung."""
        return bool(self._costs([run], to_rung=rung)[0] <= self.outlook.left_j)

    def reaches_top(self, run: Run) -> bool:
        """Returns whether the search can pay for a run's whole way to the top."""
        return bool(self.to_top([run])[0] <= self.within_j)

    def to_top(self, runs: Sequence[Run]) -> Floats:
        """Returns what the way from where runs stand to the top costs, margin included, in joules."""
        return self._costs(runs, to_rung=-1)

    def pays_for(self, whole_j: float) -> bool:
        """Returns whether the search can pay for a whole short training of this cost."""
        return self.within_j > 0 and whole_j <= self.within_j

    def _costs(self, runs: Sequence[Run], *, to_rung: int) -> Floats:
        """Each from its own step, those from the same step asked together."""
        costs = np.zeros(len(runs))
        steps = np.array([run.step for run in runs])
        for step in np.unique(steps):
            rows = np.flatnonzero(steps == step).tolist()
            found = self.outlook.costs.rung_costs(
                [runs[row].candidate for row in rows], from_step=int(step), to_step=self.outlook.rung_steps[to_rung]
            )
            costs[rows] = [MARGIN * prediction.energy_j for prediction in found]
        return costs
