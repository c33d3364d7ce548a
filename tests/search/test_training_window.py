"""Tiny trainings, their energy by phase of a step, and the state of the devices beside them."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, select

from greensv.energy.baseline.idle import IdleBaseline, IdlePower
from greensv.energy.books.schema import transaction
from greensv.energy.books.tables import phases, telemetry, windows
from greensv.energy.devices.device_state import DeviceState
from greensv.energy.devices.phase_book import phase_totals
from greensv.energy.devices.telemetry_book import TelemetryRecord, record_telemetry
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow
from greensv.search.accounts import account_as_json, telemetry_as_json
from greensv.search.attribution import RestPower
from greensv.search.control import Interrupted
from greensv.search.events import Stepped, TrialStarted
from greensv.search.training_window import _rest_powers
from greensv.units import j_from_kwh, j_from_uj
from tiny.study import Lab, on
from tiny.work import WORK

GPU = Domain("gpu", "GPU-1")


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
    monkeypatch.setattr(WORK, "step_sleep_s", 0.03)
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
