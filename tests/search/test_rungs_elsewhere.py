"""A study that goes on elsewhere: on another processor, by reference units; and under another name."""

from datetime import UTC, datetime

import optuna
import pytest
import torch

from greensv.energy.baseline.comparison import Trace
from greensv.energy.baseline.idle import this_host
from greensv.errors import StudyError
from greensv.search.calibration import Calibration, Hardware, UnitCost, store
from greensv.search.reference import CALIBRATION_ATTRIBUTE
from greensv.search.storage import open_storage
from greensv.search.study import ENVIRONMENT_ATTRIBUTE, load
from greensv.speaker import device
from greensv.units import j_from_kwh, kwh_from_j
from tiny.study import DEAREST, DEAREST_J, FULL_STEPS, STEPS, Lab

OTHER = "another processor"


def calibrate(processor: str, unit_j: float, *, workload: str = "greensv-resnet-1") -> None:
    """Keeps what a reference unit costs on a processor, as `greensv calibrate` does."""
    unit = UnitCost(
        energy_j=unit_j,
        std_j=1.0,
        uncertainty_j=1.0,
        repeatability_j=0.5,
        net_j=0.6 * unit_j,
        net_uncertainty_j=1.0,
        seconds=4.0,
        power_w=unit_j / 4,
    )
    found = Calibration(
        workload=workload,
        steps_per_unit=10,
        hardware=Hardware(host=this_host(), device=processor, meters={"node": "tiny (measured)"}),
        unit=unit,
        num_steps=20,
        num_repeats=3,
        energies_j=(2 * unit_j,) * 3,
        idle_power_w=5.0,
        measured_at=datetime(2026, 11, 21, tzinfo=UTC).isoformat(),
    )
    store(found, Trace(at_s=(0.0, 1.0), energy_j={("tiny", "node"): (0.0, 5.0)}))


def move(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on greensv finds itself on another processor."""
    monkeypatch.setattr(device, "processor_name", lambda _: OTHER)


def test_another_processor_goes_on_where_both_were_calibrated(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    calibrate(device.processor_name(torch.device("cpu")), 50.0)
    lab.search(max_trials=1)
    began_on = lab.open()[0].optuna.user_attrs[ENVIRONMENT_ATTRIBUTE]
    calibrate(OTHER, 25.0)
    move(monkeypatch)
    lab.search(max_trials=2)
    _, second = lab.records()
    assert (second.state, second.params) == ("complete", DEAREST)
    # A kWh here does twice the work, so it is two of the hardware that the study began on.
    assert j_from_kwh(second.train_energy_kwh or 0) == pytest.approx(2 * FULL_STEPS * DEAREST_J, rel=0.02)
    # What was used is charged as it is.
    assert j_from_kwh(second.measured_energy_kwh or 0) == pytest.approx(STEPS * DEAREST_J, rel=0.02)
    assert j_from_kwh(second.charged_energy_kwh or 0) == pytest.approx(STEPS * DEAREST_J, rel=0.05)
    # Reference units are of this machine's own joules.
    assert second.reference_units == pytest.approx(FULL_STEPS * DEAREST_J / 25.0, rel=0.02)
    study = lab.open()[0].optuna
    assert study.user_attrs[ENVIRONMENT_ATTRIBUTE] == began_on
    assert study.user_attrs[CALIBRATION_ATTRIBUTE]["joules_per_unit"] == 50.0, "of where it began"
    lab.audited()


@pytest.mark.parametrize("lacking", ["there", "here", "same workload"])
def test_another_processor_is_refused_without_two_calibrations_of_one_workload(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, lacking: str
):
    if lacking != "there":
        calibrate(device.processor_name(torch.device("cpu")), 50.0)
    lab.search(max_trials=1)
    if lacking != "here":
        calibrate(OTHER, 25.0, workload="another" if lacking == "same workload" else "greensv-resnet-1")
    move(monkeypatch)
    with pytest.raises(StudyError, match=rf'(?s)→ "{OTHER}".*`greensv calibrate` on both machines'):
        lab.search(max_trials=2)
    assert lab.audited().spent_uj > 0


def test_a_study_renamed_in_the_dashboard_goes_on_with_its_account(lab: Lab):
    lab.search(max_trials=1, budget_j=20_000)
    study, _ = lab.open()
    before = lab.audited()
    records = lab.records()
    storage, ledger = open_storage(lab.url, create=False)
    lab.engines.append(storage.engine)
    # What optuna-dashboard does; the copy has no metric names.
    optuna.copy_study(from_study_name="tiny", from_storage=storage, to_storage=storage, to_study_name="renamed")
    optuna.delete_study(study_name="tiny", storage=storage)
    with pytest.raises(StudyError, match=r"does not hold them; give --artifacts"):
        lab.search(max_trials=2, budget_j=20_000, name="renamed")

    lab.search(max_trials=2, budget_j=20_000, name="renamed", artifacts=lab.folder / "runs" / "tiny" / "trainings")
    assert optuna.get_all_study_names(storage) == ["renamed"]
    renamed = load("renamed", storage)
    assert renamed.study_id == study.study_id
    assert renamed.records()[0] == records[0]
    assert [record.state for record in renamed.records()] == ["complete", "complete"]
    ledger.verify(renamed.study_id)
    after = ledger.statement(renamed.study_id, "search")
    assert after.cap_uj == before.cap_uj
    assert after.reserved_uj == 0
    charged_j = j_from_kwh(renamed.records()[1].charged_energy_kwh or 0)
    assert kwh_from_j(charged_j) > 0
    assert after.spent_uj - before.spent_uj >= 0.99e6 * charged_j
