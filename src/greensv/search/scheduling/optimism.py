"""Which candidates would not reach the front even if they did better than expected."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from greensv.search.objectives import Objective
from greensv.search.scheduling.extrapolation import Extrapolation, log_eer
from greensv.search.scheduling.ranking import Floats, scaled
from greensv.search.scheduling.trust import features

OPTIMISM = 2.0
"""Standard deviations by which a candidate may do better than expected."""


def is_hopeless(
    values: Floats,
    extrapolation: Extrapolation,
    *,
    top: Floats,
    objectives: Sequence[Objective],
    energy_tolerance: float,
) -> NDArray[np.bool_]:
    """Returns which candidates are dominated at the top rung even by the lower bound of their error there, (n,).

    Energies within the tolerance count as alike, so a candidate has to promise a lower error than what costs as much.

    Args:
        values: objectives at the candidates' rung, (n, objectives).
        extrapolation: from that rung to the top.
        top: objectives of what has reached the top, (m, objectives).
        objectives: of the study.
        energy_tolerance: as a share.
    """
    mean, deviation = extrapolation.predict(features(values, objectives))
    is_error = np.array([objective.needs_training for objective in objectives])
    best = np.where(is_error, (mean - OPTIMISM * deviation)[:, None], scaled(values, objectives))
    reached = np.where(is_error, log_eer(top), scaled(top, objectives))
    slack = np.array([np.log1p(energy_tolerance) * o.name.endswith("_energy") for o in objectives])
    hopeless: NDArray[np.bool_] = np.any(np.all(reached[None] <= best[:, None] + slack, axis=2), axis=1)
    return hopeless
