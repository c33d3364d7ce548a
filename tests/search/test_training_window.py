"""Tiny trainings, their energy by phase of a step, and the state of the devices beside them."""

import contextlib
import dataclasses
import json
import math
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, select

from greensv.energy.baseline.idle import IdleBaseline, IdlePower
from greensv.energy.books.schema import transaction
from greensv.energy.books.tables import phases, telemetry, windows
from greensv.energy.devices.device_state import DeviceState
from greensv.energy.devices.phase_book import phase_totals
from greensv.energy.devices.telemetry import Telemetry
from greensv.energy.devices.telemetry_book import TelemetryRecord, record_telemetry
from greensv.energy.meter import Domain, MeterRequest
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow, Window
from greensv.errors import MeterError
from greensv.search.accounts import account_as_json, telemetry_as_json
from greensv.search.attribution import RestPower
from greensv.search.control import Interrupted
from greensv.search.events import Stepped, TrialStarted
from greensv.search.measuring import WARMUP_STEPS
from greensv.search.training_window import _rest_powers, measured_window, noted_window
from greensv.units import j_from_kwh, j_from_uj
from tiny.study import FULL_STEPS, STEPS, Lab, on, study_data
from tiny.work import WORK

GPU = Domain("gpu", "GPU-1")


def window_rows(lab: Lab, account: str, **wanted: object) -> list[dict[str, Any]]:
    _, ledger = lab.open()
    query = select(windows).where(windows.c.account == account).order_by(windows.c.id)
    for column, value in wanted.items():
        query = query.where(windows.c[column] == value)
    with transaction(ledger.engine) as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def phase_rows(lab: Lab, account: str) -> list[Mapping[str, Any]]:
    _, ledger = lab.open()
    with transaction(ledger.engine) as connection:
        found = connection.execute(select(phases).where(phases.c.account == account)).mappings()
        return [dict(row) for row in found]


def window_uj(connection: Connection, account: str, *, trial: int) -> int:
    wanted = (windows.c.account == account) & (windows.c.trial_number == trial) & (windows.c.name == "training")
    return sum(connection.execute(select(windows.c.energy_uj).where(wanted)).scalars())


def test_the_phases_of_each_trial_sum_to_what_its_training_was_measured_to_use(lab: Lab):
    lab.search(max_trials=2, energy={"pue": 1.5})
    study, ledger = lab.open()
    records = study.records()
    with transaction(ledger.engine) as connection:
        for record in records:
            totals = phase_totals(connection, study.study_id, "search", trial_number=record.number)
            names = ["data-wait", "host-to-device", "forward", "backward", "optimiser", "other"]
            assert [total.phase for total in totals] == names
            energy_j = sum(total.energy_j for total in totals)
            assert energy_j == pytest.approx(j_from_kwh(record.measured_energy_kwh or 0), abs=1e-5)
            assert energy_j == pytest.approx(
                1.5 * j_from_uj(window_uj(connection, "search", trial=record.number)), abs=1e-5
            )
            waiting = totals[0]
            assert record.data_wait_s == pytest.approx(waiting.duration_s)
            assert j_from_kwh(record.data_wait_energy_kwh or 0) == pytest.approx(waiting.energy_j, abs=1e-5)
            assert record.data_wait_share == pytest.approx(waiting.energy_j / energy_j, abs=1e-5)
            assert record.as_json()["data_wait_share"] == record.data_wait_share
            assert record.as_json()["data_wait_quality"] == "attributed"
    account = account_as_json(ledger, study.study_id, "search")
    assert account is not None
    found = account["training_phases"]
    assert found["quality"] == "attributed"
    by_trial = sum(record.data_wait_energy_kwh or 0 for record in records)
    assert found["data_wait_energy_kwh"] == pytest.approx(by_trial, rel=1e-3)
    assert math.fsum(phase["energy_kwh"] for phase in found["by_phase"].values()) == pytest.approx(
        sum(record.measured_energy_kwh or 0 for record in records), rel=1e-6
    )


