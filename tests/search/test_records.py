"""Records there and back: what is written into a trial is what is read from it."""

import json

import optuna
import pytest

from greensv.search.records import from_trial
from greensv.trial_record import TrialRecord

RECORD = TrialRecord(
    number=0,
    state="complete",
    backbone="tiny",
    params={"width": 4},
    summary={"blocks": [1, 2]},
    eer=0.25,
    min_dcf=0.5,
    train_energy_kwh=1e-3,
    measured_energy_kwh=1e-4,
    charged_energy_kwh=2e-4,
    carbon_g=0.1,
    num_parameters=1000,
    macs=5000,
    joules_per_step=1.5,
    seconds_per_step=0.5,
    num_steps=10,
    duration_s=5.0,
    meters={"node": "tiny (measured)"},
    device="CPU, 1 threads",
    seed=7,
    versions={"greensv": "0.1.0"},
)


def stored(record: TrialRecord, **told: object) -> TrialRecord:
    """Writes a record into a trial of a study in a database, tells the trial, and reads it back."""
    storage = optuna.storages.RDBStorage("sqlite://")
    study = optuna.create_study(storage=storage, directions=["minimize", "minimize"])
    study.enqueue_trial(dict(record.params))
    trial = study.ask()
    for name in record.params:
        trial.suggest_int(name, 1, 10)
    for key, value in record.attributes().items():
        trial.set_user_attr(key, value)
    trial.set_user_attr("of another tool", 1)
    if told:
        study.tell(trial, **told)
    (frozen,) = study.get_trials()
    storage.engine.dispose()
    return from_trial(frozen)


def test_a_complete_trial_reads_back_as_it_was_written():
    assert stored(RECORD, values=[0.25, 1e-3]) == RECORD


def test_what_was_measured_as_zero_is_kept():
    import dataclasses

    zeros = dataclasses.replace(RECORD, eer=0.0, min_dcf=0.0, carbon_g=0.0, seed=0)
    assert stored(zeros, values=[0.0, 1e-3]) == zeros
    assert stored(zeros).eer == 0.0, "a trial whose process dies before it is told is completed from its record"


@pytest.mark.parametrize(
    ("attributes", "state", "expected"),
    [
        ({"reason": "the loss is nan"}, optuna.trial.TrialState.FAIL, "failed"),
        ({"reason": "Ctrl-C", "was_interrupted": True}, optuna.trial.TrialState.FAIL, "interrupted"),
        ({"reason": "too dear"}, optuna.trial.TrialState.PRUNED, "refused"),
    ],
)
def test_the_state_of_a_trial_without_values(attributes: dict, state: optuna.trial.TrialState, expected: str):
    record = TrialRecord(number=0, state="running", backbone="tiny", params={"width": 2}, **attributes)
    found = stored(record, state=state)
    assert (found.state, found.reason, found.eer) == (expected, attributes["reason"], None)


def test_running_and_waiting_trials_have_records_too():
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.enqueue_trial({"width": 2})
    study.enqueue_trial({"width": 3})
    study.ask()
    assert [from_trial(trial).state for trial in study.get_trials()] == ["running", "waiting"]


def test_a_record_is_plain_json():
    plain = json.loads(json.dumps(RECORD.as_json(), allow_nan=False))
    assert plain.pop("data_wait_share") == RECORD.data_wait_share
    assert plain.pop("data_wait_quality") is None, "no wait is known of this one"
    assert TrialRecord(**{**plain, "curve": tuple(plain["curve"])}) == RECORD
    assert "was_interrupted" not in RECORD.attributes()
    assert not {"number", "state", "params", "reason"} & set(RECORD.attributes())
