"""Reference units in a search: which calibration is in force, and what a trial's energy is by it."""

from collections.abc import Mapping
from typing import Any

from greensv.search.calibration import Calibration, in_force, meter_settings
from greensv.search.events import Noted
from greensv.search.session import Session
from greensv.search.study import OpenStudy

CALIBRATION_ATTRIBUTE = "greensv:calibration"


def reference_in_force(session: Session, study: OpenStudy, environment: Mapping[str, str]) -> Calibration | None:
    """Returns the calibration for this hardware and these meters, says so, and keeps it with the study; None without.

    A study goes on with another one, or with none: each trial's record holds its own reference units.
    """
    reference = in_force(environment, settings=meter_settings(session.metering.choices))
    if reference is None:
        return None
    unit = reference.unit
    session.listen(
        Noted(
            text=f"reference unit of {reference.workload} here: {unit.energy_j:.4g} ± {unit.uncertainty_j:.2g} J, "
            f"calibrated {reference.measured_at}"
        )
    )
    kept: dict[str, Any] = {
        "workload": reference.workload,
        "joules_per_unit": unit.energy_j,
        "uncertainty_j": unit.uncertainty_j,
        "net_joules_per_unit": unit.net_j,
        "measured_at": reference.measured_at,
        "num_threads": reference.num_threads,
        "torch": reference.torch,
    }
    if study.optuna.user_attrs.get(CALIBRATION_ATTRIBUTE) != kept:
        study.optuna.set_user_attr(CALIBRATION_ATTRIBUTE, kept)
    return reference


def reference_fields(reference: Calibration | None, train_energy_kwh: float, *, pue: float) -> dict[str, Any]:
    """Returns the fields of a trial's record that hold its energy in reference units; none without a calibration."""
    if reference is None:
        return {}
    units, uncertainty = reference.units(train_energy_kwh, pue=pue)
    return {"reference_units": units, "reference_units_uncertainty": uncertainty}
