"""Candidates that wait their turn, and trials whose process died."""

import contextlib
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from greensv.energy.books.budget import Holder, is_alive, this_process
from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.events import Listener, Noted
from greensv.search.rungs.book import RungBook
from greensv.search.rungs.history import History, Run
from greensv.search.study import OpenStudy

if TYPE_CHECKING:
    import optuna

HOLDER_ATTRIBUTE = "greensv:holder"
QUEUED_ATTRIBUTE = "queued_as"
DEATHS_ATTRIBUTE = "greensv:num_deaths"
CONTINUES_ATTRIBUTE = "continues"
"""The number under which a trial was known before a larger budget took it up again."""
MAX_DEATHS = 2
"""A candidate whose process died so often (out of memory, perhaps) is not tried again."""
GRACE = timedelta(minutes=2)
"""A process that cannot be seen from here has so long between asking for a trial and reserving its energy."""


def enqueue(study: "optuna.Study", space: SearchSpace, candidates: Sequence[Candidate], *, reason: str) -> None:
    """Puts candidates in the queue; one that is waiting or has run already is not queued again."""
    for candidate in candidates:
        study.enqueue_trial(space.trial_params(candidate), user_attrs={QUEUED_ATTRIBUTE: reason}, skip_if_exists=True)


def requeue(study: "optuna.Study", trial: Any, *, reason: str, num_deaths: int = 0) -> None:
    """Puts the candidate of a trial that could not finish back into the queue."""
    attributes = {QUEUED_ATTRIBUTE: f"trial {trial.number} again: {reason}", DEATHS_ATTRIBUTE: num_deaths}
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
    for key, value in holder_attributes().items():
        trial.set_user_attr(key, value)


def holder_attributes() -> dict[str, Any]:
    """Returns what `mark_held` writes."""
    return {HOLDER_ATTRIBUTE: dataclasses.asdict(this_process())}


def reconcile(study: OpenStudy, book: RungBook, listen: Listener) -> None:
    """Makes Optuna agree with the book of rungs after a crash; call it when the leases of the dead have been reaped.

    A running trial whose training has reached the top is told as complete; one that has been retired or given up is
    ended; one that waits or is trained goes on. One that was proposed and never claimed, by a process that is no more,
    has failed, and its candidate is queued again, once.
    """
    from optuna.trial import TrialState

    book.free_orphans()
    history = book.history()
    latest: dict[int, Run] = {}
    for run in history.all():
        known = latest.get(run.key.trial_number)
        if run.key.repetition == 0 and (known is None or known.key.rung < run.key.rung):
            latest[run.key.trial_number] = run
    _keep_repetitions(study, history)
    for trial in study.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        run_so_far = latest.get(trial.number)
        if run_so_far is not None:
            _agree(study, trial.number, run_so_far, history, listen)
        elif _is_abandoned(trial):
            _give_up(study, trial, listen)


def _keep_repetitions(study: OpenStudy, history: History) -> None:
    """Keeps with the study what other seeds showed, where their worker died before it could."""
    known = study.repetitions()
    for run in history.reached(history.top, repetition=None):
        number, repetition = run.key.trial_number, run.key.repetition
        if not repetition or any(kept["repetition"] == repetition for kept in known.get(number, ())):
            continue
        curve = run.data.get("curve") or [{}]
        record = dataclasses.replace(
            study.record(number),
            seed=run.data.get("seed"),
            eer=curve[-1].get("eer"),
            min_dcf=curve[-1].get("min_dcf"),
            train_energy_kwh=curve[-1].get("train_energy_kwh"),
            measured_energy_kwh=curve[-1].get("measured_energy_kwh"),
        )
        if record.eer is not None:
            study.keep_repetition(record, repetition)


def _agree(study: OpenStudy, number: int, run: Run, history: History, listen: Listener) -> None:
    """Ends a trial whose latest run is over; Optuna was not told when its process died."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    if run.state == "done" and run.key.rung == history.top and run.objectives is not None:
        study.optuna.tell(number, list(run.objectives), skip_if_finished=True)
        listen(Noted(text=f"trial {number} had finished when its process died: completed"))
    elif run.state == "failed":
        reason = run.data.get("reason") or "the processes that trained it died"
        with contextlib.suppress(UpdateFinishedTrialError):
            study.optuna._storage.set_trial_user_attr(study.trial_id(number), "reason", reason)
        study.optuna.tell(number, state=TrialState.FAIL, skip_if_finished=True)
        listen(Noted(text=f"trial {number} is given up: {reason}"))
    elif run.state == "retired":
        study.optuna.tell(number, state=TrialState.PRUNED, skip_if_finished=True)


def _give_up(study: OpenStudy, trial: "optuna.trial.FrozenTrial", listen: Listener) -> None:
    """Ends a trial that no process holds and none has begun to train; its candidate is queued again, once."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    storage = study.optuna._storage
    try:
        storage.set_trial_user_attr(trial._trial_id, "was_interrupted", True)
        storage.set_trial_user_attr(trial._trial_id, "reason", "its process died")
        storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return  # another worker looks at the same trials, and was faster
    text = f"trial {trial.number} died with its process: failed"
    if CONTINUES_ATTRIBUTE not in trial.user_attrs and requeue_after_death(
        study.optuna, trial, reason="its process died"
    ):
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
