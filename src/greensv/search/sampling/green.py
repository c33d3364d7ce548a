"""Which candidate to train next: half of them drawn at random, the cheap ones more often, half chosen by a model."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.objectives import Constraint, Objective
from greensv.search.rungs.history import History
from greensv.search.sampling.acquisition import Acquisition
from greensv.search.sampling.drawing import Key, draw_new
from greensv.search.sampling.error_model import ErrorModel, Seen, seen_candidates
from greensv.search.sampling.facts import Facts, facts_of
from greensv.search.scheduling.policy import Outlook

RANDOM_SHARE = 0.5
"""Of the proposals, drawn without the model: it may be wrong, and at low rungs chance finds much."""
NUM_DRAWN = 256
"""Candidates that a proposal is chosen from."""
NUM_NEAR = 96
"""Of them, neighbours of the front's members, where a model chooses."""
MAX_REFUSED = 32
"""After so many that may not be run, best first, there is no proposal from a pool."""
NUM_COUNTED = 4
"""Of so few candidates the cost model counts the work, and of more it estimates it."""
MARGIN = 1.15
"""A whole short training is affordable when so many times its cost are left."""

Score = Callable[[NDArray[np.intp], Facts], NDArray[np.float64]]
"""Scores some of a pool, by their places in it and their facts."""


@dataclass(frozen=True, kw_only=True)
class _Question:
    """What a proposal is asked for, with what is known."""

    outlook: Outlook
    space: SearchSpace
    objectives: Sequence[Objective]
    constraints: Sequence[Constraint]
    rung: int
    random: np.random.Generator
    seen: dict[Key, Seen]

    def facts(self, candidates: Sequence[Candidate]) -> Facts:
        return facts_of(candidates, self.outlook, self.objectives, rung=self.rung)

    def draw(self, num: int, near: Sequence[Candidate] = ()) -> list[Candidate]:
        return draw_new(self.space, self.random, num=num, seen=self.seen.keys(), near=near)

    def best(self, pool: Sequence[Candidate], score: Score) -> Candidate | None:
        """Returns the one with the highest score among those that may be run and can be paid.

        Of many candidates the cost model only estimates the work. The best by such estimates are also those whose
        estimates are too good, so they are scored again a few at a time, as which their work is counted.
        """
        facts = self.facts(pool)
        scores = score(np.arange(len(pool)), facts)
        possible = np.flatnonzero(self._is_affordable(facts) & self._keeps_bounds(facts))
        order = possible[np.argsort(-scores[possible], kind="stable")][:MAX_REFUSED]
        for first in range(0, len(order), NUM_COUNTED):
            few = order[first : first + NUM_COUNTED]
            candidates = [pool[index] for index in few]
            facts = self.facts(candidates)
            is_possible = self._is_affordable(facts) & self._keeps_bounds(facts)
            for place in np.argsort(-score(few, facts), kind="stable"):
                candidate: Candidate = candidates[place]
                if is_possible[place] and self.outlook.costs.refusal(candidate) is None:
                    return candidate
        return None

    def _is_affordable(self, facts: Facts) -> NDArray[np.bool_]:
        if self.outlook.left_j <= 0:
            return np.zeros(len(facts.cost), dtype=bool)
        within: NDArray[np.bool_] = facts.cost_to_top <= math.log(self.outlook.left_j / MARGIN)
        return within

    def _keeps_bounds(self, facts: Facts) -> NDArray[np.bool_]:
        """Which break no constraint on an objective that is known before; what is not known breaks none."""
        names = [o.name for o in self.objectives if not o.needs_training]
        kept = np.ones(len(facts.cost), dtype=bool)
        for constraint in self.constraints:
            if constraint.objective.name in names:
                bound = math.log(constraint.bound) if constraint.objective.is_logarithmic else constraint.bound
                kept &= ~(facts.known[:, names.index(constraint.objective.name)] > bound)
        return kept


def propose(
    history: History,
    outlook: Outlook,
    space: SearchSpace,
    objectives: Sequence[Objective],
    *,
    rung: int,
    random: np.random.Generator,
    constraints: Sequence[Constraint] = (),
) -> Candidate | None:
    """Returns a candidate to train from the beginning to `rung`; None when nothing new may be run or can be paid.

    With probability `RANDOM_SHARE`, and where no model can be fitted, it is drawn at random with weight E_min/E(x), E
    being its predicted cost to the rung. Otherwise it is the one of a pool with the most expected hypervolume
    improvement per predicted joule (`acquisition`, `improvement`): of random candidates and of neighbours of the front.
    Of the objectives the EER alone is modelled (`error_model`); the cost model predicts the others.

    It has never been run and is not running, breaks no constraint that can be checked beforehand, is not refused by
    `outlook.costs`, and can be paid to the top rung by what is left.

    Args:
        history: all runs so far; those running are believed to reach what the model predicts.
        outlook: what is left, and the cost model.
        space: to choose from.
        objectives: of the study, in the order of the runs' objectives.
        rung: to which it will be trained first.
        random: the only source of chance.
        constraints: of the study.
    """
    question = _Question(
        outlook=outlook,
        space=space,
        objectives=objectives,
        constraints=constraints,
        rung=rung,
        random=random,
        seen=seen_candidates(history),
    )
    is_modelled = random.random() >= RANDOM_SHARE
    return (_by_model(question, history) if is_modelled else None) or _by_chance(question)


def _by_chance(question: _Question) -> Candidate | None:
    """Draws with weights E_min/E: the largest of Gumbel variables shifted by ln(weight) (Yellott 1977)."""
    pool = question.draw(NUM_DRAWN)
    if not pool:
        return None
    shifts = question.random.gumbel(size=len(pool))
    return question.best(pool, lambda index, facts: shifts[index] - facts.cost)


def _by_model(question: _Question, history: History) -> Candidate | None:
    eer_index = [o.needs_training for o in question.objectives].index(True)
    begun = [seen for seen in question.seen.values() if not seen.is_failed]
    try:
        model = ErrorModel(history, question.space, rung_steps=question.outlook.rung_steps, eer_index=eer_index)
        model.believe([seen.candidate for seen in begun if seen.objectives is None])
        acquisition = Acquisition(begun, model, question.objectives, facts_of=question.facts)
    except (ValueError, np.linalg.LinAlgError):
        return None
    pool = question.draw(NUM_DRAWN - NUM_NEAR) + question.draw(NUM_NEAR, near=acquisition.members)
    if not pool:
        return None
    return question.best(pool, lambda index, facts: acquisition.per_joule([pool[i] for i in index], facts))
