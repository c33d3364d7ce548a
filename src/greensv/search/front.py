"""The Pareto set of finished trials, and its knee."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from greensv.trial_record import TrialRecord


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns for each row of `points` (n × objectives, all minimised) whether it is non-dominated.

    A row is dominated when another is at least as good in every objective and better in one; equal rows are all kept.
    """
    at_least = np.all(points[None, :, :] <= points[:, None, :], axis=2)
    better = np.any(points[None, :, :] < points[:, None, :], axis=2)
    dominated: NDArray[np.bool_] = np.any(at_least & better, axis=1)
    return ~dominated


def pareto_front(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the non-dominated among the trials that have both objectives, from the cheapest to the dearest."""
    scored = [t for t in trials if t.eer is not None and t.train_energy_kwh is not None]
    if not scored:
        return []
    points = np.array([[t.eer, t.train_energy_kwh] for t in scored], dtype=np.float64)
    kept = [trial for trial, keep in zip(scored, non_dominated(points), strict=True) if keep]
    return sorted(kept, key=lambda t: t.train_energy_kwh or 0.0)


NO_KNEE = 1e-9
"""Below this distance a member lies on the chord, as the two ends do."""


def knee(front: Sequence[TrialRecord]) -> TrialRecord:
    """Returns the knee of a front: the member farthest below the chord between its two ends, in (ln energy, EER) scaled
    to [0, 1] (Kneedle's distance: Satopää et al. 2011, "Finding a 'Kneedle' in a Haystack", section III).

    Where no member lies below the chord, further energy keeps buying accuracy up to the dear end, and that is the knee;
    with one or two members, too, it is the one with the lowest EER.
    """
    assert front, "a knee needs a front"
    if len(front) < 3:
        return min(front, key=lambda t: t.eer or 0.0)
    energy = np.log(np.array([t.train_energy_kwh for t in front], dtype=np.float64))
    eer = np.array([t.eer for t in front], dtype=np.float64)
    x = (energy - energy.min()) / max(float(np.ptp(energy)), 1e-12)
    y = (eer - eer.min()) / max(float(np.ptp(eer)), 1e-12)
    below_chord = (1.0 - x) - y
    best = int(np.argmax(below_chord))
    return front[best] if below_chord[best] > NO_KNEE else min(front, key=lambda t: t.eer or 0.0)
