"""What a ledger's transaction is made of: each function reads or writes rows on an open connection.

Callers lock the account's row first (`lock_account`, `require_account` or `take`), then touch its leases.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import BigInteger, Connection, Update, and_, bindparam, func, select, update

from greensv.energy.books.budget import Charge, Holder, Lease, split_at_cap
from greensv.energy.books.schema import EPOCH_SECONDS
from greensv.energy.books.tables import accounts, charges, leases
from greensv.errors import BudgetError

_IDS_PER_QUERY = 500  # both databases limit the parameters of a statement

# Made once: reserving and settling stand beside Optuna's ask and tell, and must cost little in comparison.
_AMOUNT = bindparam("amount", type_=BigInteger)
_TAKE = {
    dialect: update(accounts)
    .where(accounts.c.study_id == bindparam("study"), accounts.c.account == bindparam("name"))
    .where(accounts.c.spent_uj + accounts.c.reserved_uj + _AMOUNT <= accounts.c.cap_uj)
    .values(reserved_uj=accounts.c.reserved_uj + _AMOUNT)
    .returning(now)
    for dialect, now in EPOCH_SECONDS.items()
}
_LOCK_LEASE = (
    select(accounts, leases)
    # The account first, as everywhere.
    .select_from(
        accounts.join(leases, and_(leases.c.study_id == accounts.c.study_id, leases.c.account == accounts.c.account))
    )
    .where(leases.c.id == bindparam("lease"))
    .with_for_update()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account's row."""

    study_id: str
    account: str
    cap_uj: int
    spent_uj: int
    reserved_uj: int
    overrun_uj: int

    @property
    def left_uj(self) -> int:
        """What nobody has spent or reserved."""
        return self.cap_uj - self.spent_uj - self.reserved_uj


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLease:
    """A lease's row: the lease as granted, and where it stands."""

    lease: Lease
    is_open: bool
    is_reaped: bool
    left_uj: int
    last_beat_at: float
    next_beat_s: float
    peak_power_w: float
    pue: float

    def is_expired(self, now: float, *, reachable_since: float = 0.0) -> bool:
        """Whether its holder has been silent for more than its ttl, since it could reach the database."""
        return now > max(self.last_beat_at, reachable_since) + self.lease.ttl_s


def lock_account(connection: Connection, study_id: str, account: str) -> Account | None:
    """Returns an account, locked until the transaction ends, or None when it is not open."""
    wanted = and_(accounts.c.study_id == study_id, accounts.c.account == account)
    # SQLite has no FOR UPDATE, and needs none: a transaction begins with the write lock, and `reading` sees one state.
    row = connection.execute(select(accounts).where(wanted).with_for_update()).one_or_none()
    return None if row is None else Account(**row._mapping)


def require_account(connection: Connection, study_id: str, account: str) -> Account:
    """Returns an account, locked until the transaction ends.

    Raises:
        BudgetError: it is not open.
    """
    found = lock_account(connection, study_id, account)
    if found is None:
        raise BudgetError(f"this study has no {account} account yet; open one by giving the {account} a budget in kWh")
    return found


def lock_lease(connection: Connection, lease: Lease) -> tuple[Account, HeldLease]:
    """Returns a lease's account and where the lease stands, both locked until the transaction ends.

    Raises:
        BudgetError: the account is not open.
    """
    row = connection.execute(_LOCK_LEASE, {"lease": lease.id}).one_or_none()
    if row is None:
        require_account(connection, lease.study_id, lease.account)
        raise LookupError(f"no lease {lease.id} of account {lease.account}")
    values = row._mapping
    account = Account(**{name: values[accounts.c[name]] for name in Account.__dataclass_fields__})
    return account, _held({column.name: values[column] for column in leases.c})


def take(connection: Connection, study_id: str, account: str, amount_uj: int) -> float | None:
    """Reserves an amount and returns the database's time; None when it does not fit, or the account is not open."""
    taking = _TAKE[connection.dialect.name]
    return connection.execute(taking, {"study": study_id, "name": account, "amount": amount_uj}).scalar_one_or_none()


