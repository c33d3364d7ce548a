"""The Pareto set of finished trials, and its knee."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from greensv.search.objectives import OBJECTIVES, Constraint, Objective, broken_constraints, values_of
from greensv.trial_record import TrialRecord

DEFAULT_OBJECTIVES = (OBJECTIVES["eer"], OBJECTIVES["train_energy"])
NO_KNEE = 1e-9
"""Below this distance a member lies on the plane through the extremes, as the extremes do."""


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns for each row of `points` (n × objectives, all minimised) whether it is non-dominated.

    A row is dominated when another is at least as good in every objective and better in one; equal rows are all kept.
    """
    at_least = np.all(points[None, :, :] <= points[:, None, :], axis=2)
    better = np.any(points[None, :, :] < points[:, None, :], axis=2)
    dominated: NDArray[np.bool_] = np.any(at_least & better, axis=1)
    return ~dominated


def pareto_front(
    trials: Sequence[TrialRecord],
    objectives: Sequence[Objective] = DEFAULT_OBJECTIVES,
    *,
    constraints: Sequence[Constraint] = (),
) -> list[TrialRecord]:
    """Returns the non-dominated among the complete trials that have all objectives and break no constraint.

    A trial that was stopped on its way showed its EER after less training, which does not compare. A network that was
    trained with several seeds has their mean EER here.

    Returns:
        From the lowest to the highest of the first objective beside the EER: from the cheapest to the dearest, unless
        a study chose otherwise.
    """
    kept = [t for t in trials if t.state == "complete" and not broken_constraints(t, constraints)]
    valued = [(trial, values) for trial in kept if (values := compared_values(trial, objectives)) is not None]
    if not valued:
        return []
    on_front = non_dominated(np.array([values for _, values in valued], dtype=np.float64))
    order = next(index for index, objective in enumerate(objectives) if not objective.needs_training)
    members = [each for each, is_member in zip(valued, on_front, strict=True) if is_member]
    return [trial for trial, _ in sorted(members, key=lambda member: member[1][order])]


def compared_values(record: TrialRecord, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """Returns a record's figures in the objectives' order, as networks are compared by them; None when one is missing.

    They are the record's own, but for the EER of a network that was trained with several seeds: that is their mean.
    """
    values = values_of(record, objectives)
    if values is None or not record.repetitions or record.eer_mean is None:
        return values
    return tuple(record.eer_mean if o.name == "eer" else v for o, v in zip(objectives, values, strict=True))


def knee(front: Sequence[TrialRecord], objectives: Sequence[Objective] = DEFAULT_OBJECTIVES) -> TrialRecord:
    """Returns the knee of a front: the member farthest below the plane through its extremes.

    Objectives are scaled to [0, 1] over the front, those that are compared by ratio by their logarithm. An extreme is
    the best member in one objective. For two objectives the plane is the chord between the two ends, and the distance
    is Kneedle's (Satopää et al. 2011, "Finding a 'Kneedle' in a Haystack", section III). For three it is that of Das
    1999 ("On characterizing the 'knee' of the Pareto curve based on Normal-Boundary Intersection").

    Where no member lies below it, more of the other objectives keeps buying accuracy up to the end, and that is the
    knee; with one or two members, too, it is the one with the lowest EER.
    """
    assert front, "a knee needs a front"
    values = np.array([compared_values(t, objectives) for t in front], dtype=np.float64)
    eer = [objective.name for objective in objectives].index("eer")
    most_accurate = front[int(np.argmin(values[:, eer]))]
    if len(front) < 3:
        return most_accurate
    below = _below_extremes(_unit(values, objectives))
    best = int(np.argmax(below))
    return front[best] if below[best] > NO_KNEE else most_accurate


def _unit(values: NDArray[np.float64], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    logs = np.array([objective.is_logarithmic for objective in objectives])
    scaled = np.where(logs, np.log(np.where(logs, values, 1.0)), values)
    unit: NDArray[np.float64] = (scaled - scaled.min(axis=0)) / np.maximum(np.ptp(scaled, axis=0), 1e-12)
    return unit


def _below_extremes(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns how far each row lies below the plane n·x = 1 through the extremes, in multiples of its offset.

    Where one member is best in two objectives, the extremes leave n open: then the shortest n weighs the two alike, so
    that two objectives which go together, such as energy and parameters, count as one.
    """
    sums = unit.sum(axis=1)
    extremes = unit[[int(np.lexsort((sums, column))[0]) for column in unit.T]]
    normal = np.linalg.lstsq(extremes, np.ones(len(extremes)), rcond=None)[0]
    below: NDArray[np.float64] = 1.0 - unit @ normal
    if np.any(normal < 0) or np.any(np.abs(1.0 - extremes @ normal) > 1e-6):
        # No plane through them has all networks' gains on one side: all objectives weigh alike instead.
        below = extremes.sum(axis=1).min() - sums
    return below
