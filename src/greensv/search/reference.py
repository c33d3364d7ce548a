"""Reference units in a search: which calibration is in force, and what a trial's energy is by it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from greensv.search.calibration import Calibration, in_force, meter_settings
from greensv.search.events import Noted
from greensv.search.session import Session

if TYPE_CHECKING:
    import optuna

CALIBRATION_ATTRIBUTE = "greensv:calibration"


def reference_in_force(session: Session, environment: Mapping[str, str]) -> Calibration | None:
    """Returns the calibration for this hardware and these meters, and says so; None without."""
    reference = in_force(environment, settings=meter_settings(session.metering.choices))
    if reference is not None:
        unit = reference.unit
        session.listen(
            Noted(
                text=f"reference unit of {reference.workload} here: {unit.energy_j:.4g} ± {unit.uncertainty_j:.2g} J, "
                f"calibrated {reference.measured_at}"
            )
        )
    return reference


def keep_reference(study: "optuna.Study", reference: Calibration | None) -> None:
    """Keeps with a study what a reference unit costs on the hardware that it began on.

    A study goes on with another calibration, or with none: each trial's record holds its own reference units.
    """
    if reference is None:
        return
    unit = reference.unit
    kept: dict[str, Any] = {
        "workload": reference.workload,
        "joules_per_unit": unit.energy_j,
        "uncertainty_j": unit.uncertainty_j,
        "net_joules_per_unit": unit.net_j,
        "measured_at": reference.measured_at,
        "num_threads": reference.num_threads,
        "torch": reference.torch,
    }
    if study.user_attrs.get(CALIBRATION_ATTRIBUTE) != kept:
        study.set_user_attr(CALIBRATION_ATTRIBUTE, kept)


def unit_factor(study: "optuna.Study", reference: Calibration | None) -> float | None:
    """Returns what a joule here is on the hardware that the study began on: the ratio of their reference units.

    None where either has no calibration, or they are of different workloads.
    """
    kept = study.user_attrs.get(CALIBRATION_ATTRIBUTE)
    if kept is None or reference is None or kept["workload"] != reference.workload:
        return None
    return float(kept["joules_per_unit"]) / reference.unit.energy_j


def reference_fields(reference: Calibration | None, train_energy_kwh: float, *, pue: float) -> dict[str, Any]:
    """Returns the fields of a trial's record that hold its energy in reference units; none without a calibration."""
    if reference is None:
        return {}
    units, uncertainty = reference.units(train_energy_kwh, pue=pue)
    return {"reference_units": units, "reference_units_uncertainty": uncertainty}
