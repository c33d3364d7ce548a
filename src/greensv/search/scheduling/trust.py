"""Which rungs may stop candidates: those whose error rates predict the top rung's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greensv.search.objectives import Objective
from greensv.search.rungs.history import History
from greensv.search.scheduling.extrapolation import Extrapolation, fit, left_out, log_eer
from greensv.search.scheduling.ranking import SMALLEST, Floats

MIN_PAIRS = 4
"""Ranks of fewer candidates say nothing."""
MANY_PAIRS = 40
"""Beyond so many, the latest are looked at: what a rung predicts changes slowly, and leaving each out takes time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What is known of a rung below the top."""

    extrapolation: Extrapolation
    correlation: float | None
    """Spearman's, of what the rung predicts of the top and what the top showed; None: from too few candidates."""

    def at_top(self, values: Floats, objectives: Sequence[Objective]) -> Floats:
        """Returns objectives (n, k) with the error rate that is expected at the top instead of the one shown here."""
        is_error = np.array([objective.needs_training for objective in objectives])
        expected = np.exp(self.extrapolation.predict(features(values, objectives))[0])
        return np.where(is_error, expected[:, None], values)


def features(values: Floats, objectives: Sequence[Objective]) -> Floats:
    """Returns what an extrapolation reads of objectives (n, k): ln EER first, the logarithms of the others after it."""
    is_eer = np.array([objective.needs_training for objective in objectives])
    return np.hstack([log_eer(values[:, is_eer]), np.log(np.maximum(values[:, ~is_eer], SMALLEST))])


def judge(history: History, objectives: Sequence[Objective]) -> list[Rung]:
    """Returns what is known of each rung below the top, from all candidates that were judged at both."""
    top = {run.key.trial_number: run.objectives for run in history.reached(history.top)}
    return [_judge(history, rung, top, objectives) for rung in range(history.top)]


def _judge(
    history: History, rung: int, top: dict[int, tuple[float, ...] | None], objectives: Sequence[Objective]
) -> Rung:
    pairs = [
        (run.objectives, top[run.key.trial_number]) for run in history.reached(rung) if run.key.trial_number in top
    ][-MANY_PAIRS:]
    low, high = np.array(pairs, dtype=np.float64).reshape(len(pairs), 2, len(objectives)).transpose(1, 0, 2)
    at_rung, at_top = features(low, objectives), features(high, objectives)[:, 0]
    line = fit(at_rung, at_top)
    correlation = spearman(left_out(line, at_rung, at_top), at_top) if len(pairs) >= MIN_PAIRS else None
    return Rung(extrapolation=line, correlation=correlation)


def floor(rungs: Sequence[Rung], *, min_correlation: float) -> int | None:
    """Returns the lowest rung that may stop candidates, the top where none may; None where too little is known yet."""
    for number, rung in enumerate(rungs):
        if rung.correlation is not None and rung.correlation >= min_correlation:
            return number
    return len(rungs) if not rungs or any(rung.correlation is not None for rung in rungs) else None


def spearman(a: Floats, b: Floats) -> float:
    """Returns Spearman's rank correlation, ties sharing their mean rank; 0 where all of one are alike."""
    ranks = [_mean_ranks(values) for values in (a, b)]
    spread = float(np.std(ranks[0]) * np.std(ranks[1]))
    return float(np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean()))) / spread if spread else 0.0


def _mean_ranks(values: Floats) -> Floats:
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[index], dtype=np.float64)
