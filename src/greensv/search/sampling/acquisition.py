"""What a candidate is expected to add to the front, per joule."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate
from greensv.search.front import non_dominated
from greensv.search.objectives import Objective
from greensv.search.sampling.error_model import ErrorModel, Seen
from greensv.search.sampling.facts import Facts, known_of
from greensv.search.sampling.improvement import expected_improvement

Floats = NDArray[np.float64]
BEYOND_WORST = 0.1
"""The reference point lies so far beyond the front's worst error rate, as a share of the front's extent."""


class Acquisition:
    """Expected hypervolume improvement per joule, over the front that the model predicts of what has been begun.

    All that has been begun counts with its predicted error rate at the top rung, so that what is being trained, or
    waits to be promoted, is not asked for again. Objectives that nobody knows beforehand are left out.
    """

    members: Sequence[Candidate]
    """The front's, whose neighbours are worth a look."""

    def __init__(
        self,
        seen: Sequence[Seen],
        model: ErrorModel,
        objectives: Sequence[Objective],
        *,
        facts_of: Callable[[Sequence[Candidate]], Facts],
    ) -> None:
        """Finds the front.

        Args:
            seen: what has been begun and has not failed; one at least.
            model: predicts error rates.
            objectives: of the study.
            facts_of: returns the facts of candidates that have shown nothing so far.

        Raises:
            ValueError: of no candidate are all objectives known that some have.
        """
        self._model = model
        candidates = [s.candidate for s in seen]
        known = _known(seen, objectives, facts_of)
        self._axes = np.isfinite(known).any(axis=0)
        usable = np.flatnonzero(np.isfinite(known[:, self._axes]).all(axis=1))
        if not len(usable):
            raise ValueError("no candidate has all the objectives that some have")
        known = known[usable][:, self._axes]
        candidates = [candidates[index] for index in usable]
        eers = np.exp(model.predict(candidates)[0])
        on_front = non_dominated(np.column_stack([known, eers]))
        self.members = [candidates[index] for index in np.flatnonzero(on_front)]
        self._front, self._front_eer = known[on_front], eers[on_front]
        self._dearest = known.max(axis=0)
        worst, best = float(self._front_eer.max()), float(self._front_eer.min())
        self._worst_eer = worst + BEYOND_WORST * max(worst - best, 0.1 * worst)

    def per_joule(self, candidates: Sequence[Candidate], facts: Facts) -> Floats:
        """Returns the expected hypervolume improvement of each per joule of its training to the rung; NaN never."""
        mean, deviation = self._model.predict(candidates)
        known = facts.known[:, self._axes]
        gained = expected_improvement(
            known,
            mean,
            deviation,
            front=self._front,
            front_uncertain=self._front_eer,
            reference=np.maximum(self._dearest, np.nanmax(known, axis=0, initial=-np.inf)) + 1e-3,
            reference_uncertain=self._worst_eer,
        )
        return np.nan_to_num(gained * np.exp(np.nanmin(facts.cost) - facts.cost))


def _known(
    seen: Sequence[Seen], objectives: Sequence[Objective], facts_of: Callable[[Sequence[Candidate]], Facts]
) -> Floats:
    """What was measured, or else what is predicted: the objectives that need no training, (seen, of them)."""
    known = np.full((len(seen), sum(not o.needs_training for o in objectives)), np.nan)
    for index, each in enumerate(seen):
        if each.objectives is not None:
            known[index] = known_of(np.array([each.objectives]), objectives)[0]
    silent = [index for index, each in enumerate(seen) if each.objectives is None]
    if silent:
        known[silent] = facts_of([seen[index].candidate for index in silent]).known
    return known
