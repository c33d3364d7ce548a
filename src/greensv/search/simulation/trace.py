"""What a simulated search did, and how good a front it had at each energy spent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greensv.search.front import non_dominated
from greensv.search.rungs.history import RunKey
from greensv.search.simulation.hypervolume import Scale
from greensv.search.simulation.problem import Problem
from greensv.speaker.space import Params


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a run showed at its rung, and what the whole search had spent by then."""

    spent_kwh: float
    """Charged to the account, by all workers."""
    key: RunKey
    params: Params
    eer: float
    train_energy_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One simulated search."""

    shown: Sequence[Shown]
    """In the order of their time."""
    spent_kwh: float
    """Charged in all, by the ledger."""
    overrun_kwh: float
    """Charged beyond the cap."""
    used_kwh: float
    """Truly used by the simulated trainings, those of workers that died included."""
    num_trials: int
    num_runs: int
    num_deaths: int
    duration_s: float
    """Simulated."""
    ended_because: str

    def returned(self, within_kwh: float) -> list[Params]:
        """Returns the networks that the search would return, had it ended when so much was spent.

        They are the non-dominated among those that came to the highest rung that any had come to; a network that was
        trained with several seeds counts with its mean EER.
        """
        known = [shown for shown in self.shown if shown.spent_kwh <= within_kwh]
        if not known:
            return []
        highest = max(shown.key.rung for shown in known)
        at_top = [shown for shown in known if shown.key.rung == highest]
        own = {shown.key.trial_number: shown for shown in at_top if shown.key.repetition == 0}
        eers: dict[int, list[float]] = {number: [] for number in own}
        for shown in at_top:
            if shown.key.trial_number in eers:
                eers[shown.key.trial_number].append(shown.eer)
        points = np.array([(np.mean(eers[n]), shown.train_energy_kwh) for n, shown in own.items()], dtype=np.float64)
        members = non_dominated(points)
        return [shown.params for shown, is_member in zip(own.values(), members, strict=True) if is_member]

    def fraction(self, within_kwh: float, *, problem: Problem, scale: Scale) -> float:
        """Returns the hypervolume of the true values of what it returns, as a fraction of the best."""
        return scale.fraction([problem.truth(params) for params in self.returned(within_kwh)])