def test_what_a_training_used_before_it_failed_is_kept_by_phase(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(WORK, "explodes", False)
    lab.on_event = on(TrialStarted, 0, lambda: setattr(WORK, "explodes", True))
    lab.search(max_trials=1)
    assert lab.records()[0].state == "failed"
    rows = phase_rows(lab, "search")
    assert {row["trial_number"] for row in rows} == {0}
    assert sum(row["energy_uj"] for row in rows) > 0


def test_a_retraining_that_was_interrupted_has_its_phases_of_both_runs(lab: Lab):
    lab.search(max_trials=1)
    record = lab.records()[0]
    lab.on_event = on(Stepped, 0, lambda: (_ for _ in ()).throw(Interrupted))
    assert not lab.retrain(record).is_complete
    first = phase_rows(lab, "retrain")
    assert sum(row["energy_uj"] for row in first) > 0
    lab.on_event = None
    (result,) = lab.retrain(record).results
    both = phase_rows(lab, "retrain")
    assert len(both) == 2 * len(first)
    found = result["training_phases"]
    energy_kwh = sum(phase["energy_kwh"] for phase in found["by_phase"].values())
    assert j_from_kwh(energy_kwh) == pytest.approx(j_from_uj(sum(row["energy_uj"] for row in both)), abs=1e-5)
    assert found["quality"] == "attributed"
    stored = json.loads((lab.folder / "runs" / "tiny" / "trial-0000" / "result.json").read_text())
    assert stored["training_phases"] == found


def test_the_devices_are_watched_while_trials_run(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    was_read = threading.Event()

    def read(watch: Telemetry) -> None:
        read_once(watch)
        if any(record.purpose == "training" for record in watch._unwritten):
            was_read.set()

    read_once = Telemetry.read
    monkeypatch.setattr(Telemetry, "read", read)
    monkeypatch.setattr(WORK, "on_step", None)
    lab.on_event = on(TrialStarted, 0, lambda: setattr(WORK, "on_step", lambda: was_read.wait(60)))
    lab.search(max_trials=1, energy={"telemetry_interval_s": 0.01})
    study, ledger = lab.open()
    with transaction(ledger.engine) as connection:
        rows = [dict(row) for row in connection.execute(select(telemetry)).mappings()]
    assert {row["device"] for row in rows} == {"cpu", "process"}
    assert {row["study_id"] for row in rows} == {study.study_id}
    assert "training" in {row["purpose"] for row in rows}
    found = telemetry_as_json(ledger, study.study_id, "search")[0]
    assert set(found) == {"cpu", "process"}
    assert found["cpu"]["num_records"] >= 1
    assert found["cpu"]["max_memory_used_bytes"] > 0
    assert found["process"]["mean_clock_mhz"] is None


def test_without_an_interval_nothing_is_watched(lab: Lab):
    lab.search(max_trials=1, energy={"telemetry_interval_s": 0.0})
    study, ledger = lab.open()
    assert telemetry_as_json(ledger, study.study_id, "search") == {}


class Books:
    """What `_rest_powers` asks of a metering."""

    def __init__(self, lab: Lab, idle: IdleBaseline) -> None:
        study, self.ledger = lab.open()
        self.study_id, self.idle = study.study_id, idle


def test_a_gpu_rests_at_its_measured_idle_power_or_else_at_the_lowest_seen(lab: Lab):
    lab.search(max_trials=1)
    gpu = Reading(domain=GPU, meter="nvml", quality="measured", energy_j=1.0)
    cpu = Reading(domain=Domain("cpu"), meter="rapl", quality="measured", energy_j=1.0)
    window = EnergyWindow(name="training", started_at=datetime.now(UTC), duration_s=1.0, readings=(gpu, cpu))
    books = Books(lab, IdleBaseline(powers=()))
    assert _rest_powers(books, window) == {}
    state = DeviceState(device=str(GPU), power_w=71.5)
    seen = TelemetryRecord(at=0.0, host="h", purpose="training", trial_number=0, state=state)
    with transaction(books.ledger.engine) as connection:
        record_telemetry(connection, books.study_id, "search", [seen])
    assert _rest_powers(books, window) == {GPU: RestPower(power_w=71.5)}
    measured = IdlePower(
        host="h",
        meter="nvml",
        domain=str(GPU),
        power_w=68.0,
        uncertainty_w=3.4,
        duration_s=30.0,
        measured_at=datetime.now(UTC),
    )
    books.idle = IdleBaseline(powers=(measured,))
    assert _rest_powers(books, window) == {GPU: RestPower(power_w=68.0, uncertainty_w=3.4)}


def test_a_search_keeps_its_windows_and_those_of_each_trial(lab: Lab):
    lab.search(max_trials=1)
    names = [(row["name"], row["trial_number"]) for row in window_rows(lab, "search")]
    of_trial = [
        ("epoch 1", 0),
        ("epoch 2", 0),
        ("steady training", 0),
        ("training", 0),
        ("evaluation", 0),
        ("trial", 0),
    ]
    assert names == [("probe", None), ("probe", None), *of_trial, ("search", None)]
    energies = {row["name"]: row["energy_uj"] for row in window_rows(lab, "search")}
    assert energies["search"] > energies["trial"] > energies["training"] > energies["steady training"] > 0


def test_the_windows_of_a_trial_that_was_interrupted_are_kept(lab: Lab):
    def listen(event: object) -> None:
        if isinstance(event, Stepped) and event.what == "trial 0" and event.step == event.num_steps:
            raise Interrupted

    lab.on_event = listen
    lab.search(max_trials=1)
    names = [row["name"] for row in window_rows(lab, "search")]
    assert names[-4:] == ["steady training", "training", "trial", "search"]


def test_a_meter_that_fails_ends_a_search_with_its_own_words(lab: Lab):
    lab.on_event = on(TrialStarted, 0, lambda: setattr(lab.plugin.meter, "failure", "pulled out"))
    with pytest.raises(MeterError, match="pulled out"):
        lab.search(max_trials=1)


def test_each_epoch_of_a_retraining_is_kept_apart_and_they_add_up_to_its_training(lab: Lab):
    lab.search(max_trials=1)
    record = lab.records()[0]
    lab.on_event = on(Stepped, 0, lambda: (_ for _ in ()).throw(Interrupted))
    assert not lab.retrain(record).is_complete
    lab.on_event = None
    lab.retrain(record)
    rows = window_rows(lab, "retrain", trial_number=0)
    epochs = [row for row in rows if row["name"].startswith("epoch")]
    assert [row["name"] for row in epochs] == ["epoch 1", "epoch 1", "epoch 2", "epoch 3", "epoch 4"]
    training_uj = sum(row["energy_uj"] for row in rows if row["name"] == "training")
    assert sum(row["energy_uj"] for row in epochs) == pytest.approx(training_uj, rel=0.02)
    assert rows[-1]["name"] == "evaluation"


def test_epochs_too_short_for_the_meter_are_not_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    lab.search(max_trials=1)
    slow = dataclasses.replace(lab.plugin.meter.probe(MeterRequest()), resolution_s=100.0)
    monkeypatch.setattr(lab.plugin.meter, "probe", lambda request: slow)
    lab.retrain(lab.records()[0])
    assert {row["name"] for row in window_rows(lab, "retrain")} == {"training", "evaluation"}


class Unreadable:
    """A metering whose windows cannot be closed."""

    def __init__(self) -> None:
        self.monitor = self

    @contextlib.contextmanager
    def window(self, name: str) -> Iterator[Window]:
        yield Window(name)
        raise MeterError("pulled out")


def test_a_window_that_no_number_is_taken_from_never_ends_what_went_well(caplog: pytest.LogCaptureFixture):
    with noted_window(Unreadable(), "evaluation", trial_number=3):
        pass
    assert "energy window 'evaluation' of trial 3 is not known: pulled out" in caplog.text
    with pytest.raises(MeterError, match="pulled out"), measured_window(Unreadable(), "steady training"):
        pass
    with pytest.raises(MeterError, match="of its own"), noted_window(Unreadable(), "evaluation"):
        raise MeterError("of its own")


def test_a_trials_energies_carry_their_uncertainty(lab: Lab):
    lab.search(max_trials=1, energy={"pue": 1.5})
    record = lab.records()[0]
    (steady,) = window_rows(lab, "search", name="steady training")
    (whole,) = window_rows(lab, "search", name="training")
    expected_j = 1.5 * j_from_uj(steady["uncertainty_uj"]) * FULL_STEPS / (STEPS - WARMUP_STEPS)
    assert j_from_kwh(record.train_energy_uncertainty_kwh or 0) == pytest.approx(expected_j, rel=1e-3)
    assert record.train_energy_uncertainty_kwh >= 0.01 * record.train_energy_kwh, "the meter's scale: 1 %"
    assert j_from_kwh(record.measured_uncertainty_kwh or 0) == pytest.approx(
        1.5 * j_from_uj(whole["uncertainty_uj"]), rel=1e-3
    )
    assert record.charged_uncertainty_kwh == pytest.approx(0.01 * record.charged_energy_kwh, rel=1e-3)
    lab.retrain(record)
    result = json.loads((lab.folder / "runs" / "tiny" / "trial-0000" / "result.json").read_text())
    assert result["charged_uncertainty_kwh"] == pytest.approx(0.01 * result["charged_energy_kwh"], rel=1e-3)
    assert result["predicted_train_energy_uncertainty_kwh"] == record.train_energy_uncertainty_kwh
    (window,) = result["windows"]
    assert (window["meter"], window["domain"], window["role"]) == ("tiny", "node", "charged")


def test_a_phase_that_is_probed_adds_its_uncertainty(lab: Lab):
    first = study_data()["recipe"]["phases"][0]
    longer = {**first, "name": "long", "crop_s": 2 * first["crop_s"], "num_epochs": 1}
    lab.search(max_trials=1, recipe={"phases": [first, longer]})
    record = lab.records()[0]
    (steady,) = window_rows(lab, "search", name="steady training")
    (probe,) = window_rows(lab, "search", name="probe", trial_number=0)
    first_j = j_from_uj(steady["uncertainty_uj"]) * FULL_STEPS / (STEPS - WARMUP_STEPS)
    assert probe["uncertainty_uj"] > 0
    assert j_from_kwh(record.train_energy_uncertainty_kwh or 0) > 1.001 * first_j
