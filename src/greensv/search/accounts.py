"""What an account of the ledger holds, in kWh for people and machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from greensv.energy.baseline.idle_book import NetAccount, net_account
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import transaction
from greensv.energy.books.window_book import window_totals
from greensv.energy.devices.phase_book import DATA_WAIT, PhaseTotal, phase_totals
from greensv.energy.devices.telemetry_book import telemetry_summaries
from greensv.errors import BudgetError
from greensv.units import kwh_from_j, kwh_from_uj

RETRAIN = "retrain"
SEARCH = "search"


def account_as_json(ledger: Ledger, study_id: str, account: str) -> dict[str, Any] | None:
    """Returns cap, spent, reserved and overrun in kWh, and the spending by purpose, quality and meter.

    `uncertainty_kwh` is the standard uncertainty of what is spent, overrun included; None where that of a charge is not
    known, as in the books of an older greensv.

    With an idle power, also what is net of it (`net_kwh`, `net_by_purpose`, what is beyond the cap included), and the
    gross of what it is not known for (`without_idle_power_kwh`), which is in no net figure.

    With trainings, also `training_phases`, as `phases_as_json` returns them.

    None when the account has not been opened.
    """
    try:
        statement = ledger.statement(study_id, account)
    except BudgetError:
        return None
    with transaction(ledger.engine) as connection:
        net = net_account(connection, study_id, account)
        phases = phase_totals(connection, study_id, account)
    return {
        "cap_kwh": kwh_from_uj(statement.cap_uj),
        "spent_kwh": kwh_from_uj(statement.spent_uj),
        "reserved_kwh": kwh_from_uj(statement.reserved_uj),
        "overrun_kwh": kwh_from_uj(statement.overrun_uj),
        "uncertainty_kwh": None if statement.uncertainty_uj is None else kwh_from_uj(statement.uncertainty_uj),
        "by_purpose": _in_kwh(statement.spent_by_purpose),
        "by_quality": _in_kwh(statement.spent_by_quality),
        "by_meter": _in_kwh(statement.spent_by_meter),
        **(_net_as_json(net) if net else {}),
        **({"training_phases": phases_as_json(phases)} if phases else {}),
    }


def phases_as_json(phases: Sequence[PhaseTotal]) -> dict[str, Any]:
    """Returns the energy of trainings by phase of a step, and what was used waiting for data; attributed, PUE included.

    `data_wait_share` is the share of the trainings' energy.
    """
    total_j = sum(phase.energy_j for phase in phases)
    waiting = [phase for phase in phases if phase.phase == DATA_WAIT]
    waiting_j = sum(phase.energy_j for phase in waiting)
    return {
        "quality": "attributed",
        "data_wait_s": sum(phase.duration_s for phase in waiting),
        "data_wait_energy_kwh": kwh_from_j(waiting_j),
        "data_wait_share": waiting_j / total_j if total_j else None,
        "by_phase": {
            phase.phase: {
                "duration_s": phase.duration_s,
                "energy_kwh": kwh_from_j(phase.energy_j),
                "uncertainty_kwh": kwh_from_j(phase.uncertainty_j),
            }
            for phase in phases
        },
    }


def telemetry_as_json(ledger: Ledger, study_id: str, account: str) -> dict[int, dict[str, Any]]:
    """Returns what each device was doing while it trained: by trial, then by device; None for what it did not tell."""
    with transaction(ledger.engine) as connection:
        summaries = telemetry_summaries(connection, study_id, account)
    found: dict[int, dict[str, Any]] = {}
    for summary in summaries:
        values = asdict(summary)
        number, device = values.pop("trial_number"), values.pop("device")
        found.setdefault(number, {})[device] = values
    return found


def windows_as_json(ledger: Ledger, study_id: str, account: str, *, pue: float) -> dict[int, list[dict[str, Any]]]:
    """Returns by trial what each meter read of each domain in its training, also beside the charges; PUE included.

    `role` is `charged`, `part` (of a node), `rest` (of it) or `beside`; `uncertainty_kwh` is standard, None where it
    was not kept. `resolution_s` is how often the counter or sensor changes.
    """
    with transaction(ledger.engine) as connection:
        totals = window_totals(connection, study_id, account)
    found: dict[int, list[dict[str, Any]]] = {}
    for total in totals:
        values = {
            "meter": total.meter,
            "domain": total.domain,
            "role": total.role,
            "quality": total.quality,
            "duration_s": total.duration_s,
            "energy_kwh": pue * kwh_from_j(total.energy_j),
            "uncertainty_kwh": None if total.uncertainty_j is None else pue * kwh_from_j(total.uncertainty_j),
            "resolution_s": total.resolution_s,
        }
        found.setdefault(total.trial_number, []).append(values)
    return found


def _net_as_json(net: NetAccount) -> dict[str, Any]:
    return {
        "net_kwh": kwh_from_j(net.net_j),
        "net_by_purpose": {name: kwh_from_j(value) for name, value in sorted(net.net_j_by_purpose.items())},
        "without_idle_power_kwh": kwh_from_j(net.without_baseline_j),
    }


def _in_kwh(spent: Any) -> dict[str, float]:
    return {name: kwh_from_uj(value) for name, value in sorted(spent.items(), key=lambda item: -item[1])}
