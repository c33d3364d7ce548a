"""The history of a search, ordered by what the policy asks of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greensv.search.objectives import Objective
from greensv.search.rungs.history import History, Run
from greensv.search.scheduling.ranking import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What has reached a rung, with the trials' own seeds."""

    runs: Sequence[Run]
    values: Floats
    """Their objectives, (runs, objectives)."""
    is_open: np.ndarray
    """Which of them wait there: they are to be had for the next rung."""


def levels(history: History, objectives: Sequence[Objective]) -> list[Level]:
    """Returns the rungs of a search, from the lowest to the top, where nothing waits."""
    found = []
    for rung in range(history.num_rungs):
        runs = history.reached(rung)
        begun = set() if rung == history.top else {r.key.trial_number for r in history.at_rung(rung + 1)}
        values = np.array([run.objectives for run in runs], dtype=np.float64).reshape(len(runs), len(objectives))
        is_open = [rung < history.top and r.state == "done" and r.key.trial_number not in begun for r in runs]
        found.append(Level(runs=runs, values=values, is_open=np.array(is_open, dtype=bool)))
    return found
