"""Searches that come to the end of their budget: before the first trial, between two, and inside one."""

import pytest

from greensv.energy.books.budget import Charge
from greensv.errors import BudgetError
from greensv.search import gate
from greensv.search.events import Event, TrialStarted
from greensv.units import j_from_kwh, j_from_uj
from tiny.study import CHEAPEST, DEAREST, Lab
from tiny.work import WORK


def test_a_budget_too_small_for_a_few_trials_stops_with_advice_and_a_larger_one_continues(lab: Lab):
    with pytest.raises(BudgetError, match="cannot pay for 3 trials of even the cheapest candidate"):
        lab.search(budget_j=50.0)
    assert lab.records() == []
    assert lab.audited().spent_by_purpose["probe"] > 0
    lab.search(budget_j=5_000.0, max_trials=2)
    assert [r.params for r in lab.records() if r.state == "complete"] == [CHEAPEST, DEAREST], "taken up again"


def test_a_budget_used_up_before_the_first_trial_is_an_error_with_advice(lab: Lab):
    with pytest.raises(BudgetError, match=r"the budget is used up before the first trial; raise it with --budget-kwh"):
        lab.search(budget_j=3.0)
    assert lab.records() == []
    lab.audited()
    lab.search(budget_j=5_000.0, max_trials=1)
    assert lab.records()[0].state == "complete"


def test_a_budget_that_is_used_up_says_so_and_a_rerun_does_not_trip_over_nothing_left(lab: Lab):
    lab.search(budget_j=100.0, max_trials=None)
    assert "budget" in lab.finished[0].ended_because
    num_records = len(lab.records())
    lab.search(budget_j=100.0, max_trials=None)
    assert "budget" in lab.finished[1].ended_because
    lab.audited()
    num_run = sum(record.state in ("complete", "failed") for record in lab.records())
    lab.search(budget_j=1_000.0, max_trials=num_run + 1)
    assert len(lab.records()) > num_records
    assert lab.finished[2].ended_because == f"{num_run + 1} trials were run"


def test_with_less_than_the_overhead_left_a_rerun_ends_without_a_trial(lab: Lab):
    lab.search(budget_j=5_000.0, max_trials=2)
    study, ledger = lab.open()
    left_uj = ledger.statement(study.study_id, "search").left_uj
    keep_uj = 20_000_000  # 20 J: below the 1 % set aside for what is no trial
    burn(lab, left_uj - keep_uj)
    lab.search(budget_j=5_000.0, max_trials=5)
    assert "budget" in lab.finished[-1].ended_because
    assert [r.state for r in lab.records()][:2] == ["complete", "complete"]
    assert not [r for r in lab.records()[2:] if r.state == "complete"]


def burn(lab: Lab, energy_uj: int) -> None:
    study, ledger = lab.open()
    charge = Charge(
        purpose="idle",
        trial_number=None,
        started_at=0.0,
        ended_at=1.0,
        meter="tiny",
        domain="node",
        quality="measured",
        energy_uj=energy_uj,
        pue=1.0,
    )
    ledger.charge_unreserved(study.study_id, "search", [charge])


def test_a_search_on_a_used_up_account_ends_before_anything_runs(lab: Lab):
    lab.search(budget_j=5_000.0, max_trials=1)
    burn(lab, 10**13)
    lab.events.clear()
    before = lab.audited()
    result = lab.search(budget_j=5_000.0, max_trials=2)
    assert result.ended_because == "the budget is used up; raise it with --budget-kwh"
    assert lab.finished[-1] is result, "its front and report are shown all the same"
    assert not [event for event in lab.events if isinstance(event, TrialStarted)]
    assert lab.audited() == before, "nothing was used"


def test_a_candidate_that_does_not_fit_is_refused_and_a_smaller_one_drawn(lab: Lab):
    lab.search(budget_j=170.0, max_trials=None)
    records = lab.records()
    assert (records[0].state, records[0].params) == ("complete", CHEAPEST)
    assert (records[1].state, records[1].params) == ("refused", DEAREST)
    assert "does not fit what is left of the budget" in records[1].reason
    study, _ = lab.open()
    assert study.optuna.trials[2].user_attrs["queued_as"] == "fits what is left of the budget"
    assert records[2].state == "complete"
    assert records[2].params not in (CHEAPEST, DEAREST)
    assert (records[2].macs or 0) < (records[1].macs or 0)
    assert sum(record.state == "complete" for record in records) > 2
    lab.audited()


def test_with_several_backbones_too_a_smaller_candidate_is_drawn(lab: Lab):
    narrow = {"tiny": {"width": [2, 3], "depth": 1}, "tiny-too": {"width": [2, 16]}}
    lab.search(budget_j=170.0, max_trials=None, backbones=narrow)
    records = lab.records()
    assert {record.backbone for record in records if record.state == "complete"} == {"tiny", "tiny-too"}
    refused = [record for record in records if record.state == "refused"]
    assert refused
    assert refused[0].params == {"backbone": "tiny-too", "tiny-too.width": 16, "tiny-too.depth": 3}
    study, _ = lab.open()
    for trial in study.optuna.trials:
        if trial.user_attrs.get("queued_as") == "fits what is left of the budget":
            assert trial.params not in [record.params for record in records[: trial.number]], "drawn anew"
    lab.audited()


def test_a_training_that_turns_out_too_dear_is_stopped_early_and_the_search_goes_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gate, "FIRST_LOOK_S", 0.0)
    monkeypatch.setattr(gate, "LOOK_INTERVAL_S", 0.0)
    monkeypatch.setattr(WORK, "step_sleep_s", 0.05)  # longer than the metering interval

    def listen(event: Event) -> None:
        if isinstance(event, TrialStarted):
            WORK.factor = 40.0 if event.number == 1 else 1.0

    lab.on_event = listen
    lab.search(budget_j=5_000.0, max_trials=3, backbones={"tiny": {"width": [2, 12]}})
    records = lab.records()
    assert [record.state for record in records] == ["complete", "failed", "complete"]
    assert "the rest of this training would use" in records[1].reason
    assert not records[1].was_interrupted
    # Stopped well before the ten steps at 40 × 12.6 J that would have used 5 kJ.
    assert 0 < j_from_kwh(records[1].charged_energy_kwh or 0) < 3_000
    assert lab.audited().overrun_uj == 0


def test_a_budget_used_up_inside_a_training_ends_the_search_at_once(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WORK, "step_sleep_s", 0.05)

    def listen(event: Event) -> None:
        if isinstance(event, TrialStarted) and event.number == 1:
            WORK.factor = 40.0

    lab.on_event = listen
    lab.search(budget_j=3_000.0, max_trials=5)
    records = lab.records()
    assert [record.state for record in records] == ["complete", "stopped"]
    assert "the budget is used up" in records[1].reason
    assert lab.finished[0].ended_because == "the budget is used up"
    statement = lab.audited()
    true_j = j_from_uj(statement.spent_uj + statement.overrun_uj)
    # It stops when the next metering interval would not fit: a little early, or late by the head-room at most.
    assert 1_000 < true_j <= 3_000 + lab.finished[0].head_room_j
