"""What error rate a candidate would reach at the top rung, learned from what all candidates showed on their way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.rungs.history import History, Run
from greensv.search.sampling.encoding import Encoding, candidate_key
from greensv.search.sampling.regression import Regression

Floats = NDArray[np.float64]
MAX_ROWS = 500
MIN_CANDIDATES = 4
"""Fewer say too little for a model."""
ZERO_EER = 1e-3
"""Stands for an error rate of 0 where every one seen is 0; elsewhere half the smallest does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A candidate that has been begun, and the highest rung's objectives that it has shown so far, if any."""

    candidate: Candidate
    objectives: tuple[float, ...] | None
    is_failed: bool


def seen_candidates(history: History) -> dict[tuple[object, ...], Seen]:
    """Returns every candidate of a history by its key, in the order in which they became known."""
    found: dict[tuple[object, ...], Seen] = {}
    rungs: dict[tuple[object, ...], int] = {}
    for run in history.all():
        key = candidate_key(run.candidate)
        last = found.get(key)
        objectives = last.objectives if last else None
        if run.objectives is not None and run.key.rung >= rungs.get(key, -1):
            objectives, rungs[key] = run.objectives, run.key.rung
        failed = run.state == "failed" or (last is not None and last.is_failed)
        found[key] = Seen(candidate=run.candidate, objectives=objectives, is_failed=failed and objectives is None)
    return found


class ErrorModel:
    """ln of the EER at the top rung by a Gaussian process over the candidate and how far it was trained.

    An error that falls as a power of the training steps falls in proportion to ln(steps). So a rung's gap to the top
    is ln(steps of the top / its steps), 1 for the lowest; `Regression` learns what it adds, and where it adds more.
    """

    def __init__(self, history: History, space: SearchSpace, *, rung_steps: Sequence[int], eer_index: int) -> None:
        """Fits to a history.

        Raises:
            ValueError: fewer than `MIN_CANDIDATES` have shown anything.
            LinAlgError: the fit failed.
        """
        self._encoding = Encoding(space=space)
        runs = _most_telling(history)
        if len({run.key.trial_number for run in runs}) < MIN_CANDIDATES:
            raise ValueError("too few candidates have been judged")
        eers = np.array([run.objectives[eer_index] for run in runs if run.objectives is not None])
        positive = eers[eers > 0]
        floor = 0.5 * float(positive.min()) if len(positive) else ZERO_EER
        gaps = np.array([_gap(rung_steps, run.key.rung) for run in runs])
        rows = self._encoding.rows([run.candidate for run in runs])
        self._regression = Regression(rows, np.log(np.maximum(eers, floor)), gaps=gaps)

    def believe(self, running: Sequence[Candidate]) -> None:
        """Takes what others are training now for done, with the error rates predicted."""
        self._regression = self._regression.believing(self._encoding.rows(running))

    def predict(self, candidates: Sequence[Candidate]) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation of ln(EER) at the top rung."""
        return self._regression.predict(self._encoding.rows(candidates))


def _gap(rung_steps: Sequence[int], rung: int) -> float:
    if rung == len(rung_steps) - 1:
        return 0.0
    return math.log(rung_steps[-1] / rung_steps[rung]) / math.log(rung_steps[-1] / rung_steps[0])


def _most_telling(history: History) -> list[Run]:
    """The runs to learn from: those to the top rung, the highest of each other candidate, what led to these.

    The latest come first in each: they lie where the search is now.
    """
    judged = [run for run in history.all() if run.is_reached]
    highest: dict[tuple[int, int], int] = {}
    for run in judged:
        training = (run.key.trial_number, run.key.repetition)
        highest[training] = max(highest.get(training, -1), run.key.rung)

    def order(numbered: tuple[int, Run]) -> tuple[int, int]:
        place, run = numbered
        is_highest = run.key.rung == highest[run.key.trial_number, run.key.repetition]
        return (0 if run.key.rung == history.top else 1 if is_highest else 2, -place)

    return [run for _, run in sorted(enumerate(judged), key=order)[:MAX_ROWS]]
