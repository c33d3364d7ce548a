"""Scores as likelihood ratios: the cost of the log-likelihood ratios, as they are and at their best.

A score is taken for the natural logarithm of p(score | same speaker) / p(score | different speakers). Cllr and its
minimum follow Brümmer and du Preez 2006, "Application-independent evaluation of speaker detection".
"""

import math

import numpy as np
from numpy.typing import NDArray

from greensv.speaker.scoring.sorted_scores import Scores, SortedScores, target_points

SCORES_PER_BLOCK = 1 << 20
_FEW_CORNERS = 20_000
"""So many candidates are walked through one by one, in a few hundredths of a second."""

Corners = tuple[NDArray[np.int64], NDArray[np.int64]]


def cllr(scores: SortedScores) -> float:
    """Returns the cost of the log-likelihood ratios in bits: 0 at best, 1 for scores that are all 0, and unbounded.

    It is ½·mean over targets of log2(1 + e^−s) + ½·mean over nontargets of log2(1 + e^s).
    """
    return (_mean_bits(scores.target, sign=-1) + _mean_bits(scores.nontarget, sign=1)) / 2


def min_cllr(scores: SortedScores) -> float:
    """Returns the Cllr after the best rising map of the scores, found by pool-adjacent-violators; within [0, 1].

    The map gives each score the slope of the ROC's convex hull where it lies (Fawcett and Niculescu-Mizil 2007, "PAV
    and the ROC convex hull"), so that the hull's corners are all that is needed.
    """
    accepted, hit = roc_hull(scores)
    # Each edge of the hull holds scores of one calibrated likelihood ratio.
    false_accept, detection = np.diff(accepted) / len(scores.nontarget), np.diff(hit) / len(scores.target)
    both = (false_accept > 0) & (detection > 0)  # an edge of one class alone is certain and costs nothing
    ratio = detection[both] / false_accept[both]
    bits = detection[both] * np.log2(1 + 1 / ratio) + false_accept[both] * np.log2(1 + ratio)
    return float(bits.sum() / 2)


def roc_hull(scores: SortedScores) -> Corners:
    """Returns the corners of the ROC's convex hull: accepted nontargets and accepted targets, from none to all."""
    blocks = [_hull(accepted[::-1], len(scores.target) - missed[::-1]) for missed, accepted in target_points(scores)]
    accepted = np.hstack([0, *(block[0] for block in reversed(blocks)), len(scores.nontarget)])
    hit = np.hstack([0, *(block[1] for block in reversed(blocks)), len(scores.target)])
    return _hull(accepted, hit)


def _mean_bits(scores: Scores, *, sign: int) -> float:
    """Returns the mean of log2(1 + e^(sign·s))."""
    total = 0.0
    for start in range(0, len(scores), SCORES_PER_BLOCK):
        block = scores[start : start + SCORES_PER_BLOCK].astype(np.float64)
        total += float(np.logaddexp(0, sign * block).sum())
    return total / len(scores) / math.log(2)


def _hull(x: NDArray[np.int64], y: NDArray[np.int64]) -> Corners:
    """Returns the corners of the upper hull of points that rise in both coordinates.

    A point on or below the line between two others is no corner, whichever others: so all points below the line between
    their neighbours go at once, which leaves a few thousand of ten million after some rounds. Those few are walked
    through. Counts are whole numbers, so nothing is rounded (products stay below 2^63 for three billion pairs a class).
    """
    while len(x) > _FEW_CORNERS:
        keep = np.ones(len(x), dtype=np.bool_)
        keep[1:-1] = np.diff(y)[:-1] * np.diff(x)[1:] > np.diff(y)[1:] * np.diff(x)[:-1]
        if keep.mean() > 0.9:
            break
        x, y = x[keep], y[keep]
    corners: list[tuple[int, int]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(corners) > 1 and not _is_corner(corners[-2], corners[-1], point):
            corners.pop()
        corners.append(point)
    columns = np.array(corners, dtype=np.int64)
    return columns[:, 0], columns[:, 1]


def _is_corner(before: tuple[int, int], point: tuple[int, int], after: tuple[int, int]) -> bool:
    rise, run = point[1] - before[1], point[0] - before[0]
    return rise * (after[0] - point[0]) > (after[1] - point[1]) * run
