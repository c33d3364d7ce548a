"""What becomes of the trials of processes that died."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime, timedelta

import optuna
import pytest

from greensv.energy.books.budget import Holder, this_process
from greensv.energy.books.ledger import Ledger
from greensv.search import queue
from greensv.search.candidate import Candidate, build_space
from greensv.search.queue import HOLDER_ATTRIBUTE, enqueue, mark_held, reconcile, requeue
from greensv.search.records import from_trial
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
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["interrupted", "waiting"]
    assert study.records()[0].reason == "its process died"
    assert study.optuna.trials[1].system_attrs["fixed_params"] == {"width": 5, "depth": 1}
    assert study.optuna.trials[1].user_attrs["queued_as"] == "trial 0 again: its process died"
    assert "trial 0 died with its process" in lab.notes()
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["interrupted", "waiting"], "once is enough"


def test_a_trial_whose_process_died_before_its_candidate_was_known_has_nothing_to_queue(lab: Lab, opened):
    study, ledger = opened
    running(study, holder=DEAD, params=False)
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["interrupted"]


@pytest.mark.parametrize("eer", [0.125, 0.0])
def test_a_trial_that_had_its_result_is_completed_from_its_record(lab: Lab, opened, eer: float):
    study, ledger = opened
    trial = running(study, holder=DEAD)
    record = dataclasses.replace(from_trial(study.optuna.trials[0]), eer=eer, train_energy_kwh=1e-3, min_dcf=0.5)
    for key, value in record.attributes().items():
        trial.set_user_attr(key, value)
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["complete"]
    assert study.optuna.trials[0].values == [eer, 1e-3]
    assert "had finished when its process died" in lab.notes()


def test_a_trial_whose_holder_lives_is_left_alone(lab: Lab, opened):
    study, ledger = opened
    mark_held(running(study, holder=None))
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["running"]


def test_a_trial_that_an_open_lease_pays_for_is_left_alone(lab: Lab, opened):
    study, ledger = opened
    running(study, holder=DEAD)
    lease = ledger.reserve(
        study.study_id, "search", 10**6, purpose="training", trial_number=0, holder=ELSEWHERE, ttl_s=60.0
    )
    assert lease is not None
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["running"]
    ledger.settle(lease)
    reconcile(study, ledger, lab.listen)
    assert states(study)[0] == "interrupted"


@pytest.mark.parametrize("holder", [ELSEWHERE, None])
def test_a_process_that_cannot_be_seen_has_a_while_to_reserve(lab: Lab, opened, holder, monkeypatch):
    study, ledger = opened
    running(study, holder=holder)
    reconcile(study, ledger, lab.listen)
    assert states(study) == ["running"]

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + queue.GRACE + timedelta(seconds=5)

    monkeypatch.setattr(queue, "datetime", Later)
    reconcile(study, ledger, lab.listen)
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
