"""The detection error trade-off: miss against false accept, thinned to what a plot can show."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from greensv.speaker.scoring.sorted_scores import SortedScores

POINTS_PER_CLASS = 400
"""Thresholds taken from each class. On normal-deviate axes a curve of 400 points has no visible corners."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetCurve:
    """Exact error rates, as fractions, at falling thresholds: from `reject all` (inf) to `accept all`."""

    thresholds: NDArray[np.float64]
    miss: NDArray[np.float64]
    false_accept: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.thresholds)


def det_curve(scores: SortedScores, *, points_per_class: int = POINTS_PER_CLASS) -> DetCurve:
    """Returns points of the curve, about evenly spaced in logarithm at both of its ends; each point is exact.

    Thresholds are the scores of those targets and nontargets whose ranks grow geometrically from both ends, so that the
    rates of a few in ten million show as well as those near one half.

    Args:
        scores: sorted.
        points_per_class: thresholds from each class at the most; where there are fewer scores, all of them.
    """
    chosen = [side[_ranks(len(side), points_per_class)] for side in (scores.target, scores.nontarget)]
    thresholds = np.unique(np.concatenate(chosen))[::-1]
    missed = np.searchsorted(scores.target, thresholds, side="left")
    accepted = len(scores.nontarget) - np.searchsorted(scores.nontarget, thresholds, side="left")
    return DetCurve(
        thresholds=np.concatenate([[np.inf], thresholds.astype(np.float64)]),
        miss=np.concatenate([[1.0], missed / len(scores.target)]),
        false_accept=np.concatenate([[0.0], accepted / len(scores.nontarget)]),
    )


def normal_deviates(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the standard normal quantile of each rate; -inf and inf for rates of 0 and 1.

    On these axes normally distributed scores have straight DET curves (Martin et al. 1997, "The DET curve in assessment
    of detection task performance").
    """
    normal = NormalDist()
    inner = (rates > 0) & (rates < 1)
    deviates = np.where(rates > 0, np.inf, -np.inf)
    deviates[inner] = [normal.inv_cdf(rate) for rate in rates[inner].tolist()]
    return deviates


def _ranks(num: int, num_points: int) -> NDArray[np.int64]:
    if num <= num_points:
        return np.arange(num)
    from_end = np.geomspace(1, num / 2, num_points // 2).round().astype(np.int64) - 1
    return np.unique(np.concatenate([from_end, num - 1 - from_end]))
