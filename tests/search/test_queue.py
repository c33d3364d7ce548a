"""What becomes of the trials of processes that died."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta

import optuna
import pytest

from greensv.energy.books.budget import Holder, Lease, this_process
from greensv.energy.books.ledger import Ledger
from greensv.search import queue
from greensv.search.candidate import Candidate, build_space
from greensv.search.metering import reap_dead
from greensv.search.queue import HOLDER_ATTRIBUTE, enqueue, mark_held, reconcile, requeue
from greensv.search.records import from_trial
from greensv.search.rungs.book import MAX_ATTEMPTS, RungBook
from greensv.search.rungs.history import Run, RunKey
from greensv.search.storage import open_storage
from greensv.search.study import OpenStudy, create_or_continue
from tiny.study import Lab

DEAD = dataclasses.replace(this_process(), process_started_at=0.0)
ELSEWHERE = Holder(host="another-machine", pid=1, process_started_at=0.0)


@pytest.fixture
def opened(lab: Lab) -> Iterator[tuple[OpenStudy, Ledger]]:
    storage, ledger = open_storage(lab.url, create=True)
    study = create_or_continue(lab.config(), storage, versions={})
    ledger.open_account(study.study_id, "search", 10**12)
    yield study, ledger
    storage.engine.dispose()


def mend(lab: Lab, study: OpenStudy, ledger: Ledger) -> None:
    reconcile(study, RungBook(ledger, study.study_id, num_rungs=2), lab.listen)


def claimed(study: OpenStudy, ledger: Ledger, *, rung: int = 1, attempts: int = 1) -> tuple[RungBook, Run, Lease]:
    """A trial on its way, with the run, the lease and the book of the worker that trains it."""
    number = running(study, holder=DEAD).number
    book = RungBook(ledger, study.study_id, num_rungs=2)
    candidate = Candidate(backbone="tiny", params={"width": 5, "depth": 1})
    key = RunKey(trial_number=number, rung=rung)
    run = Run(key=key, state="running", candidate=candidate, step=0, attempts=attempts)
    lease = ledger.reserve(
        study.study_id,
        "search",
        10**6,
        purpose="training",
        trial_number=number,
        holder=DEAD,
        ttl_s=60.0,
        within=book.claiming(run),
    )
    assert lease is not None
    return book, run, lease


def running(study: OpenStudy, *, holder: Holder | None, params: bool = True) -> optuna.Trial:
    trial = study.optuna.ask()
    if holder is not None:
        trial.set_user_attr(HOLDER_ATTRIBUTE, dataclasses.asdict(holder))
    if params:
        trial.suggest_int("width", 5, 5)
        trial.suggest_int("depth", 1, 1)
    return trial


def states(study: OpenStudy) -> list[str]:
    return [from_trial(trial).state for trial in study.optuna.get_trials()]


def test_a_running_trial_of_a_dead_process_has_failed_and_its_candidate_waits_again(lab: Lab, opened):
    study, ledger = opened
    running(study, holder=DEAD)
    mend(lab, study, ledger)
    assert states(study) == ["interrupted", "waiting"]
    assert study.records()[0].reason == "its process died"
    assert study.optuna.trials[1].system_attrs["fixed_params"] == {"width": 5, "depth": 1}
    assert study.optuna.trials[1].user_attrs["queued_as"] == "trial 0 again: its process died"
    assert "trial 0 died with its process" in lab.notes()
    mend(lab, study, ledger)
    assert states(study) == ["interrupted", "waiting"], "once is enough"


def test_a_trial_whose_process_died_before_its_candidate_was_known_has_nothing_to_queue(lab: Lab, opened):
    study, ledger = opened
    running(study, holder=DEAD, params=False)
    mend(lab, study, ledger)
    assert states(study) == ["interrupted"]


@pytest.mark.parametrize("eer", [0.125, 0.0])
def test_a_trial_that_had_reached_the_top_is_completed(lab: Lab, opened, eer: float):
    study, ledger = opened
    book, run, lease = claimed(study, ledger)
    reached = dataclasses.replace(run, state="done", step=9, objectives=(eer, 1e-3))
    ledger.settle(lease, within=book.reaching(reached))
    mend(lab, study, ledger)
    assert states(study) == ["complete"]
    assert study.optuna.trials[0].values == [eer, 1e-3]
    assert "had finished when its process died" in lab.notes()


def test_a_trial_that_waits_below_the_top_goes_on_waiting(lab: Lab, opened):
    study, ledger = opened
    book, run, lease = claimed(study, ledger, rung=0)
    reached = dataclasses.replace(run, state="done", step=9, objectives=(0.2, 1e-3))
    ledger.settle(lease, within=book.reaching(reached))
    mend(lab, study, ledger)
    assert states(study) == ["running"]
    book.history()
    assert book.retire(reached)
    mend(lab, study, ledger)
    assert study.optuna.trials[0].state == optuna.trial.TrialState.PRUNED


def test_a_trial_whose_worker_died_goes_on_from_its_checkpoint_and_is_given_up_after_the_second_death(lab: Lab, opened):
    study, ledger = opened
    claimed(study, ledger)
    reap_dead(ledger, study.study_id)
    mend(lab, study, ledger)
    assert states(study) == ["running"], "anyone may go on with it"
    claimed(study, ledger, attempts=MAX_ATTEMPTS)
    reap_dead(ledger, study.study_id)
    mend(lab, study, ledger)
    assert states(study) == ["running", "failed"]
    assert "trial 1 is given up: the processes that trained it died" in lab.notes()


def test_a_run_whose_lease_something_else_closed_is_set_free(lab: Lab, opened):
    study, ledger = opened
    book, _, _ = claimed(study, ledger)
    ledger.reap(study.study_id, is_alive=lambda holder: False)
    (run,) = book.history().all()
    assert run.state == "running"
    mend(lab, study, ledger)
    (run,) = book.history().all()
    assert run.state == "waiting"


def test_a_trial_whose_holder_lives_is_left_alone(lab: Lab, opened):
    study, ledger = opened
    mark_held(running(study, holder=None))
    mend(lab, study, ledger)
    assert states(study) == ["running"]


def test_a_trial_that_an_open_lease_pays_for_is_left_alone(lab: Lab, opened):
    study, ledger = opened
    claimed(study, ledger)
    mend(lab, study, ledger)
    assert states(study) == ["running"]


@pytest.mark.parametrize("holder", [ELSEWHERE, None])
def test_a_process_that_cannot_be_seen_has_a_while_to_reserve(lab: Lab, opened, holder, monkeypatch):
    study, ledger = opened
    running(study, holder=holder)
    mend(lab, study, ledger)
    assert states(study) == ["running"]

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + queue.GRACE + timedelta(seconds=5)

    monkeypatch.setattr(queue, "datetime", Later)
    mend(lab, study, ledger)
    assert states(study) == ["interrupted", "waiting"]


def test_a_candidate_is_queued_once_but_an_interrupted_one_again(lab: Lab, opened):
    study, _ = opened
    space = build_space({"tiny": {}}, lab.plugins)
    candidate = Candidate(backbone="tiny", params={"width": 5, "depth": 1})
    for _ in range(2):
        enqueue(study.optuna, space, [candidate], reason="end of the space")
    assert states(study) == ["waiting"]
    trial = running(study, holder=None)
    enqueue(study.optuna, space, [candidate], reason="end of the space")
    assert states(study) == ["running"]
    study.optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
    requeue(study.optuna, trial, reason="interrupted")
    assert states(study) == ["failed", "waiting"]
    again = study.optuna.ask()
    assert space.suggest(again) == candidate
