"""What the books say, and whether they agree with themselves. Reads only."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import Column, Connection, Table, case, func, select

from greensv.energy.books.budget import Statement
from greensv.energy.books.postings import Account
from greensv.energy.books.tables import accounts, charges, leases
from greensv.errors import BudgetError


def statement(connection: Connection, account: Account) -> Statement:
    """Returns an account's statement; the account must be locked for its sums to agree."""
    return Statement(
        cap_uj=account.cap_uj,
        spent_uj=account.spent_uj,
        reserved_uj=account.reserved_uj,
        overrun_uj=account.overrun_uj,
        spent_by_purpose=_spent_by(connection, account, charges.c.purpose),
        spent_by_quality=_spent_by(connection, account, charges.c.quality),
        spent_by_meter=_spent_by(connection, account, charges.c.meter),
        uncertainty_uj=uncertainty_uj(connection, account.study_id, account.account),
    )


def trial_energy_uj(connection: Connection, study_id: str, account: str, trial_number: int) -> int:
    """Returns what was booked for a trial, overrun included."""
    of_trial = charges.c.trial_number == trial_number
    energy = func.coalesce(func.sum(charges.c.energy_uj + charges.c.overrun_uj), 0)
    rows = select(energy).where(charges.c.study_id == study_id, charges.c.account == account, of_trial)
    return int(connection.execute(rows).scalar_one())


def uncertainty_uj(
    connection: Connection, study_id: str, account: str, *, trial_number: int | None = None
) -> int | None:
    """Returns the standard uncertainty of all that was booked, overrun included, for a trial or for the whole account.

    The charges of one meter add up, since its scale is off in all of them alike; different meters' are independent.

    None where that of a charge is not known, as in the books of an older greensv.
    """
    # A row with a negative overrun moves an old one under the cap, and is no new energy.
    is_unknown = charges.c.uncertainty_uj.is_(None) & (charges.c.energy_uj + charges.c.overrun_uj > 0)
    found = select(func.sum(charges.c.uncertainty_uj), func.sum(case((is_unknown, 1), else_=0))).where(
        charges.c.study_id == study_id, charges.c.account == account
    )
    if trial_number is not None:
        found = found.where(charges.c.trial_number == trial_number)
    rows = connection.execute(found.group_by(charges.c.meter)).all()
    if any(num_unknown for _, num_unknown in rows):
        return None
    return round(math.hypot(*(int(of_meter_uj or 0) for of_meter_uj, _ in rows)))


def verify(connection: Connection, study_id: str) -> None:
    """Compares every account of a study with the sums of its charges and leases.

    Raises:
        BudgetError: an account differs from its rows.
    """
    of_study = select(accounts).where(accounts.c.study_id == study_id).with_for_update()
    for row in connection.execute(of_study).mappings().all():
        account = Account(**row)
        expected = {
            "spent_uj": _sum(connection, account, charges, charges.c.energy_uj),
            "overrun_uj": _sum(connection, account, charges, charges.c.overrun_uj),
            "reserved_uj": _sum(connection, account, leases, leases.c.left_uj),
        }
        found = {name: row[name] for name in expected}
        if found != expected:
            raise BudgetError(
                f"the books of account {account.account!r} do not agree: the account holds {found}, "
                f"its rows add up to {expected}; the database was changed by something else"
            )


def _spent_by(connection: Connection, account: Account, column: Column[str]) -> Mapping[str, int]:
    spent = select(column, func.sum(charges.c.energy_uj)).where(
        charges.c.study_id == account.study_id, charges.c.account == account.account
    )
    rows = connection.execute(spent.group_by(column).order_by(column))
    return MappingProxyType({name: int(energy_uj) for name, energy_uj in rows})


def _sum(connection: Connection, account: Account, table: Table, column: Column[int]) -> int:
    of_account = (table.c.study_id == account.study_id, table.c.account == account.account)
    return int(connection.execute(select(func.coalesce(func.sum(column), 0)).where(*of_account)).scalar_one())
