"""Candidates that wait their turn, and trials whose process died."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greensv.energy.books.budget import Holder, is_alive, this_process
from greensv.energy.books.ledger import Ledger
from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.events import Listener, Noted
from greensv.search.records import from_trial
from greensv.search.study import OpenStudy

if TYPE_CHECKING:
    import optuna

HOLDER_ATTRIBUTE = "greensv:holder"
DEATHS_ATTRIBUTE = "greensv:num_deaths"
MAX_DEATHS = 2
"""A candidate whose process died so often (out of memory, perhaps) is not tried again."""
GRACE = timedelta(minutes=2)
"""A process that cannot be seen from here has so long between asking for a trial and reserving its energy."""


def enqueue(study: "optuna.Study", space: SearchSpace, candidates: Sequence[Candidate], *, reason: str) -> None:
    """Puts candidates in the queue; one that is waiting or has run already is not queued again."""
    for candidate in candidates:
        study.enqueue_trial(space.trial_params(candidate), user_attrs={"queued_as": reason}, skip_if_exists=True)


def requeue(study: "optuna.Study", trial: Any, *, reason: str, num_deaths: int = 0) -> None:
    """Puts the candidate of a trial that could not finish back into the queue."""
    attributes = {"queued_as": f"trial {trial.number} again: {reason}", DEATHS_ATTRIBUTE: num_deaths}
    study.enqueue_trial(dict(trial.params), user_attrs=attributes)


def requeue_after_death(study: "optuna.Study", trial: Any, *, reason: str) -> bool:
    """Puts the candidate of a trial whose process died back into the queue; not once more where it did so before.

    Returns:
        Whether it was put back.
    """
    num_deaths = int(trial.user_attrs.get(DEATHS_ATTRIBUTE, 0)) + 1
    if not trial.params or num_deaths >= MAX_DEATHS:
        return False
    requeue(study, trial, reason=reason, num_deaths=num_deaths)
    return True


def mark_held(trial: "optuna.Trial") -> None:
    """Writes into a trial which process runs it, before it has a lease."""
    trial.set_user_attr(HOLDER_ATTRIBUTE, dataclasses.asdict(this_process()))


def reconcile(study: OpenStudy, ledger: Ledger, listen: Listener) -> None:
    """Makes Optuna agree with the ledger after a crash; call it when the leases of the dead have been reaped.

    A running trial that no open lease pays for and no living process holds is over. When its record holds both
    objectives it is told as complete: its energy was used and its network scored. Otherwise it has failed, and its
    candidate is queued again, once.
    """
    from optuna.trial import TrialState

    leased = ledger.leased_trials(study.study_id)
    storage = study.optuna._storage
    for trial in study.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if trial.number in leased or not _is_abandoned(trial):
            continue
        record = from_trial(trial)
        if record.eer is not None and record.train_energy_kwh is not None:
            values = [record.eer, record.train_energy_kwh]
            study.optuna.tell(trial.number, values, skip_if_finished=True)
            listen(Noted(text=f"trial {trial.number} had finished when its process died: completed"))
            continue
        storage.set_trial_user_attr(trial._trial_id, "was_interrupted", True)
        storage.set_trial_user_attr(trial._trial_id, "reason", "its process died")
        study.optuna.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        text = f"trial {trial.number} died with its process: failed"
        if requeue_after_death(study.optuna, trial, reason="its process died"):
            text += ", and its candidate queued again"
        listen(Noted(text=text))


def _is_abandoned(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether a trial without a lease has nobody: its process is dead, or unseen and has had time to reserve."""
    holder = trial.user_attrs.get(HOLDER_ATTRIBUTE)
    alive = is_alive(Holder(**holder)) if holder else None
    if alive is not None:
        return not alive
    started = trial.datetime_start
    # Optuna 5 writes naive UTC.
    return started is None or datetime.now(UTC) - started.replace(tzinfo=UTC) > GRACE