def raise_cap(connection: Connection, account: Account, cap_uj: int) -> None:
    """Raises a cap, which makes room for what was overrun before."""
    connection.execute(_of_account(account.study_id, account.account).values(cap_uj=cap_uj))
    absorb_overrun(connection, replace(account, cap_uj=cap_uj))


def absorb_overrun(connection: Connection, opened: Account) -> None:
    """Moves earlier overrun under the cap as far as there is room, by rows of equal and opposite overrun.

    Called whenever room appears, so that an account with an overrun has nothing left to give away.
    """
    if not opened.overrun_uj or not opened.left_uj:
        return
    study_id, account = opened.study_id, opened.account
    key = ("lease_id", "trial_number", "purpose", "meter", "domain", "quality", "pue")
    groups = connection.execute(
        select(
            *(charges.c[name] for name in key),
            func.min(charges.c.started_at).label("started_at"),
            func.max(charges.c.ended_at).label("ended_at"),
            func.sum(charges.c.overrun_uj).label("uj"),
        )
        .where(charges.c.study_id == study_id, charges.c.account == account, charges.c.overrun_uj != 0)
        .group_by(*(charges.c[name] for name in key))
        .having(func.sum(charges.c.overrun_uj) > 0)
    ).all()
    rows = []
    parts = split_at_cap([int(group.uj) for group in groups], opened.left_uj)
    for group, (moved_uj, _) in zip(groups, parts, strict=True):
        if moved_uj:
            fields = {name: group._mapping[name] for name in (*key, "started_at", "ended_at")}
            rows.append({**fields, "id": str(uuid.uuid4()), "energy_uj": moved_uj, "overrun_uj": -moved_uj})
    moved_uj = sum(row["energy_uj"] for row in rows)
    _insert_charges(connection, opened, rows)
    _spend(connection, opened, spent_uj=moved_uj, reserved_uj=0, overrun_uj=-moved_uj)


def unbooked(connection: Connection, to_book: Sequence[Charge]) -> list[Charge]:
    """Returns the charges whose id is not in the books yet."""
    known: set[str] = set()
    for start in range(0, len(to_book), _IDS_PER_QUERY):
        ids = [charge.id for charge in to_book[start : start + _IDS_PER_QUERY]]
        known.update(connection.execute(select(charges.c.id).where(charges.c.id.in_(ids))).scalars())
    return [charge for charge in to_book if charge.id not in known]


def book(connection: Connection, account: Account, new: Sequence[Charge], *, lease: HeldLease | None) -> int:
    """Writes charges and pays them from the lease, then from the account; returns the overrun in microjoules."""
    if not new:
        return 0
    lease_left_uj = lease.left_uj if lease else 0
    parts = split_at_cap([charge.energy_uj for charge in new], lease_left_uj + account.left_uj)
    rows = []
    for charge, (covered_uj, beyond_uj) in zip(new, parts, strict=True):
        fields = {name: getattr(charge, name) for name in Charge.__dataclass_fields__}
        rows.append({**fields, "lease_id": lease.lease.id if lease else None})
        rows[-1].update(energy_uj=covered_uj, overrun_uj=beyond_uj)
    _insert_charges(connection, account, rows)
    spent_uj = sum(covered_uj for covered_uj, _ in parts)
    overrun_uj = sum(beyond_uj for _, beyond_uj in parts)
    from_lease_uj = min(spent_uj, lease_left_uj)
    _spend(connection, account, spent_uj=spent_uj, reserved_uj=-from_lease_uj, overrun_uj=overrun_uj)
    if lease and from_lease_uj:
        add_to_lease(connection, lease.lease.id, -from_lease_uj)
    return overrun_uj


def insert_lease(connection: Connection, lease: Lease, *, now: float) -> None:
    """Writes a lease that `take` has paid for."""
    row = {
        "id": lease.id,
        "study_id": lease.study_id,
        "account": lease.account,
        "purpose": lease.purpose,
        "trial_number": lease.trial_number,
        "host": lease.holder.host,
        "pid": lease.holder.pid,
        "process_started_at": lease.holder.process_started_at,
        "state": "open",
        "granted_uj": lease.granted_uj,
        "left_uj": lease.granted_uj,
        "opened_at": now,
        "last_beat_at": now,
        "ttl_s": lease.ttl_s,
        "next_beat_s": lease.ttl_s,
        "peak_power_w": 0.0,
        "pue": 1.0,
    }
    connection.execute(leases.insert(), row)


