"""What to finish with the last of the budget: whatever gains the front most per joule."""

from collections.abc import Sequence

import numpy as np

from greensv.search.objectives import Objective
from greensv.search.rungs.history import Run
from greensv.search.scheduling import trust
from greensv.search.scheduling.purse import Purse
from greensv.search.scheduling.ranking import Floats, scaled
from greensv.search.scheduling.standing import Level

BEYOND_WORST = 0.1
"""The reference point lies so far beyond the worst that is known: a share of the error, a logarithm of the others."""


def most_gain(
    levels: Sequence[Level], rungs: Sequence[trust.Rung], purse: Purse, objectives: Sequence[Objective]
) -> Run | None:
    """Returns the run whose way to the top adds most to the front's hypervolume per joule; None where none would.

    The expected improvement of `greensv.search.sampling.improvement`, with the error at the top as extrapolated from
    where a run stands. Only runs whose whole way can be paid for.

    Args:
        levels: the rungs, the top among them; only what is open is chosen.
        rungs: what is known of those below the top.
        purse: the costs, and what may be used.
        objectives: of the study.
    """
    reached = scaled(levels[-1].values, objectives)
    best, most = None, 0.0
    for level, rung in zip(levels, rungs, strict=False):
        rows = np.flatnonzero(level.is_open).tolist()
        if not rows:
            continue
        runs = [level.runs[row] for row in rows]
        cost_j = purse.to_top(runs)
        gain = _gains(level.values[rows], rung, reached, objectives) / cost_j
        gain[cost_j > purse.within_j] = 0.0
        if gain.max() > most:
            best, most = runs[int(np.argmax(gain))], float(gain.max())
    return best


def _gains(values: Floats, rung: trust.Rung, reached: Floats, objectives: Sequence[Objective]) -> Floats:
    # scipy.stats takes a second to import; a search that is not near its end does without.
    from greensv.search.sampling.improvement import expected_improvement

    error = [objective.needs_training for objective in objectives].index(True)
    mean, deviation = rung.extrapolation.predict(trust.features(values, objectives))
    points = scaled(values, objectives)
    worst = np.vstack([reached, points]).max(axis=0)
    worst_error = max(reached[:, error].max(initial=0.0), float(np.exp(mean).max()))
    gains: Floats = expected_improvement(
        np.delete(points, error, axis=1),
        mean,
        deviation,
        front=np.delete(reached, error, axis=1),
        front_uncertain=reached[:, error],
        reference=np.delete(worst, error) + BEYOND_WORST,
        reference_uncertain=worst_error * (1 + BEYOND_WORST),
    )
    return gains
