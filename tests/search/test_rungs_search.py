"""Searches on rungs: real training that goes on from its checkpoint, with a policy that the test decides."""

import json
import signal
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from greensv.errors import BudgetError
from greensv.search import worker
from greensv.search.events import RungEnded, Stepped, TrialStarted
from greensv.search.rungs.book import set_free
from greensv.search.rungs.history import History
from greensv.search.scheduling.policy import Continue, Finish, Move, Outlook, Promote, Propose, Repeat, Retire
from greensv.units import j_from_kwh
from tiny.study import CHEAPEST, CHEAPEST_J, DEAREST, STEPS, Lab

RUNGS = {"scheduler": "rungs", "num_rungs": 2, "min_rung_steps": 2}
FIRST = 4
"""Steps of the first of two rungs: a third of ten, rounded up."""


class Scripted:
    """Proposes two candidates, promotes the second, trains it again, and ends."""

    def __init__(self, *moves: Callable[[History], Move]) -> None:
        self.moves = list(moves)

    def next_move(self, history: History, outlook: Outlook, *, random: np.random.Generator) -> Move:
        if waiting := history.in_state("waiting"):
            return Continue(run=waiting[0])
        return self.moves.pop(0)(history) if self.moves else Finish(because="the script is over")

    def is_full_fidelity(self, history: History) -> bool:
        return False


def propose(history: History) -> Move:
    return Propose(rung=0)


def promote(trial: int) -> Callable[[History], Move]:
    return lambda history: Promote(run=next(r for r in history.reached(0) if r.key.trial_number == trial), rung=1)


def follow(monkeypatch: pytest.MonkeyPatch, *moves: Callable[[History], Move]) -> None:
    monkeypatch.setattr(worker, "GreenPolicy", lambda config: Scripted(*moves))