def has_lease(connection: Connection, lease_id: str) -> bool:
    """Whether a lease was written, be it open or closed."""
    return connection.execute(select(leases.c.id).where(leases.c.id == lease_id)).one_or_none() is not None


def open_leases(connection: Connection, study_id: str) -> list[HeldLease]:
    """Returns the open leases of a study, oldest first."""
    wanted = select(leases).where(leases.c.study_id == study_id, leases.c.state == "open").order_by(leases.c.opened_at)
    return [_held(dict(row)) for row in connection.execute(wanted).mappings()]


def beat(
    connection: Connection, held: HeldLease, *, at: float, next_beat_s: float, peak_power_w: float, pue: float
) -> None:
    """Renews a lease from the time `at` on."""
    renewed = {"last_beat_at": at, "next_beat_s": next_beat_s, "peak_power_w": peak_power_w, "pue": pue}
    connection.execute(_of_lease(held.lease.id).values(**renewed))


def add_to_lease(connection: Connection, lease_id: str, amount_uj: int) -> None:
    """Changes what a lease has left; the account must change with it."""
    connection.execute(_of_lease(lease_id).values(left_uj=leases.c.left_uj + amount_uj))


def top_up_lease(connection: Connection, lease_id: str, amount_uj: int) -> None:
    """Adds to a lease what `take` has paid for."""
    connection.execute(
        _of_lease(lease_id).values(left_uj=leases.c.left_uj + amount_uj, granted_uj=leases.c.granted_uj + amount_uj)
    )


def close_lease(
    connection: Connection, account: Account, held: HeldLease, *, state: Literal["settled", "reaped"]
) -> int:
    """Closes an open lease and gives back to the account, as it stands and is locked, what is left; returns it."""
    close = _of_lease(held.lease.id).values(state=state, left_uj=0)
    give_back = _of_account(account.study_id, account.account)
    give_back = give_back.values(reserved_uj=accounts.c.reserved_uj - held.left_uj)
    if connection.dialect.name == "postgresql":  # both in one round trip; SQLite has none to save, nor such statements
        connection.execute(give_back.add_cte(close.cte("closed")))
    else:
        connection.execute(close)
        connection.execute(give_back)
    absorb_overrun(connection, replace(account, reserved_uj=account.reserved_uj - held.left_uj))
    return held.left_uj


def _of_account(study_id: str, account: str) -> Update:
    return update(accounts).where(accounts.c.study_id == study_id, accounts.c.account == account)


def _of_lease(lease_id: str) -> Update:
    return update(leases).where(leases.c.id == lease_id)


def _insert_charges(connection: Connection, account: Account, rows: Sequence[dict[str, object]]) -> None:
    key = {"study_id": account.study_id, "account": account.account}
    connection.execute(charges.insert(), [{**row, **key} for row in rows])


def _spend(connection: Connection, account: Account, *, spent_uj: int, reserved_uj: int, overrun_uj: int) -> None:
    connection.execute(
        _of_account(account.study_id, account.account).values(
            spent_uj=accounts.c.spent_uj + spent_uj,
            reserved_uj=accounts.c.reserved_uj + reserved_uj,
            overrun_uj=accounts.c.overrun_uj + overrun_uj,
        )
    )


def _held(row: Mapping[str, Any]) -> HeldLease:
    holder = Holder(host=row["host"], pid=row["pid"], process_started_at=row["process_started_at"])
    names = ("id", "study_id", "account", "purpose", "trial_number", "granted_uj", "ttl_s")
    lease = Lease(holder=holder, **{name: row[name] for name in names})
    standing = {name: row[name] for name in ("left_uj", "last_beat_at", "next_beat_s", "peak_power_w", "pue")}
    state = row["state"]
    return HeldLease(lease=lease, is_open=state == "open", is_reaped=state == "reaped", **standing)
