"""The ledger: accounts with a cap, leases on them, and an append-only book of every joule used.

The budget is a promise kept before energy is used: `reserve` takes an amount out of what is left in one transaction,
or refuses. `spent_uj + reserved_uj <= cap_uj` is a CHECK of the database itself. Energy used beyond the cap, which no
promise can undo, is booked beside it as an overrun, so that no joule is left out of the books. As soon as there is
room, because the cap is raised or a lease gives back, the overrun moves under the cap: room is not given away twice.
"""

import math
import time
import uuid
from collections.abc import Callable, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from greensv.energy.books import postings, statement
from greensv.energy.books.budget import Charge, ChargeOutcome, Holder, Lease, Purpose, ReapedLease, Statement
from greensv.energy.books.postings import HeldLease
from greensv.energy.books.schema import MAX_UJ, Clock, create_tables, database_time, transaction
from greensv.energy.books.tables import accounts, windows
from greensv.energy.monitoring import EnergyWindow
from greensv.errors import BudgetError
from greensv.units import format_energy, j_from_uj, uj_from_j


class Ledger:
    """The books of all studies in one database. One per process and database; safe to use from several threads.

    Every method is one transaction. Within one, the account's row is locked first, so transactions never deadlock.
    """

    def __init__(
        self, engine: Engine, *, clock: Clock = database_time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Opens the books, creating the tables where they are missing; see `create_tables` for what it raises.

        Args:
            engine: the study's database, SQLite or PostgreSQL; Optuna's own engine will do.
            clock: the time in UTC epoch seconds, asked within each transaction that needs it.
            monotonic: this process's own monotonic clock, in seconds.
        """
        create_tables(engine)
        self._engine = engine
        self._clock = clock
        self._monotonic = monotonic

    @property
    def engine(self) -> Engine:
        """The database, for what is kept beside the accounts: idle powers, phases, telemetry, carbon factors."""
        return self._engine

    def open_account(self, study_id: str, account: str, cap_uj: int) -> None:
        """Opens an account, or raises the cap of one that is open.

        Raises:
            BudgetError: the cap is not positive, is beyond any grid, or is below the present one.
        """
        if not 0 < cap_uj <= MAX_UJ:
            raise BudgetError(
                f"the budget of the {account} account must be above 0 and at most {format_energy(j_from_uj(MAX_UJ))}, "
                f"found {format_energy(j_from_uj(cap_uj))}"
            )
        try:
            self._open_account(study_id, account, cap_uj)
        except (
            IntegrityError
        ):  # another process opened it between our look and our insert: PostgreSQL has no row to lock
            self._open_account(study_id, account, cap_uj)

    def _open_account(self, study_id: str, account: str, cap_uj: int) -> None:
        with transaction(self._engine) as connection:
            opened = postings.lock_account(connection, study_id, account)
            if opened is None:
                empty = {"spent_uj": 0, "reserved_uj": 0, "overrun_uj": 0}
                key = {"study_id": study_id, "account": account}
                connection.execute(accounts.insert(), {**key, "cap_uj": cap_uj, **empty})
            elif cap_uj < opened.cap_uj:
                raise BudgetError(
                    f"the {account} account of this study has a budget of {format_energy(j_from_uj(opened.cap_uj))}; "
                    f"it can be raised but not lowered to {format_energy(j_from_uj(cap_uj))}; "
                    "ask for at least the present budget, or start another study"
                )
            elif cap_uj > opened.cap_uj:
                postings.raise_cap(connection, opened, cap_uj)

    def reserve(
        self,
        study_id: str,
        account: str,
        amount_uj: int,
        *,
        purpose: Purpose,
        trial_number: int | None,
        holder: Holder,
        ttl_s: float,
    ) -> Lease | None:
        """Takes `amount_uj` out of what is left, or returns None when it does not fit.

        The lease expires `ttl_s` seconds after its last beat (`charge`), by the database's clock.

        Raises:
            BudgetError: the account is not open.
        """
        assert amount_uj > 0
        lease = Lease(
            id=str(uuid.uuid4()),
            study_id=study_id,
            account=account,
            purpose=purpose,
            trial_number=trial_number,
            holder=holder,
            granted_uj=amount_uj,
            ttl_s=ttl_s,
        )
        with transaction(self._engine) as connection:
            if not postings.take(connection, study_id, account, amount_uj):
                postings.require_account(connection, study_id, account)
                return None
            postings.insert_lease(connection, lease, now=self._clock(connection))
        return lease

    def charge(
        self,
        lease: Lease,
        to_book: Sequence[Charge],
        *,
        peak_power_w: float,
        next_beat_s: float | None = None,
        age_s: float = 0.0,
    ) -> ChargeOutcome:
        """Books charges to a lease and renews it: the heartbeat. With no charges, it renews alone.

        What the lease does not cover is topped up from the account, and what the cap does not cover is booked as
        overrun. A charge already booked, by its id, is passed over. On a closed lease the charges are booked all the
        same and the outcome is fenced.

        Args:
            lease: as `reserve` returned it.
            to_book: charges not sent before, or not known to have arrived.
            peak_power_w: highest power of late, PUE included: what is assumed if the holder falls silent.
            next_beat_s: the holder, while alive, will beat again within so many seconds; None: within its ttl.
            age_s: how long ago the charges ended. The lease is renewed from then on, not from when the database, maybe
                busy, let them in: what is used meanwhile is in no charge yet.

        Raises:
            StudyError: the database cannot be used; nothing was booked, or the booking was not confirmed.
        """
        ended_s = self._monotonic() - age_s
        with transaction(self._engine) as connection:
            account = postings.require_account(connection, lease.study_id, lease.account)
            held = postings.held_lease(connection, lease.id)
            new = postings.unbooked(connection, to_book)
            overrun_uj = postings.book(connection, account, new, lease=held)
            if held.is_open:
                postings.beat(
                    connection,
                    held,
                    at=self._clock(connection) - (self._monotonic() - ended_s),
                    next_beat_s=lease.ttl_s if next_beat_s is None else next_beat_s,
                    peak_power_w=peak_power_w,
                    pue=new[-1].pue if new else held.pue,
                )
            return ChargeOutcome(
                lease_left_uj=postings.held_lease(connection, lease.id).left_uj,
                account_left_uj=postings.require_account(connection, lease.study_id, lease.account).left_uj,
                overrun_uj=overrun_uj,
                is_fenced=not held.is_open,
            )

    def charge_unreserved(self, study_id: str, account: str, to_book: Sequence[Charge]) -> ChargeOutcome:
        """Books energy used while no lease was held, as far as the cap allows, the rest as overrun.

        Raises:
            BudgetError: the account is not open.
            StudyError: as `charge`.
        """
        with transaction(self._engine) as connection:
            opened = postings.require_account(connection, study_id, account)
            overrun_uj = postings.book(connection, opened, postings.unbooked(connection, to_book), lease=None)
            return ChargeOutcome(
                lease_left_uj=0,
                account_left_uj=postings.require_account(connection, study_id, account).left_uj,
                overrun_uj=overrun_uj,
                is_fenced=False,
            )

    def top_up(self, lease: Lease, amount_uj: int) -> bool:
        """Adds to an open lease; False when the amount does not fit or the lease is closed."""
        assert amount_uj > 0
        with transaction(self._engine) as connection:
            postings.require_account(connection, lease.study_id, lease.account)
            if not postings.held_lease(connection, lease.id).is_open:
                return False
            if not postings.take(connection, lease.study_id, lease.account, amount_uj):
                return False
            postings.add_to_lease(connection, lease.id, amount_uj)
            return True

    def settle(self, lease: Lease) -> int:
        """Closes a lease and returns the microjoules it gives back: 0 when it was closed before."""
        with transaction(self._engine) as connection:
            postings.require_account(connection, lease.study_id, lease.account)
            return postings.close_lease(connection, postings.held_lease(connection, lease.id), state="settled")

    def reap(self, study_id: str, *, is_alive: Callable[[Holder], bool | None]) -> tuple[ReapedLease, ...]:
        """Closes the leases of a study that expired or whose holder is known to be dead, and returns them.

        What the holder may have used since its last beat is charged by estimate: its peak power for the time since
        then, but at most until it would have beaten again (a dead holder) or would have stopped itself, its ttl being
        over (a silent one). Never more than the lease has left.

        Args:
            study_id: the study's own id.
            is_alive: whether a holder runs; None when that is not known. `budget.is_alive` knows this host.
        """
        with transaction(self._engine) as connection:
            now = self._clock(connection)
            held = postings.open_leases(connection, study_id)
        reaped = []
        for lease in held:  # asked outside of a transaction: the answer may take a while
            is_dead = is_alive(lease.lease.holder) is False
            if is_dead or lease.is_expired(now):
                reaped += self._reap(lease.lease, is_dead=is_dead)
        return tuple(reaped)

    def _reap(self, lease: Lease, *, is_dead: bool) -> list[ReapedLease]:
        with transaction(self._engine) as connection:
            account = postings.require_account(connection, lease.study_id, lease.account)
            held = postings.held_lease(connection, lease.id)
            now = self._clock(connection)
            if not held.is_open or not (is_dead or held.is_expired(now)):
                return []  # settled, reaped or renewed meanwhile
            charge = _assumed_use(held, now=now, is_dead=is_dead)
            postings.book(connection, account, [charge], lease=held)
            postings.close_lease(connection, postings.held_lease(connection, lease.id), state="reaped")
            return [ReapedLease(lease=lease, charged_uj=charge.energy_uj)]

    def leased_trials(self, study_id: str) -> frozenset[int]:
        """Returns the numbers of the trials that an open lease pays for."""
        with transaction(self._engine) as connection:
            rows = postings.open_leases(connection, study_id)
        return frozenset(row.lease.trial_number for row in rows if row.lease.trial_number is not None)

    def record_window(
        self, study_id: str, account: str, window: EnergyWindow, *, trial_number: int | None = None
    ) -> None:
        """Keeps a closed energy window for reports: one row per reading, PUE not included. It charges nothing.

        What was read beside the charged joules is kept too; a row's role tells it apart.
        """
        rows = [
            {
                "study_id": study_id,
                "account": account,
                "trial_number": trial_number,
                "name": window.name,
                "started_at": window.started_at.timestamp(),
                "duration_s": window.duration_s,
                "meter": reading.meter,
                "domain": str(reading.domain),
                "quality": reading.quality,
                "energy_uj": uj_from_j(reading.energy_j),
                "uncertainty_uj": uj_from_j(reading.uncertainty_j),
                "role": reading.role,
            }
            for reading in (*window.readings, *window.others)
        ]
        if rows:
            with transaction(self._engine) as connection:
                connection.execute(windows.insert(), rows)

    def statement(self, study_id: str, account: str) -> Statement:
        """Returns what an account holds.

        Raises:
            BudgetError: the account is not open.
        """
        with transaction(self._engine) as connection:
            return statement.statement(connection, postings.require_account(connection, study_id, account))

    def trial_energy_uj(self, study_id: str, account: str, trial_number: int) -> int:
        """Returns all that was booked for a trial in microjoules, PUE and overrun included; 0 for an unknown trial."""
        with transaction(self._engine) as connection:
            return statement.trial_energy_uj(connection, study_id, account, trial_number)

    def trial_uncertainty_uj(self, study_id: str, account: str, trial_number: int) -> int | None:
        """Returns the standard uncertainty of `trial_energy_uj`; None where that of a charge is not known."""
        with transaction(self._engine) as connection:
            return statement.uncertainty_uj(connection, study_id, account, trial_number=trial_number)

    def verify(self, study_id: str) -> None:
        """Checks that the books of a study agree with themselves.

        Raises:
            BudgetError: they do not, saying which account and which sums.
        """
        with transaction(self._engine) as connection:
            statement.verify(connection, study_id)


def _assumed_use(held: HeldLease, *, now: float, is_dead: bool) -> Charge:
    """What a holder may have used since its last beat, at most what the lease has left.

    It may have used anything from none to that: a rectangular distribution, charged at its upper end.
    """
    at_most_s = held.next_beat_s if is_dead else held.next_beat_s + held.lease.ttl_s
    silence_s = min(max(0.0, now - held.last_beat_at), at_most_s)
    energy_uj = min(held.left_uj, uj_from_j(held.peak_power_w * silence_s))
    return Charge(
        purpose="reaped",
        trial_number=held.lease.trial_number,
        started_at=held.last_beat_at,
        ended_at=held.last_beat_at + silence_s,
        meter="ledger",
        domain="node",
        quality="estimated",
        energy_uj=energy_uj,
        pue=held.pue,
        uncertainty_uj=round(energy_uj / math.sqrt(3)),
    )
