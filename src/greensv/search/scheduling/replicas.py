"""Training the knee of the front again with other seeds, so that the front is shown with its error bars."""

from collections.abc import Sequence

import numpy as np

from greensv.search.front import knee
from greensv.search.objectives import Objective
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.policy import Outlook, Repeat
from greensv.search.scheduling.purse import whole_j
from greensv.search.scheduling.ranking import Floats, front_ranks, scaled
from greensv.trial_record import TrialRecord

NUM_SEEDS = 2
"""Further seeds that a member of the front is trained with: with its own, the fewest that show a spread."""
MOST_FOR_THE_KNEE = 2.0
"""A dear knee may use so many times the share of the budget; beyond it, its neighbours are repeated instead."""


def kept_back_j(history: History, outlook: Outlook, objectives: Sequence[Objective], *, share: float) -> float:
    """Returns the joules that a search must leave for repeating the knee: the share of the budget, or what two further
    seeds of the knee cost where that is more, less what repetitions have been given already.
    """
    if not share:
        return 0.0
    wanted_j = share * outlook.cap_j
    order = _from_the_knee(history, objectives)
    if order:
        wanted_j = min(max(wanted_j, NUM_SEEDS * float(whole_j(order[:1], outlook)[0])), MOST_FOR_THE_KNEE * wanted_j)
    return max(0.0, wanted_j - float(whole_j(_repetitions(history), outlook).sum()))


def next_repeat(
    history: History, outlook: Outlook, objectives: Sequence[Objective], *, within_j: float
) -> Repeat | None:
    """Returns the next repetition: of the knee, then of the members of the front that lie next to it; None at the end.

    A network's error rate is the mean over its seeds, so where the knee proves to have been lucky another takes its
    place, and is repeated in its turn.

    Args:
        history: all runs.
        outlook: what is left, and the costs.
        objectives: of the study.
        within_j: what may be used for it, by repetitions to come.
    """
    begun: dict[int, list[int]] = {}
    for repetition in _repetitions(history):
        begun.setdefault(repetition.key.trial_number, []).append(repetition.key.repetition)
    # What has been begun goes first, in the front or not: means of few seeds go up and down, and the knee with them.
    own = [history.get(RunKey(trial_number=number, rung=history.top)) for number in begun]
    for run in [*(run for run in own if run is not None), *_from_the_knee(history, objectives)]:
        numbers = begun.get(run.key.trial_number, [])
        if len(numbers) < NUM_SEEDS and whole_j([run], outlook)[0] <= min(within_j, outlook.left_j):
            return Repeat(run=run, repetition=max(numbers, default=0) + 1)
    return None


def _from_the_knee(history: History, objectives: Sequence[Objective]) -> list[Run]:
    """Returns the front's own runs to the top, the knee first, then by their distance from it."""
    runs = history.reached(history.top)
    if not runs:
        return []
    values = _mean_values(runs, history, objectives)
    points = scaled(values, objectives)
    members = np.flatnonzero(front_ranks(points) == 0).tolist()
    records = [
        TrialRecord(
            number=runs[row].key.trial_number,
            state="complete",
            **dict(zip((o.field for o in objectives), values[row].tolist(), strict=True)),
        )
        for row in members
    ]
    unit = (points[members] - points[members].min(axis=0)) / np.maximum(np.ptp(points[members], axis=0), 1e-12)
    middle = records.index(knee(records, objectives))
    nearest = np.argsort(np.sum((unit - unit[middle]) ** 2, axis=1), kind="stable")
    return [runs[members[row]] for row in nearest.tolist()]


def _mean_values(runs: Sequence[Run], history: History, objectives: Sequence[Objective]) -> Floats:
    """Returns the objectives of runs to the top, (runs, objectives), error rates as means over all seeds."""
    values = np.array([run.objectives for run in runs], dtype=np.float64).reshape(len(runs), len(objectives))
    error = [objective.needs_training for objective in objectives].index(True)
    again: dict[int, list[float]] = {}
    for run in _repetitions(history):
        if run.objectives is not None:
            again.setdefault(run.key.trial_number, []).append(run.objectives[error])
    for row, run in enumerate(runs if again else ()):
        others = again.get(run.key.trial_number, [])
        values[row, error] = (values[row, error] + sum(others)) / (1 + len(others))
    return values


def _repetitions(history: History) -> list[Run]:
    return [run for run in history.at_rung(history.top) if run.key.repetition]
