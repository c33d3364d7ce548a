"""All that the policy needs to know of a search to decide, worked out once for each decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from greensv.config.study import SearchConfig
from greensv.search.objectives import Objective
from greensv.search.rungs.history import History, Run
from greensv.search.scheduling import trust
from greensv.search.scheduling.optimism import is_hopeless
from greensv.search.scheduling.policy import Outlook
from greensv.search.scheduling.purse import Purse, whole_j
from greensv.search.scheduling.ranking import Floats, coarse, scaled
from greensv.search.scheduling.replicas import kept_back_j
from greensv.search.scheduling.standing import Level, levels

ENDGAME_SHARE, ENDGAME_TRAININGS = 0.2, 2.0
"""When less than this share of the budget is left to search with, or less than so many trainings cost, nothing new is
begun while begun ones are worth it."""
DEAR_SHARE, DEAR_TRAININGS = 0.2, 2.0
"""A candidate whose whole training costs more than this share of the budget, and more than so many usual ones, waits:
the front gains more by several others."""
MIN_LATEST, NUM_LATEST = 3, 20
"""Runs by which the usual cost of a training is told."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Where a search stands."""

    config: SearchConfig
    objectives: Sequence[Objective]
    history: History
    outlook: Outlook

    @cached_property
    def levels(self) -> list[Level]:
        """The rungs, from the lowest to the top."""
        return levels(self.history, self.objectives)

    @cached_property
    def rungs(self) -> list[trust.Rung]:
        """What is known of the rungs below the top."""
        return trust.judge(self.history, self.objectives)

    @cached_property
    def floor(self) -> int | None:
        """The lowest rung that may stop candidates; None where too little is known yet."""
        return trust.floor(self.rungs, min_correlation=self.config.min_rung_correlation)

    @cached_property
    def purse(self) -> Purse:
        """What the search may use, and what things cost."""
        kept_j = kept_back_j(self.history, self.outlook, self.objectives, share=self.config.repeat_share)
        return Purse(outlook=self.outlook, within_j=self.outlook.left_j - kept_j)

    @cached_property
    def usual_j(self) -> tuple[float, float]:
        """What whole short trainings of the latest candidates cost, margin included: cheap ones (the lower quartile),
        and the median; 0 where too few are known.
        """
        latest = [run for run in self.history.all() if not run.key.repetition][-NUM_LATEST:]
        if len(latest) < MIN_LATEST:
            return 0.0, 0.0
        cheap, median = np.quantile(whole_j(latest, self.outlook), (0.25, 0.5))
        return float(cheap), float(median)

    @cached_property
    def most_j(self) -> float:
        """What one candidate's whole short training may cost, margin included, before the endgame."""
        return max(DEAR_SHARE * self.outlook.cap_j, DEAR_TRAININGS * self.usual_j[1])

    def is_too_dear(self, run: Run) -> bool:
        """Returns whether a run's candidate costs more than one may."""
        return bool(whole_j([run], self.outlook)[0] > self.most_j)

    @property
    def is_endgame(self) -> bool:
        """Whether the budget is nearly used up: a candidate that starts at the bottom would hardly reach the top."""
        return self.purse.within_j < max(ENDGAME_SHARE * self.outlook.cap_j, ENDGAME_TRAININGS * self.usual_j[1])

    @cached_property
    def is_hopeless(self) -> list[NDArray[np.bool_]]:
        """Which of each rung's runs are open, may be stopped, and would not reach the front even with luck."""
        return [self._hopeless(level, rung) for level, rung in zip(self.levels, self.rungs, strict=False)]

    def hopeful(self) -> list[Level]:
        """Returns the rungs, only those open that may still reach the front."""
        masks = [*self.is_hopeless, np.zeros(len(self.levels[-1].runs), dtype=bool)]
        return [
            Level(runs=level.runs, values=level.values, is_open=level.is_open & ~mask)
            for level, mask in zip(self.levels, masks, strict=True)
        ]

    def compared(self, rung: int) -> Floats:
        """Returns what a rung's runs are ranked by: what is expected of them at the top, energies rounded."""
        values = self.rungs[rung].at_top(self.levels[rung].values, self.objectives)
        return coarse(scaled(values, self.objectives), self.objectives, energy_tolerance=self.config.energy_tolerance)

    def open_runs(self, rung: int) -> list[Run]:
        """Returns what waits at a rung."""
        level = self.levels[rung]
        return [level.runs[row] for row in np.flatnonzero(level.is_open).tolist()]

    def _hopeless(self, level: Level, rung: trust.Rung) -> NDArray[np.bool_]:
        found = np.zeros(len(level.runs), dtype=bool)
        rows = [row for row in np.flatnonzero(level.is_open).tolist() if not level.runs[row].must_finish]
        if rows and rung.correlation is not None:
            found[rows] = is_hopeless(
                level.values[rows],
                rung.extrapolation,
                top=self.levels[-1].values,
                objectives=self.objectives,
                energy_tolerance=self.config.energy_tolerance,
            )
        return found
