"""Idle power in whole searches: the tiny meter draws 0.1 W at rest, and a joule for each unit of work."""

import re
import signal
from pathlib import Path

import pytest

from greensv.energy.baseline import idle
from greensv.energy.baseline.gains import Gain, remove_gains, store_gains
from greensv.energy.baseline.idle import IdlePower, this_host
from greensv.energy.baseline.idle_book import idle_baselines
from greensv.energy.books.schema import transaction
from greensv.energy.meter import Domain
from greensv.errors import StudyError
from greensv.search import retrain
from greensv.search.accounts import account_as_json
from greensv.search.events import Progressed, TrialStarted
from greensv.units import j_from_kwh
from tiny.study import Lab, on, study_data

REST_W = 2.0
ENERGY = {**study_data()["energy"], "idle_s": 0.3, "options": {"tiny": {"power_w": REST_W}}}


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else runs on the machine of these tests is not their subject."""
    monkeypatch.setattr(idle, "BUSY_SHARE", 2.0)
    monkeypatch.setattr(idle, "SPREAD_SHARE", 100.0)


def test_a_search_first_measures_the_idle_power_and_keeps_it(lab: Lab):
    lab.search(max_trials=1, energy=ENERGY)
    study, ledger = lab.open()
    with transaction(ledger.engine) as connection:
        (power,) = idle_baselines(connection, study.study_id)[this_host()].powers
    assert power.source == ("tiny", "node")
    assert REST_W / 4 < power.power_w < 4 * REST_W  # how exactly, test_idle.py says, with a clock of its own
    assert power.duration_s >= 0.25
    assert power.uncertainty_w >= 0.01 * power.power_w
    assert re.search(r"idle power of this machine: node [\d.]+ ± [\d.e-]+ W, over \d+ s", lab.notes())
    assert any(isinstance(event, Progressed) and event.what == "measuring idle power" for event in lab.events)
    assert lab.audited().spent_by_purpose["idle"] >= 0.25 * REST_W * 1e6


def test_a_trial_and_the_account_are_shown_gross_and_net(lab: Lab):
    lab.search(max_trials=1, energy={**ENERGY, "pue": 1.5})
    record = lab.records()[0]
    assert record.net_energy_kwh is not None
    assert record.num_steps is not None
    assert record.seconds_per_step is not None
    gross_j, net_j = j_from_kwh(record.measured_energy_kwh or 0), j_from_kwh(record.net_energy_kwh)
    # The steps after the first three take `seconds_per_step` on average; the first take their own time.
    assert gross_j - net_j >= 1.5 * REST_W * 0.3 * record.num_steps * record.seconds_per_step
    assert net_j < gross_j
    assert record.net_uncertainty_kwh is not None
    study, ledger = lab.open()
    account = account_as_json(ledger, study.study_id, "search")
    assert account is not None
    # The idling is charged longer than it is measured, at the same power.
    assert account["net_by_purpose"]["idle"] < account["by_purpose"]["idle"]
    assert account["net_kwh"] == pytest.approx(sum(account["net_by_purpose"].values()))
    assert account["net_kwh"] < account["spent_kwh"]
    assert account["without_idle_power_kwh"] == 0


def test_a_study_that_goes_on_does_not_measure_again(lab: Lab):
    lab.search(max_trials=1, energy=ENERGY)
    spent_uj = lab.audited().spent_by_purpose["idle"]
    lab.search(max_trials=2, energy=ENERGY)
    assert lab.audited().spent_by_purpose["idle"] == spent_uj
    assert re.search(r"measured \d{4}-\d\d-\d\d \d\d:\d\d UTC for \d+ s", lab.notes())
    first, second = lab.records()[:2]
    assert first.net_energy_kwh is not None
    assert second.net_energy_kwh is not None


def test_retraining_uses_the_searchs_idle_power(lab: Lab):
    lab.search(max_trials=1, energy=ENERGY)
    lab.retrain(lab.records()[0])
    study, ledger = lab.open()
    account = account_as_json(ledger, study.study_id, "retrain")
    assert account is not None
    assert "idle" not in account["by_purpose"]
    assert account["net_kwh"] < account["spent_kwh"]


def correct(factor: float) -> None:
    correction = Gain(
        meter="tiny", domain=Domain("node"), factor=factor, uncertainty=0.01, against="x", measured_at="now"
    )
    store_gains([correction])


def stored_powers(lab: Lab) -> list[IdlePower]:
    study, ledger = lab.open()
    with transaction(ledger.engine) as connection:
        return list(idle_baselines(connection, study.study_id)[this_host()].powers)


@pytest.fixture
def own_gains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_an_idle_power_is_not_used_for_joules_under_another_correction(lab: Lab, own_gains: None):
    # Without a completed trial a study may go on under another correction.
    lab.on_event = on(TrialStarted, 0, lambda: signal.raise_signal(signal.SIGINT))
    assert lab.search(max_trials=1, energy=ENERGY).was_interrupted
    lab.on_event = None
    correct(4.0)
    lab.search(max_trials=1, energy=ENERGY)
    (power,) = stored_powers(lab)
    assert (power.source, power.gain) == (("tiny", "node"), 4.0)
    assert power.power_w > 2 * REST_W
    spent_uj = lab.audited().spent_by_purpose["idle"]
    lab.search(max_trials=2, energy=ENERGY)
    assert lab.audited().spent_by_purpose["idle"] == spent_uj


def test_retraining_under_another_correction_than_the_searchs_is_refused(lab: Lab, own_gains: None):
    lab.search(max_trials=1, energy=ENERGY)
    record = lab.records()[0]
    correct(1.043)
    with pytest.raises(
        StudyError, match=r"meter of node: tiny \(measured\) in the search, tiny \(measured, × 1\.043\) now"
    ) as refused:
        lab.retrain(record)
    assert "--forget-gains" in str(refused.value)
    remove_gains()
    assert lab.retrain(record).is_complete


def test_another_machines_meters_may_have_corrections_of_their_own(
    lab: Lab, own_gains: None, monkeypatch: pytest.MonkeyPatch
):
    lab.search(max_trials=1, energy=ENERGY)
    correct(1.043)
    monkeypatch.setattr(retrain, "this_host", lambda: "elsewhere")
    assert lab.retrain(lab.records()[0]).is_complete


def test_a_small_budget_is_not_spent_on_idling(lab: Lab):
    lab.search(max_trials=1, budget_j=500.0, energy={**ENERGY, "options": {"tiny": {"power_w": 50.0}}})
    assert re.search(r"idle power is not measured: 0.3 s at [\d.]+ W would use [\d.]+ J, more than 2% of", lab.notes())
    assert lab.records()[0].net_energy_kwh is None
    study, ledger = lab.open()
    account = account_as_json(ledger, study.study_id, "search")
    assert account is not None
    assert "net_kwh" not in account


def test_a_busy_machine_is_told_and_its_power_not_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(idle, "BUSY_SHARE", -1.0)
    lab.search(max_trials=1, energy=ENERGY)
    assert re.search(r"the machine was not idle in the \d+ s before the work", lab.notes())
    assert "the same command measures again" in lab.notes()
    assert lab.records()[0].net_energy_kwh is None


def test_ctrl_c_ends_the_idling(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.on_event = on(Progressed, 0, lambda: signal.raise_signal(signal.SIGINT))
    result = lab.search(max_trials=1, energy={**ENERGY, "idle_s": 60.0})
    assert result.was_interrupted
    assert lab.records() == []
    assert lab.audited().spent_by_purpose["idle"] > 0


def test_an_estimate_needs_no_waiting(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    from greensv.builtin.meters import estimate
    from greensv.plugins import plugins_from

    plugins = plugins_from({"tiny": lab.plugin, "estimate": estimate})
    monkeypatch.setattr(Lab, "plugins", property(lambda self: plugins))
    lab.search(max_trials=1, energy={"meters": ["estimate"], "idle_s": 3600.0})
    assert lab.records()[0].net_energy_kwh is not None
    assert "idle" not in lab.audited().spent_by_purpose