def test_a_promoted_training_goes_on_and_the_others_are_pruned_with_what_they_showed(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    follow(monkeypatch, propose, propose, promote(1))
    lab.search(max_trials=None, search=RUNGS)
    first, second = lab.records()
    assert (first.state, second.state) == ("stopped", "complete")
    assert [point["step"] for point in first.curve] == [FIRST]
    assert [point["step"] for point in second.curve] == [FIRST, STEPS]
    assert second.num_steps == STEPS
    assert "on its way when the search ended: the script is over" in first.reason
    study, _ = lab.open()
    frozen = study.optuna.trials
    assert [t.state for t in frozen] == [optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.COMPLETE]
    assert frozen[0].intermediate_values == {}, "TPE crashes on pruned trials that have some"
    assert frozen[1].values == [second.eer, second.train_energy_kwh]
    assert [record.number for record in study.front()] == [1], "of the top rung only"
    # Ten steps in all: none was trained twice.
    steps = [e.step for e in lab.events if isinstance(e, Stepped) and e.what == "trial 1"]
    assert max(steps) == STEPS
    assert j_from_kwh(first.measured_energy_kwh or 0) == pytest.approx(FIRST * CHEAPEST_J, rel=0.02)
    assert lab.audited().overrun_uj == 0
    rungs = [e for e in lab.events if isinstance(e, RungEnded)]
    assert [(e.record.number, e.rung, e.num_rungs) for e in rungs] == [(0, 0, 2), (1, 0, 2)]


def test_a_training_on_rungs_ends_as_an_unbroken_one(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.search(max_trials=2, name="unbroken")
    unbroken = lab.finished[0].study.records()
    # Trial 0 is trained in between, so that trial 1 is loaded from its file.
    follow(monkeypatch, propose, propose, promote(0), promote(1))
    lab.search(max_trials=None, search=RUNGS, name="broken")
    broken = lab.finished[1].study.records()
    assert [(r.params, r.eer, r.min_dcf) for r in broken] == [(r.params, r.eer, r.min_dcf) for r in unbroken]
    trainings = lab.folder / "runs" / "broken" / "trainings"
    assert not list(trainings.rglob("*.pt")), "nobody goes on with what is complete"


def test_other_seeds_give_the_front_error_bars(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    def repeat(number: int) -> Callable[[History], Move]:
        return lambda history: Repeat(run=history.reached(history.top)[0], repetition=number)

    follow(monkeypatch, propose, promote(0), repeat(1), repeat(2))
    lab.search(max_trials=None, search=RUNGS)
    record = lab.records()[0]
    study, _ = lab.open()
    found = study.repetitions()[0]
    assert [value["repetition"] for value in found] == [1, 2]
    assert len({record.seed, *(value["seed"] for value in found)}) == 3
    eers = [record.eer or 0.0, *(value["eer"] for value in found)]
    assert record.repetitions == 2
    assert record.eer_mean == pytest.approx(np.mean(eers))
    assert record.eer_std == pytest.approx(np.std(eers, ddof=1))
    assert [t.state.name for t in study.optuna.trials] == ["COMPLETE", "WAITING"], "one trial per architecture"
    started = [e for e in lab.events if isinstance(e, TrialStarted)]
    assert [(e.number, e.repetition) for e in started] == [(0, 0), (0, 0), (0, 1), (0, 2)]
    lab.audited()


def test_an_interrupted_training_goes_on_from_the_step_it_had_come_to(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    follow(monkeypatch, propose)

    def interrupt(event: object) -> None:
        if isinstance(event, Stepped) and event.what == "trial 0" and event.step >= 1:
            signal.raise_signal(signal.SIGINT)

    lab.on_event = interrupt
    lab.search(max_trials=None, search=RUNGS)
    assert lab.finished[0].was_interrupted
    record = lab.records()[0]
    assert record.state == "interrupted"
    study, ledger = lab.open()
    (run,) = worker.RungBook(ledger, study.study_id, num_rungs=2).history().all()
    assert run.state == "waiting"
    assert 1 <= run.step < FIRST
    lab.on_event = None
    lab.events.clear()
    follow(monkeypatch, promote(0))
    lab.search(max_trials=None, search=RUNGS)
    record = lab.records()[0]
    assert (record.state, record.params) == ("complete", CHEAPEST)
    assert record.reason == ""
    follow(monkeypatch, propose)
    lab.search(max_trials=None, name="unbroken")
    assert record.eer == lab.finished[-1].study.records()[0].eer
    lab.audited()


def test_a_larger_budget_takes_up_what_the_search_ended_on_its_way(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    follow(monkeypatch, propose, propose)
    lab.search(max_trials=None, search=RUNGS, budget_j=20_000)
    assert [record.state for record in lab.records()] == ["stopped", "stopped"]
    follow(monkeypatch, promote(1))
    lab.search(max_trials=None, search=RUNGS, budget_j=30_000)
    records = lab.records()
    assert [record.state for record in records] == ["stopped", "stopped", "complete"]
    assert records[2].params == records[1].params == DEAREST
    study, _ = lab.open()
    assert study.optuna.trials[2].user_attrs["continues"] == 1
    assert [point["step"] for point in records[2].curve] == [FIRST, STEPS], "it went on, and began nothing anew"


def test_retired_runs_are_pruned_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    follow(monkeypatch, propose, lambda history: Retire(runs=history.reached(0)), propose, promote(1))
    lab.search(max_trials=None, search=RUNGS)
    assert [record.state for record in lab.records()] == ["stopped", "complete"]
    assert "promoted no more" in lab.records()[0].reason


def test_the_dashboard_gets_the_curves(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    follow(monkeypatch, propose, propose, promote(1))
    lab.search(max_trials=None, search=RUNGS)
    study, _ = lab.open()
    attributes = study.optuna._storage.get_study_system_attrs(study.optuna._study_id)
    rows = {k: v for k, v in attributes.items() if "greensv-curves" in k}
    text = "".join(rows[key] for key in sorted(rows, key=lambda key: int(key.rsplit(":", 1)[1])))
    figure = json.loads(text)
    assert [(t["name"], t["x"]) for t in figure["data"]] == [("trial 0", [FIRST]), ("trial 1", [FIRST, STEPS])]


def test_a_run_whose_lease_was_closed_is_not_written_and_goes_on_elsewhere(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    follow(monkeypatch, propose)

    def reap() -> None:
        study, ledger = lab.open()
        ledger.reap(study.study_id, is_alive=lambda holder: False, within=set_free)

    reached = worker.Worker._reach

    def late(self: worker.Worker, job: worker.Job, *rest: object) -> None:
        if "closed by another worker" not in lab.notes():
            reap()
        reached(self, job, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(worker.Worker, "_reach", late)
        with pytest.raises(BudgetError, match="closed by another one"):
            lab.search(max_trials=None, search=RUNGS)
    assert "trial 0: its lease was closed by another worker, which goes on with it" in lab.notes()
    assert lab.records()[0].state == "running"
    lab.events.clear()
    lab.search(max_trials=None, search=RUNGS)
    record = lab.records()[0]
    assert record.state == "stopped", record.reason
    steps = [e.step for e in lab.events if isinstance(e, Stepped) and e.what == "trial 0"]
    assert not steps, "it was at its rung already, and only its scores were missing"
    assert j_from_kwh(record.measured_energy_kwh or 0) == pytest.approx(FIRST * CHEAPEST_J, rel=0.02)
    lab.audited()
