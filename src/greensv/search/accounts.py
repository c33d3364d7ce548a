"""What an account of the ledger holds, in kWh for people and machines."""

from typing import Any

from greensv.energy.ledger import Ledger
from greensv.errors import BudgetError
from greensv.units import kwh_from_uj

RETRAIN = "retrain"
SEARCH = "search"


def account_as_json(ledger: Ledger, study_id: str, account: str) -> dict[str, Any] | None:
    """Returns cap, spent, reserved and overrun in kWh, and the spending by purpose, quality and meter.

    None when the account has not been opened.
    """
    try:
        statement = ledger.statement(study_id, account)
    except BudgetError:
        return None
    return {
        "cap_kwh": kwh_from_uj(statement.cap_uj),
        "spent_kwh": kwh_from_uj(statement.spent_uj),
        "reserved_kwh": kwh_from_uj(statement.reserved_uj),
        "overrun_kwh": kwh_from_uj(statement.overrun_uj),
        "by_purpose": _in_kwh(statement.spent_by_purpose),
        "by_quality": _in_kwh(statement.spent_by_quality),
        "by_meter": _in_kwh(statement.spent_by_meter),
    }


def _in_kwh(spent: Any) -> dict[str, float]:
    return {name: kwh_from_uj(value) for name, value in sorted(spent.items(), key=lambda item: -item[1])}
