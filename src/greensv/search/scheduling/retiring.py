"""Which of the candidates that wait below the top are given up for good."""

import numpy as np

from greensv.search.rungs.history import Run
from greensv.search.scheduling.promotion import promotable, promoted_share
from greensv.search.scheduling.ranking import front_ranks
from greensv.search.scheduling.survey import Survey

MIN_BATCH = 8
"""Given up together: each costs a transaction, and none is in the way."""
MAX_WAITING = 64
"""More waiting trials would make each reading of the study by Optuna slow."""
KEPT_WAITING = 48
"""So many are left when there were more."""


def to_retire(survey: Survey) -> list[Run]:
    """Returns what to give up now: those without hope, and the worst where too many wait; mostly none."""
    hopeless = [
        level.runs[row]
        for level, mask in zip(survey.levels, survey.is_hopeless, strict=False)
        for row in np.flatnonzero(mask).tolist()
    ]
    if len(hopeless) >= MIN_BATCH:
        return hopeless
    num_waiting = sum(int(level.is_open.sum()) for level in survey.levels)
    return _worst(survey, num_waiting - KEPT_WAITING) if num_waiting > MAX_WAITING else []


def _worst(survey: Survey, num: int) -> list[Run]:
    """The worst ranks first, from the lowest rung upwards; what may be promoted or must finish stays."""
    found: list[tuple[int, int, Run]] = []
    for rung in range(survey.history.top):
        level, points = survey.levels[rung], survey.compared(rung)
        ranks = front_ranks(points)
        kept = set(promotable(points, is_open=level.is_open, share=promoted_share(survey.config.eta)))
        found += [
            (rung, -int(ranks[row]), level.runs[row])
            for row in np.flatnonzero(level.is_open).tolist()
            if row not in kept and not level.runs[row].must_finish
        ]
    return [run for _, _, run in sorted(found, key=lambda each: each[:2])[:num]]
