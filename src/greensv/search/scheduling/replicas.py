"""Training the knee of the front again with other seeds, so that the front is shown with its error bars."""

from collections.abc import Sequence

import numpy as np

from greensv.search.front import compared_values, knee, pareto_front
from greensv.search.objectives import Objective
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.policy import Outlook, Repeat
from greensv.search.scheduling.purse import whole_j
from greensv.search.scheduling.ranking import scaled
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
    begun = _repetitions(history)
    for run in _from_the_knee(history, objectives):
        numbers = [r.key.repetition for r in begun if r.key.trial_number == run.key.trial_number]
        if len(numbers) < NUM_SEEDS and whole_j([run], outlook)[0] <= min(within_j, outlook.left_j):
            return Repeat(run=run, repetition=max(numbers, default=0) + 1)
    return None


def _from_the_knee(history: History, objectives: Sequence[Objective]) -> list[Run]:
    """Returns the front's own runs to the top, the knee first, then by their distance from it."""
    front = pareto_front(_records(history, objectives), objectives)
    if not front:
        return []
    points = scaled(np.array([compared_values(record, objectives) for record in front], dtype=np.float64), objectives)
    unit = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), 1e-12)
    middle = front.index(knee(front, objectives))
    nearest = np.argsort(np.sum((unit - unit[middle]) ** 2, axis=1), kind="stable")
    runs = [history.get(RunKey(trial_number=front[row].number, rung=history.top)) for row in nearest]
    return [run for run in runs if run is not None]


def _records(history: History, objectives: Sequence[Objective]) -> list[TrialRecord]:
    error = [objective.needs_training for objective in objectives].index(True)
    again: dict[int, list[float]] = {}
    for run in history.at_rung(history.top):
        if run.key.repetition and run.objectives is not None:
            again.setdefault(run.key.trial_number, []).append(run.objectives[error])
    records = []
    for run in history.reached(history.top):
        assert run.objectives is not None
        eers = [run.objectives[error], *again.get(run.key.trial_number, [])]
        record = TrialRecord(
            number=run.key.trial_number,
            state="complete",
            repetitions=len(eers) - 1,
            eer_mean=float(np.mean(eers)),
            **dict(zip((o.field for o in objectives), run.objectives, strict=True)),  # type: ignore[arg-type]
        )
        records.append(record)
    return records


def _repetitions(history: History) -> list[Run]:
    return [run for run in history.at_rung(history.top) if run.key.repetition]
