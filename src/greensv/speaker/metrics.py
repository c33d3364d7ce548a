"""EER, minDCF and their uncertainty from scores. One sort, then arithmetic on arrays: ten million pairs are no trouble.

A pair is accepted when its score reaches the threshold; equal scores are accepted together or not at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs

Array = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Curve:
    """Error rates at falling thresholds, from `reject all` (threshold inf) to `accept all`."""

    thresholds: Array
    miss: Array
    false_accept: Array


def verify_scores(scores: ArrayLike, is_target: ArrayLike, *, p_target: float = 0.01) -> Verification:
    """Returns EER and minDCF of the scores.

    Raises:
        DataError: a score is not finite, one class has no pair, or `p_target` is not between 0 and 1.
    """
    score_array, target_array = _checked(scores, is_target)
    curve = _curve(score_array, target_array)
    rate, threshold = _equal_error(curve)
    num_target = int(target_array.sum())
    return Verification(
        eer=rate,
        min_dcf=_min_dcf(curve, p_target=p_target, c_miss=1.0, c_fa=1.0),
        p_target=p_target,
        eer_threshold=threshold,
        num_target=num_target,
        num_nontarget=len(target_array) - num_target,
    )


def eer(scores: ArrayLike, is_target: ArrayLike) -> float:
    """Returns the equal error rate as a fraction: where the ROC, its points joined by lines, has miss = false accept.

    Raises:
        DataError: a score is not finite, or one class has no pair.
    """
    return _equal_error(_curve(*_checked(scores, is_target)))[0]


def min_dcf(
    scores: ArrayLike, is_target: ArrayLike, *, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0
) -> float:
    """Returns the minimum of the detection cost of NIST's SRE plans over all thresholds, normalised.

    The cost is c_miss·p_target·miss + c_fa·(1 − p_target)·false accept, divided by that of the better of accepting
    all and rejecting all; so the result lies between 0 and 1.

    Raises:
        DataError: a score is not finite, one class has no pair, or `p_target` is not between 0 and 1.
    """
    return _min_dcf(_curve(*_checked(scores, is_target)), p_target=p_target, c_miss=c_miss, c_fa=c_fa)


def bootstrap_eer(
    scores: ArrayLike, pairs: Pairs, speakers: NDArray[np.int32], *, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Returns a 95 % interval of the EER for other speakers of the same population.

    Pairs that share a speaker are not independent, so speakers are resampled, not pairs: each resample draws as many
    speakers as there are, with replacement; with n(a) the number of times speaker a was drawn, a pair within a counts
    n(a) times and a pair of a and b n(a)·n(b) times (the product of weights of Owen and Eckles 2012, "Bootstrapping
    data arrays of arbitrary order", which errs towards wide intervals). The interval holds the 2.5 % to 97.5 %
    quantiles of the resamples' EERs; a resample left without one of the classes is drawn again.

    Args:
        scores: one per pair.
        pairs: the pairs scored.
        speakers: the speaker of each utterance that `pairs` points into.
        num_resamples: resamples to draw.
        seed: of the draws.

    Raises:
        DataError: a score is not finite, one class has no pair, or there are fewer than two speakers.
    """
    score_array, is_target = _checked(scores, pairs.is_target)
    order = np.argsort(-score_array, kind="stable")
    both = np.stack([speakers[pairs.enrolment], speakers[pairs.test]])[:, order]
    names, inverse = np.unique(both, return_inverse=True)
    if len(names) < 2:
        raise DataError("an interval over speakers needs pairs of two speakers at least, found one")
    first, second = inverse.reshape(2, -1)
    is_target, ends = is_target[order], _tie_ends(score_array[order])
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    rates: list[float] = []
    while len(rates) < num_resamples:
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names))).astype(np.float64)
        weights = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        accepted = np.cumsum(np.where(is_target, weights, 0))[ends]
        accepted_nontarget = np.cumsum(np.where(is_target, 0, weights))[ends]
        if accepted[-1] > 0 and accepted_nontarget[-1] > 0:
            rates.append(_crossing(1 - _shares(accepted), _shares(accepted_nontarget))[0])
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(low), float(high)


def _checked(scores: ArrayLike, is_target: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    score_array = np.asarray(scores, dtype=np.float64)
    target_array = np.asarray(is_target, dtype=np.bool_)
    assert score_array.shape == target_array.shape == (len(score_array),), (score_array.shape, target_array.shape)
    bad = np.flatnonzero(~np.isfinite(score_array))
    if len(bad):
        raise DataError(
            f"the score of pair {bad[0] + 1} is {score_array[bad[0]]}, not a finite number (so are {len(bad)} of "
            f"{len(score_array)}); the network's embeddings are not finite"
        )
    num_target = int(target_array.sum())
    if num_target in (0, len(target_array)):
        missing = "target" if num_target == 0 else "nontarget"
        raise DataError(
            f"EER needs target and nontarget pairs; found {len(target_array)} pairs, none of them {missing}"
        )
    return score_array, target_array


def _curve(scores: Array, is_target: NDArray[np.bool_]) -> _Curve:
    order = np.argsort(-scores, kind="stable")
    descending, is_target = scores[order], is_target[order]
    ends = _tie_ends(descending)
    accepted = np.cumsum(is_target)[ends].astype(np.float64)
    accepted_nontarget = (ends + 1) - accepted
    return _Curve(
        thresholds=np.concatenate([[np.inf], descending[ends]]),
        miss=1 - _shares(accepted),
        false_accept=_shares(accepted_nontarget),
    )


def _tie_ends(descending: Array) -> NDArray[np.intp]:
    """Returns the last index of each run of equal scores."""
    return np.flatnonzero(np.append(descending[1:] != descending[:-1], True))


def _shares(accepted: Array) -> Array:
    """Returns the accepted share of one class from `reject all` on, given its accepted weight at each threshold."""
    return np.concatenate([[0.0], accepted / accepted[-1]])


def _equal_error(curve: _Curve) -> tuple[float, float]:
    rate, after, share = _crossing(curve.miss, curve.false_accept)
    before, threshold = float(curve.thresholds[after - 1]), float(curve.thresholds[after])
    return rate, threshold if np.isinf(before) else before + share * (threshold - before)


def _crossing(miss: Array, false_accept: Array) -> tuple[float, int, float]:
    """Returns the rate where miss meets false accept, the point after it, and how far towards that point it lies."""
    gap = miss - false_accept
    after = int(np.argmax(gap <= 0))
    share = float(gap[after - 1] / (gap[after - 1] - gap[after]))
    return float(miss[after - 1] + share * (miss[after] - miss[after - 1])), after, share


def _min_dcf(curve: _Curve, *, p_target: float, c_miss: float, c_fa: float) -> float:
    if not 0 < p_target < 1:
        raise DataError(f"p_target is the prior probability of a target pair, between 0 and 1; found {p_target}")
    miss_cost, false_accept_cost = c_miss * p_target, c_fa * (1 - p_target)
    cost = miss_cost * curve.miss + false_accept_cost * curve.false_accept
    return float(cost.min() / min(miss_cost, false_accept_cost))
