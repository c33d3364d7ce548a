"""EER, detection costs and Cllr of scores. One sort, then counting: ten million pairs are no trouble.

A pair is accepted when its score reaches the threshold; equal scores are accepted together or not at all. Scores that
are all equal tell nothing: EER 0.5, minDCF 1, minCllr 1.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs
from greensv.speaker.scoring.llr import cllr, min_cllr
from greensv.speaker.scoring.sorted_scores import (
    SortedScores,
    check_scores,
    cost_at,
    equal_error,
    min_cost,
    sort_scores,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a protocol: EER as a fraction, normalised minDCF at `p_target` with unit costs, and its pairs.

    `eer_threshold` is the score at which the two error rates are equal.
    """

    eer: float
    min_dcf: float
    p_target: float
    eer_threshold: float
    num_target: int
    num_nontarget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionCost:
    """Normalised detection costs at a prior, with unit costs: at the best threshold, and at that of Bayes.

    `act_dcf` takes scores for natural-log likelihood ratios. It may exceed 1: then the scores do more harm than none.
    """

    p_target: float
    min_dcf: float
    act_dcf: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """All that is said of some scores; `cllr` and `min_cllr` in bits, see `greensv.speaker.scoring.llr`."""

    eer: float
    eer_threshold: float
    costs: tuple[DetectionCost, ...]
    """One per prior asked for, in that order."""
    cllr: float
    min_cllr: float
    num_target: int
    num_nontarget: int


def measure_scores(scores: SortedScores, *, p_targets: Iterable[float] = (0.01,)) -> Metrics:
    """Returns all measures of sorted scores.

    Raises:
        DataError: a `p_target` is not between 0 and 1.
    """
    rate, threshold = equal_error(scores)
    return Metrics(
        eer=rate,
        eer_threshold=threshold,
        costs=tuple(
            DetectionCost(
                p_target=p,
                min_dcf=_min_dcf(scores, p_target=p, c_miss=1.0, c_fa=1.0),
                act_dcf=_act_dcf(scores, p_target=p, c_miss=1.0, c_fa=1.0),
            )
            for p in p_targets
        ),
        cllr=cllr(scores),
        min_cllr=min_cllr(scores),
        num_target=len(scores.target),
        num_nontarget=len(scores.nontarget),
    )


def measure_conditions(
    scores: ArrayLike, pairs: Pairs, condition_names: Sequence[str], *, p_targets: Iterable[float] = (0.01,)
) -> Mapping[str, Metrics | None]:
    """Returns the measures of the pairs of each condition, each with thresholds of its own.

    None for a condition whose pairs are of one class only, or that has none: it has no error rate.

    Raises:
        DataError: a score is not finite, or a `p_target` is not between 0 and 1.
    """
    assert pairs.conditions is not None
    values, is_target = check_scores(scores, pairs.is_target)
    priors = tuple(p_targets)
    found: dict[str, Metrics | None] = {}
    for number, name in enumerate(condition_names):
        here = pairs.conditions == number
        targets = is_target[here]
        both = targets.any() and not targets.all()
        found[name] = measure_scores(sort_scores(values[here], targets), p_targets=priors) if both else None
    return found


def verify_scores(scores: ArrayLike, is_target: ArrayLike, *, p_target: float = 0.01) -> Verification:
    """Returns EER and minDCF of the scores.

    Raises:
        DataError: a score is not finite, one class has no pair, or `p_target` is not between 0 and 1.
    """
    ordered = sort_scores(scores, is_target)
    rate, threshold = equal_error(ordered)
    return Verification(
        eer=rate,
        min_dcf=_min_dcf(ordered, p_target=p_target, c_miss=1.0, c_fa=1.0),
        p_target=p_target,
        eer_threshold=threshold,
        num_target=len(ordered.target),
        num_nontarget=len(ordered.nontarget),
    )


def eer(scores: ArrayLike, is_target: ArrayLike) -> float:
    """Returns the equal error rate as a fraction: where the ROC, its points joined by lines, has miss = false accept.

    Raises:
        DataError: a score is not finite, or one class has no pair.
    """
    return equal_error(sort_scores(scores, is_target))[0]


def min_dcf(
    scores: ArrayLike, is_target: ArrayLike, *, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Returns the minimum of the detection cost of NIST's SRE plans over all thresholds, normalised.

    The cost is c_miss·p_target·miss + c_fa·(1 − p_target)·false accept, divided by that of the better of accepting
    all and rejecting all; so the result lies between 0 and 1.

    Raises:
        DataError: a score is not finite, one class has no pair, or `p_target` is not between 0 and 1.
    """
    return _min_dcf(sort_scores(scores, is_target), p_target=p_target, c_miss=c_miss, c_fa=c_fa)


def act_dcf(
    scores: ArrayLike, is_target: ArrayLike, *, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Returns the detection cost, normalised as in `min_dcf`, at the threshold of `bayes_threshold`.

    Raises:
        DataError: a score is not finite, one class has no pair, or `p_target` is not between 0 and 1.
    """
    return _act_dcf(sort_scores(scores, is_target), p_target=p_target, c_miss=c_miss, c_fa=c_fa)


def bayes_threshold(p_target: float, *, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """Returns the natural-log likelihood ratio from which on accepting costs less than rejecting.

    It is ln(c_fa·(1 − p_target)) − ln(c_miss·p_target); with unit costs −logit(p_target).

    Raises:
        DataError: `p_target` is not between 0 and 1.
    """
    _check_prior(p_target)
    return math.log(c_fa * (1 - p_target)) - math.log(c_miss * p_target)


def _check_prior(p_target: float) -> None:
    if not 0 < p_target < 1:
        raise DataError(f"p_target is the prior probability of a target pair, between 0 and 1; found {p_target}")


def _min_dcf(scores: SortedScores, *, p_target: float, c_miss: float, c_fa: float) -> float:
    _check_prior(p_target)
    miss_cost, false_accept_cost = c_miss * p_target, c_fa * (1 - p_target)
    best_blind = min(miss_cost, false_accept_cost)
    least = min(best_blind, min_cost(scores, miss_cost=miss_cost, false_accept_cost=false_accept_cost))
    return least / best_blind


def _act_dcf(scores: SortedScores, *, p_target: float, c_miss: float, c_fa: float) -> float:
    threshold = bayes_threshold(p_target, c_miss=c_miss, c_fa=c_fa)
    miss_cost, false_accept_cost = c_miss * p_target, c_fa * (1 - p_target)
    cost = cost_at(scores, threshold, miss_cost=miss_cost, false_accept_cost=false_accept_cost)
    return cost / min(miss_cost, false_accept_cost)
