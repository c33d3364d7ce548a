"""Scores sorted once, and what follows by counting: miss and false accept at any threshold, EER, detection cost.

A pair is accepted when its score reaches the threshold; equal scores are accepted together or not at all. Targets and
nontargets are sorted apart, in their own precision: ten million float32 scores take 40 MB, and no index of them exists.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from greensv.errors import DataError

Scores = NDArray[np.float32] | NDArray[np.float64]

POINTS_PER_BLOCK = 1 << 19
"""Points looked at together: a few arrays of 4 MiB, whatever the number of scores."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SortedScores:
    """The finite scores of the target and of the nontarget pairs, each rising, neither empty, of one precision."""

    target: Scores
    nontarget: Scores

    def num_missed(self, threshold: float) -> int:
        """Returns how many targets lie below a threshold."""
        return int(np.searchsorted(self.target, _reached(threshold, self.target), side="left"))

    def num_accepted(self, threshold: float) -> int:
        """Returns how many nontargets reach a threshold."""
        return len(self.nontarget) - int(
            np.searchsorted(self.nontarget, _reached(threshold, self.nontarget), side="left")
        )

    def miss(self, threshold: float) -> float:
        """Returns the share of targets that are rejected."""
        return self.num_missed(threshold) / len(self.target)

    def false_accept(self, threshold: float) -> float:
        """Returns the share of nontargets that are accepted."""
        return self.num_accepted(threshold) / len(self.nontarget)


def sort_scores(scores: ArrayLike, is_target: ArrayLike) -> SortedScores:
    """Returns the scores of each class, sorted; float32 stays float32, anything else becomes float64.

    Raises:
        DataError: a score is not finite, or one class has no pair.
    """
    values, targets = check_scores(scores, is_target)
    target, nontarget = values[targets], values[~targets]
    target.sort()
    nontarget.sort()
    return SortedScores(target=target, nontarget=nontarget)


def check_scores(scores: ArrayLike, is_target: ArrayLike) -> tuple[Scores, NDArray[np.bool_]]:
    """Returns both as arrays, after a look at them. Raises as `sort_scores`."""
    values = np.asarray(scores)
    if values.dtype != np.float32:
        values = values.astype(np.float64, copy=False)
    targets = np.asarray(is_target, dtype=np.bool_)
    assert values.shape == targets.shape == (len(values),), (values.shape, targets.shape)
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise DataError(
            f"the score of pair {bad[0] + 1} is {values[bad[0]]}, not a finite number (so are {len(bad)} of "
            f"{len(values)}); the network's embeddings are not finite"
        )
    num_target = int(targets.sum())
    if num_target in (0, len(targets)):
        missing = "target" if num_target == 0 else "nontarget"
        raise DataError(f"EER needs target and nontarget pairs; found {len(targets)} pairs, none of them {missing}")
    return values, targets


def equal_error(scores: SortedScores) -> tuple[float, float]:
    """Returns the EER, where the lines between the points of the ROC have miss = false accept, and its threshold.

    A bisection over the scores; the threshold is interpolated between two neighbouring scores as the rates are.
    """
    target, nontarget = scores.target, scores.nontarget

    def is_past(threshold: float) -> bool:
        # In whole numbers: the quotients of equal rates may differ in their last bit.
        missed, accepted = scores.num_missed(threshold), scores.num_accepted(threshold)
        return missed * len(nontarget) <= accepted * len(target)

    # Past the crossing lie the low thresholds: the highest of those, and the lowest score above it.
    past = [
        bisect_left(range(len(side)), True, key=lambda i: not is_past(float(side[i]))) for side in (target, nontarget)
    ]
    after = max(float(side[num - 1]) for side, num in zip((target, nontarget), past, strict=True) if num)
    above = [float(side[num]) for side, num in zip((target, nontarget), past, strict=True) if num < len(side)]
    before = min(above, default=math.inf)
    gap_before = scores.miss(before) - scores.false_accept(before)
    gap_after = scores.miss(after) - scores.false_accept(after)
    share = gap_before / (gap_before - gap_after)
    rate = scores.miss(before) + share * (scores.miss(after) - scores.miss(before))
    return rate, after if math.isinf(before) else before + share * (after - before)


def min_cost(scores: SortedScores, *, miss_cost: float, false_accept_cost: float) -> float:
    """Returns the least miss_cost·miss + false_accept_cost·false accept over all thresholds, not normalised."""
    least = miss_cost  # of rejecting all
    for missed, accepted in target_points(scores):
        cost = missed * (miss_cost / len(scores.target))
        cost += accepted * (false_accept_cost / len(scores.nontarget))
        least = min(least, float(cost.min()))
    return least


def cost_at(scores: SortedScores, threshold: float, *, miss_cost: float, false_accept_cost: float) -> float:
    """Returns miss_cost·miss + false_accept_cost·false accept at one threshold, not normalised."""
    return miss_cost * scores.miss(threshold) + false_accept_cost * scores.false_accept(threshold)


def target_points(scores: SortedScores) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields, in blocks, the missed targets and accepted nontargets at the score of each target, rising.

    Between two targets a higher threshold rejects nontargets for nothing, so that these points, `reject all` and
    `accept all` are the only ones that can be the cheapest at some cost (the corners of the ROC's convex hull). Of
    equal targets all but the first have a point that counts too many as missed: one inside the hull.
    """
    for start in range(0, len(scores.target), POINTS_PER_BLOCK):
        thresholds = scores.target[start : start + POINTS_PER_BLOCK]
        missed = np.arange(start, start + len(thresholds), dtype=np.int64)
        yield missed, len(scores.nontarget) - np.searchsorted(scores.nontarget, thresholds, side="left")


def _reached(threshold: float, scores: Scores) -> np.floating:
    """Returns the least value of the scores' type that reaches a threshold: searchsorted would convert all scores."""
    value: np.floating = scores.dtype.type(threshold)
    return np.nextafter(value, scores.dtype.type(math.inf)) if value < threshold else value
