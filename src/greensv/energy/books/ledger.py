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
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from greensv.energy.books import postings, statement
from greensv.energy.books.budget import (
    Charge,
    ChargeOutcome,
    Holder,
    Lease,
    Purpose,
    ReapedLease,
    Settlement,
    Statement,
)
from greensv.energy.books.outages import PATIENCE_S
from greensv.energy.books.postings import HeldLease
from greensv.energy.books.schema import MAX_UJ, Clock, create_tables, database_time, persist, reading
from greensv.energy.books.tables import accounts
from greensv.energy.books.window_book import record_window
from greensv.energy.monitoring import EnergyWindow
from greensv.errors import BudgetError
from greensv.units import format_energy, j_from_uj, uj_from_j

Done = TypeVar("Done")


class Ledger:
    """The books of all studies in one database. One per process and database; safe to use from several threads.

    Every method is one transaction. Within one, the account's row is locked first, so transactions never deadlock.

    While the database is away, whoever writes waits for up to `patience_s`, then gets StorageAway. A transaction that
    is tried again does nothing twice, even if its first commit went through and only the answer was lost.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock = database_time,
        monotonic: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Opens the books, creating the tables where they are missing; see `create_tables` for what it raises.

        Args:
            engine: the study's database, SQLite or PostgreSQL; Optuna's own engine will do.
            clock: the time in UTC epoch seconds, asked within each transaction that needs it.
            monotonic: this process's own monotonic clock, in seconds.
            patience_s: how long to wait for a database that is away.
        """
        create_tables(engine)
        self._engine = engine
        self._clock = clock
        self._monotonic = monotonic
        self.patience_s = patience_s
        self._found_again_s: float | None = None

    def _persist(self, work: Callable[[Connection, bool], Done], *, patience_s: float | None = None) -> Done:
        patience_s = self.patience_s if patience_s is None else patience_s
        return persist(self._engine, work, patience_s=patience_s, found_again=self._note_found_again)

    def _note_found_again(self) -> None:
        self._found_again_s = self._monotonic()

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
        def work(connection: Connection, _: bool) -> None:
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

        self._persist(work)

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
        within: Callable[[Connection, Lease], bool] | None = None,
    ) -> Lease | None:
        """Takes `amount_uj` out of what is left, or returns None when it does not fit.

        The lease expires `ttl_s` seconds after its last beat (`charge`), by the database's clock.

        Args:
            study_id: the study's own id.
            account: the account that pays.
            amount_uj: microjoules, PUE included.
            purpose: what for.
            trial_number: the trial it is for, if it is for one.
            holder: the process that will use it.
            ttl_s: seconds after its last beat at which it expires.
            within: called in the same transaction once the money was taken, to write what must change together with it
                (the account's row is locked: only one caller at a time is here). False rolls all back: no lease, no
                money, and `reserve` returns None. May be called again if the transaction has to be repeated, so it
                does nothing but reads and writes on the connection.

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

        def work(connection: Connection, is_repeat: bool) -> Lease | None:
            if is_repeat and postings.has_lease(connection, lease.id):
                return lease
            taken_at = postings.take(connection, study_id, account, amount_uj)
            if taken_at is None:
                postings.require_account(connection, study_id, account)
                return None
            now = taken_at if self._clock is database_time else self._clock(connection)
            postings.insert_lease(connection, lease, now=now)
            if within is not None and not within(connection, lease):
                connection.rollback()
                return None
            return lease

        return self._persist(work)

    def charge(
        self,
        lease: Lease,
        to_book: Sequence[Charge],
        *,
        peak_power_w: float,
        next_beat_s: float | None = None,
        age_s: float = 0.0,
        patience_s: float | None = None,
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
            patience_s: how long to wait for a database that is away; None: as long as this ledger's other methods.

        Raises:
            StorageAway: the database is away; nothing was booked, or the booking was not confirmed.
            StudyError: it cannot be written.
        """
        ended_s = self._monotonic() - age_s
        overrun_uj = 0

        def work(connection: Connection, _: bool) -> ChargeOutcome:
            nonlocal overrun_uj
            account, held = postings.lock_lease(connection, lease)
            new = postings.unbooked(connection, to_book)
            if new:  # else an earlier call booked them, or this one's first attempt
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
            after, left = postings.lock_lease(connection, lease)
            return ChargeOutcome(
                lease_left_uj=left.left_uj,
                account_left_uj=after.left_uj,
                overrun_uj=overrun_uj,
                is_fenced=not held.is_open,
            )

        return self._persist(work, patience_s=patience_s)

    def charge_unreserved(
        self, study_id: str, account: str, to_book: Sequence[Charge], *, patience_s: float | None = None
    ) -> ChargeOutcome:
        """Books energy used while no lease was held, as far as the cap allows, the rest as overrun.

        Raises:
            BudgetError: the account is not open.
            StorageAway, StudyError: as `charge`.
        """
        overrun_uj = 0

        def work(connection: Connection, _: bool) -> ChargeOutcome:
            nonlocal overrun_uj
            opened = postings.require_account(connection, study_id, account)
            if new := postings.unbooked(connection, to_book):
                overrun_uj = postings.book(connection, opened, new, lease=None)
            return ChargeOutcome(
                lease_left_uj=0,
                account_left_uj=postings.require_account(connection, study_id, account).left_uj,
                overrun_uj=overrun_uj,
                is_fenced=False,
            )

        return self._persist(work, patience_s=patience_s)

    def top_up(self, lease: Lease, amount_uj: int) -> bool:
        """Adds to an open lease; False when the amount does not fit or the lease is closed.

        A lease is topped up by one thread of its holder: what was granted in all tells whether a repeat has to.
        """
        assert amount_uj > 0
        granted_uj: int | None = None

        def work(connection: Connection, _: bool) -> bool:
            nonlocal granted_uj
            held = postings.lock_lease(connection, lease)[1]
            if held.lease.granted_uj == granted_uj:
                return True
            granted_uj = held.lease.granted_uj + amount_uj
            if not held.is_open or postings.take(connection, lease.study_id, lease.account, amount_uj) is None:
                return False
            postings.top_up_lease(connection, lease.id, amount_uj)
            return True

        return self._persist(work)

    def settle(self, lease: Lease, *, within: Callable[[Connection], None] | None = None) -> Settlement:
        """Closes a lease and gives back what is left of it.

        Args:
            lease: as `reserve` returned it.
            within: called in the same transaction, to write what must change together with the money. Only when the
                lease was open until now: one that was reaped meanwhile (`Settlement.is_reaped`) pays for somebody
                else's work, or for nobody's, so that what its former holder found out must not be written as if it
                still held it. May be called again if the transaction has to be repeated.
        """
        given_back_uj = 0

        def work(connection: Connection, _: bool) -> Settlement:
            nonlocal given_back_uj
            account, held = postings.lock_lease(connection, lease)
            if held.is_reaped:
                return Settlement(given_back_uj=0, is_reaped=True)
            if held.is_open:  # else an earlier call closed it, or this one's first attempt
                given_back_uj = postings.close_lease(connection, account, held, state="settled")
                if within is not None:
                    within(connection)
            return Settlement(given_back_uj=given_back_uj, is_reaped=False)

        return self._persist(work)

    def reap(
        self,
        study_id: str,
        *,
        is_alive: Callable[[Holder], bool | None],
        within: Callable[[Connection, Lease], None] | None = None,
    ) -> tuple[ReapedLease, ...]:
        """Closes the leases of a study that expired or whose holder is known to be dead, and returns them.

        What the holder may have used since its last beat is charged by estimate: its peak power for the time since
        then, but at most until it would have beaten again (a dead holder) or would have stopped itself, its ttl being
        over (a silent one). Never more than the lease has left.

        Args:
            study_id: the study's own id.
            is_alive: whether a holder runs; None when that is not known. `budget.is_alive` knows this host.
            within: called for each reaped lease in the transaction that closes it, to write what must change together
                with the money. May be called again if the transaction has to be repeated.
        """
        held, now = self._persist(lambda at, _: (postings.open_leases(at, study_id), self._clock(at)))
        reaped = []
        for lease in held:  # asked outside of a transaction: the answer may take a while
            is_dead = is_alive(lease.lease.holder) is False
            if is_dead or self._is_expired(lease, now):
                reaped += self._reap(lease.lease, is_dead=is_dead, within=within)
        return tuple(reaped)

    def _is_expired(self, held: HeldLease, now: float) -> bool:
        """Whether its holder has been silent for its ttl, not counting when no holder could reach the database."""
        if self._found_again_s is None:
            return held.is_expired(now)
        return held.is_expired(now, reachable_since=now - (self._monotonic() - self._found_again_s))

    def _reap(
        self, lease: Lease, *, is_dead: bool, within: Callable[[Connection, Lease], None] | None
    ) -> list[ReapedLease]:
        charge: Charge | None = None

        def work(connection: Connection, _: bool) -> list[ReapedLease]:
            nonlocal charge
            account, held = postings.lock_lease(connection, lease)
            now = self._clock(connection)
            if charge is None or postings.unbooked(connection, [charge]):
                if not held.is_open or not (is_dead or self._is_expired(held, now)):
                    return []  # settled, reaped or renewed meanwhile
                charge = _assumed_use(held, now=now, is_dead=is_dead)
                postings.book(connection, account, [charge], lease=held)
                account, left = postings.lock_lease(connection, lease)
                postings.close_lease(connection, account, left, state="reaped")
                if within is not None:
                    within(connection, lease)
            return [ReapedLease(lease=lease, charged_uj=charge.energy_uj)]

        return self._persist(work)

    def now(self) -> float:
        """Returns the database's clock in UTC epoch seconds: the one clock that all processes of a study share."""
        with reading(self._engine) as connection:
            return self._clock(connection)

    def leased_trials(self, study_id: str) -> frozenset[int]:
        """Returns the numbers of the trials that an open lease pays for."""
        with reading(self._engine) as connection:
            rows = postings.open_leases(connection, study_id)
        return frozenset(row.lease.trial_number for row in rows if row.lease.trial_number is not None)

    def record_window(
        self, study_id: str, account: str, window: EnergyWindow, *, trial_number: int | None = None
    ) -> None:
        """Keeps a closed energy window for reports: one row per reading, PUE not included. It charges nothing.

        What was read beside the charged joules is kept too; a row's role tells it apart.
        """
        self._persist(
            lambda connection, is_repeat: record_window(
                connection, study_id, account, window, trial_number=trial_number, is_repeat=is_repeat
            )
        )

    def statement(self, study_id: str, account: str) -> Statement:
        """Returns what an account holds.

        Raises:
            BudgetError: the account is not open.
        """
        with reading(self._engine) as connection:
            return statement.statement(connection, postings.require_account(connection, study_id, account))

    def trial_energy_uj(self, study_id: str, account: str, trial_number: int) -> int:
        """Returns all that was booked for a trial in microjoules, PUE and overrun included; 0 for an unknown trial."""
        with reading(self._engine) as connection:
            return statement.trial_energy_uj(connection, study_id, account, trial_number)

    def trial_uncertainty_uj(self, study_id: str, account: str, trial_number: int) -> int | None:
        """Returns the standard uncertainty of `trial_energy_uj`; None where that of a charge is not known."""
        with reading(self._engine) as connection:
            return statement.uncertainty_uj(connection, study_id, account, trial_number=trial_number)

    def verify(self, study_id: str) -> None:
        """Checks that the books of a study agree with themselves.

        Raises:
            BudgetError: they do not, saying which account and which sums.
        """
        self._persist(lambda connection, _: statement.verify(connection, study_id))


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
