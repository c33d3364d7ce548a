"""What is known of candidates before they are trained, as the proposals compare it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate
from greensv.search.objectives import Objective
from greensv.search.scheduling.policy import Outlook

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of candidates: natural logarithms of what matters by ratio; NaN where not known."""

    cost: Floats
    """ln of the joules to the rung that is asked for, (candidates,)."""
    cost_to_top: Floats
    """ln of the joules of a whole short training, (candidates,)."""
    known: Floats
    """The objectives that need no training, (candidates, of them)."""


def facts_of(candidates: Sequence[Candidate], outlook: Outlook, objectives: Sequence[Objective], *, rung: int) -> Facts:
    """Returns what the cost model says of candidates."""
    costs, steps = outlook.costs, outlook.rung_steps
    to_rung = [p.energy_j for p in costs.rung_costs(candidates, from_step=0, to_step=steps[rung])]
    to_top = to_rung
    if rung < len(steps) - 1:
        to_top = [p.energy_j for p in costs.rung_costs(candidates, from_step=0, to_step=steps[-1])]
    values = costs.known_objectives(candidates).reshape(len(candidates), len(objectives))
    return Facts(
        cost=np.log(np.array(to_rung, dtype=np.float64)),
        cost_to_top=np.log(np.array(to_top, dtype=np.float64)),
        known=known_of(values, objectives),
    )


def known_of(values: Floats, objectives: Sequence[Objective]) -> Floats:
    """Returns the objectives that need no training as they are compared: logarithms of those compared by ratio.

    Args:
        values: (candidates, objectives).
        objectives: of the study.
    """
    logs = np.array([o.is_logarithmic for o in objectives])
    scaled: Floats = np.where(logs[None, :], np.log(np.maximum(values, np.finfo(float).tiny)), values)
    return scaled[:, [not o.needs_training for o in objectives]]
