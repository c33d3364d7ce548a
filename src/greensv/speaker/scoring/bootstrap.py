"""How far error rates would be off for other speakers: intervals from resampled speakers.

Pairs that share a speaker are not independent, so speakers are resampled, not pairs: each resample draws as many
speakers as there are, with replacement; with n(a) the number of times speaker a was drawn, a pair within a counts n(a)
times and a pair of a and b n(a)·n(b) times (the product of weights of Owen and Eckles 2012, "Bootstrapping data arrays
of arbitrary order", which errs towards wide intervals).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs, Protocol
from greensv.speaker.scoring.sorted_scores import Scores, check_scores, equal_error, min_cost, sort_scores

Array = NDArray[np.float64]

MARGIN = 2.0
"""The curve is followed to this many times the false accept rate at which it matters without resampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """95 % intervals (low, high) of the EER and, one per prior asked for, of minDCF."""

    eer: tuple[float, float]
    min_dcf: tuple[tuple[float, float], ...]


def bootstrap_eer(
    scores: ArrayLike, pairs: Pairs, speakers: NDArray[np.int32], *, num_resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Returns a 95 % interval of the EER for other speakers of the same population; see `bootstrap`.

    Args:
        scores: one per pair.
        pairs: the pairs scored; of utterances, not of models.
        speakers: the speaker of each utterance that `pairs` points into.
        num_resamples: resamples to draw.
        seed: of the draws.

    Raises:
        DataError: a score is not finite, one class has no pair, or there are fewer than two speakers.
    """
    both = speakers[pairs.enrolment], speakers[pairs.test]
    return bootstrap(scores, pairs.is_target, both, num_resamples=num_resamples, seed=seed).eer


def protocol_speakers(protocol: Protocol) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns the speakers of both sides of each pair; a model's is that of its first utterance."""
    pairs, speakers = protocol.pairs, protocol.utterances.speakers
    enrolled = speakers
    if protocol.models:
        enrolled = speakers[np.array([model[0] for model in protocol.models], dtype=np.intp)]
    return enrolled[pairs.enrolment], speakers[pairs.test]


def bootstrap(
    scores: ArrayLike,
    is_target: ArrayLike,
    speakers: tuple[NDArray[np.int32], NDArray[np.int32]],
    *,
    p_targets: Sequence[float] = (),
    num_resamples: int = 1000,
    seed: int = 0,
) -> Intervals:
    """Returns 95 % intervals for other speakers of the same population.

    An interval holds the 2.5 % to 97.5 % quantiles of the resamples' values; a resample left without one of the classes
    is drawn again. Each value is exact for its resample, as if all pairs were sorted and weighted anew.

    Args:
        scores: one per pair.
        is_target: whether the pair is of one speaker.
        speakers: the numbers of the speakers of both sides of each pair.
        p_targets: priors of the minDCFs, with unit costs.
        num_resamples: resamples to draw.
        seed: of the draws.

    Raises:
        DataError: a score is not finite, one class has no pair, or there are fewer than two speakers.
    """
    ranking = _Ranking.of(*check_scores(scores, is_target), speakers)
    if ranking.num_speakers < 2:
        raise DataError("an interval over speakers needs pairs of two speakers at least, found one")
    limit = MARGIN * _largest_useful_false_accept(scores, is_target, p_targets)
    curve, totals = _Stretch(ranking, limit=limit), _Totals(ranking)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    share = np.full(ranking.num_speakers, 1 / ranking.num_speakers)
    values: list[list[float]] = []
    while len(values) < num_resamples:
        # One more weight, 1, for the second side of pairs within a speaker.
        drawn = np.append(rng.multinomial(ranking.num_speakers, share), 1).astype(np.float64)
        total_target, total_nontarget = totals.of(drawn)
        if total_target > 0 and total_nontarget > 0:
            values.append(curve.values(drawn, total_target, total_nontarget, p_targets))
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    rate, *costs = zip(low.tolist(), high.tolist(), strict=True)
    return Intervals(eer=rate, min_dcf=tuple(costs))


def _largest_useful_false_accept(scores: ArrayLike, is_target: ArrayLike, p_targets: Sequence[float]) -> float:
    """Returns the false accept rate beyond which lies neither the EER nor, for its price alone, any minDCF."""
    ordered = sort_scores(scores, is_target)
    useful = [equal_error(ordered)[0]]
    useful += [min_cost(ordered, miss_cost=p, false_accept_cost=1 - p) / (1 - p) for p in p_targets]
    # Of few nontargets, as of many, some must lie beyond.
    return max(useful) + 10 / len(ordered.nontarget)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ranking:
    """Pairs from the highest score to the lowest: their class and, as indices of weights, their speakers."""

    is_target: NDArray[np.bool_]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    """For a pair within a speaker, `num_speakers`: the index of a weight of 1."""
    num_speakers: int
    tie_ends: NDArray[np.intp]
    """The last rank of each run of equal scores."""

    @classmethod
    def of(
        cls, scores: Scores, is_target: NDArray[np.bool_], speakers: tuple[NDArray[np.int32], NDArray[np.int32]]
    ) -> "_Ranking":
        order = np.argsort(-scores)
        falling = scores[order]
        is_used = np.zeros(int(max(side.max() for side in speakers)) + 1, dtype=np.bool_)
        for side in speakers:
            is_used[side] = True
        number = (np.cumsum(is_used) - 1).astype(np.int32)
        first, second = (number[side[order]] for side in speakers)
        num_speakers = int(is_used.sum())
        return cls(
            is_target=is_target[order],
            first=first,
            second=np.where(first == second, np.int32(num_speakers), second),
            num_speakers=num_speakers,
            tie_ends=np.flatnonzero(np.append(falling[1:] != falling[:-1], True)),
        )


class _Totals:
    """The weight of all pairs of each class: pairs of the same two speakers weigh the same and are counted once."""

    def __init__(self, ranking: _Ranking) -> None:
        self._classes = [_combinations(ranking, wanted) for wanted in (ranking.is_target, ~ranking.is_target)]

    def of(self, drawn: Array) -> tuple[float, float]:
        """Returns the weights of the targets and of the nontargets."""
        target, nontarget = (float(num @ (drawn[first] * drawn[second])) for first, second, num in self._classes)
        return target, nontarget


def _combinations(
    ranking: _Ranking, wanted: NDArray[np.bool_] | slice
) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Returns each combination of speakers once, and how many of the wanted pairs are of it."""
    width = ranking.num_speakers + 1
    codes = ranking.first[wanted].astype(np.int64) * width + ranking.second[wanted]
    different, num = np.unique(codes, return_counts=True)
    return different // width, different % width, num.astype(np.float64)


class _Stretch:
    """The part of the ROC that resamples need, and how to find their values on it.

    It begins before the first nontarget: until there each target accepted lowers both errors. It ends where accepting
    nontargets costs more than the minimum; a resample for which that proves untrue is computed on all pairs.
    """

    def __init__(self, ranking: _Ranking, *, limit: float) -> None:
        self._ranking = ranking
        is_target, ends = ranking.is_target, ranking.tie_ends
        num_accepted = np.cumsum(~is_target)[ends]
        # The last tie before the first nontarget, and the first one beyond the limit.
        head = int(np.searchsorted(num_accepted, 0, side="right"))
        tail = max(head, int(np.searchsorted(num_accepted, limit * num_accepted[-1], side="left"))) + 1
        start = int(ends[head - 1]) + 1 if head else 0
        self._ends = ends[head:tail]
        stop = int(self._ends[-1]) + 1
        self.is_whole = stop == len(is_target)
        self._head = _combinations(ranking, slice(0, start))
        here = is_target[start:stop]
        self._targets_until = np.cumsum(here)[self._ends - start]
        self._nontargets_until = self._ends - start + 1 - self._targets_until
        first, second = ranking.first[start:stop], ranking.second[start:stop]
        self._target = first[here], second[here]
        self._nontarget = first[~here], second[~here]

    @cached_property
    def _whole(self) -> "_Stretch":
        return _Stretch(self._ranking, limit=np.inf)

    def values(
        self, drawn: Array, total_target: float, total_nontarget: float, p_targets: Sequence[float]
    ) -> list[float]:
        """Returns EER and minDCFs with pairs weighted by `drawn`."""
        first, second, num = self._head
        head = float(num @ (drawn[first] * drawn[second]))
        hit = np.concatenate([[head], head + _running(self._target, drawn)[self._targets_until]]) / total_target
        accepted = _running(self._nontarget, drawn)[self._nontargets_until]
        false_accept = np.concatenate([[0.0], accepted / total_nontarget])
        miss = 1 - hit
        found = []
        is_exact = self.is_whole or miss[-1] <= false_accept[-1]
        if is_exact:
            found.append(_crossing(miss, false_accept))
        for p in p_targets:
            blind = min(p, 1 - p)
            cost = min(blind, p * float((miss + (1 - p) / p * false_accept).min()))
            is_exact = is_exact and (self.is_whole or (1 - p) * false_accept[-1] >= cost)
            found.append(cost / blind)
        return found if is_exact else self._whole.values(drawn, total_target, total_nontarget, p_targets)


def _running(pairs: tuple[NDArray[np.int32], NDArray[np.int32]], drawn: Array) -> Array:
    """Returns the weight of the first 0, 1, 2, … pairs."""
    sums = np.zeros(len(pairs[0]) + 1)
    np.cumsum(drawn[pairs[0]] * drawn[pairs[1]], out=sums[1:])
    return sums


def _crossing(miss: Array, false_accept: Array) -> float:
    """Returns the rate where the line between two points has miss = false accept."""
    gap = miss - false_accept
    after = int(np.argmax(gap <= 0))
    if after == 0:  # no target is left to miss where the first nontarget is accepted
        return 0.0
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(miss[after - 1] + share * (miss[after] - miss[after - 1]))
