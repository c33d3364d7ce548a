"""Carries what the monitor measures into the ledger: each joule once, to the lease and the purpose in force."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from greensv.energy.books.accrual import Accrual, Use
from greensv.energy.books.budget import Charge, ChargeOutcome, Lease, Purpose
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.outages import StorageAway
from greensv.energy.books.unwritten import Outage
from greensv.energy.monitoring import Monitor, Reading
from greensv.errors import GreensvError
from greensv.units import uj_from_j

_SOONEST_FRACTION = 0.9
"""The first interval counts as measured when this much of it has passed: a poll may come a little early."""

_STARTUP_CHANGES = 2
"""The first power is worked out over so many changes of the slowest counter: over less it may be 0, or far too high."""

_BUSY_ALLOWANCE_S = 5.0
"""How long a busy database may hold up a write. Should a process be killed in one held up for longer, the energy of the
time beyond is the only one that reaping its lease leaves out; assuming more would bill every killed process for it."""

_LOOKS_PER_FLUSH = 4
"""How many times per flush interval whoever waits for a database that is away looks whether it is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A charge on its way to the ledger. Without a lease, it goes to the one in force when it is written."""

    lease: Lease | None
    charge: Charge


class Charger:
    """Charges a process's energy to its study's account. Make one per process, after the account is open.

    Example::

        with Monitor(meters) as monitor:
            charger = Charger(monitor, ledger, study_id=study_id, account="search", pue=1.2)
            charger.charge_startup(seconds_since_process_start)
            with charger.hold(session_lease):
                with charger.hold(trial_lease), charger.purpose("training"):
                    for batch in batches:
                        if charger.is_exhausted or charger.is_fenced:
                            break
                        step(batch)
                    charger.check()
                ledger.settle(trial_lease)
            ledger.settle(session_lease)
            charger.close()

    The monitor's polling thread writes every `flush_interval_s`, so a process that is killed loses at most the energy
    of that and one polling interval; whoever reaps its lease charges an estimate for it. Energy used while no lease is
    held is charged to the account directly. `hold` and `purpose` are for one thread, the one that trains.

    While the database is away, charges wait in memory, and on disk after `keep_unwritten_in`. Training goes on for as
    long as the lease in force surely is ours and pays for it; from then on `check` waits. So do `flush`, `close` and
    the end of a `hold`.

    Args:
        monitor: a started monitor.
        ledger: the books.
        study_id: the study's own id.
        account: the account that pays.
        pue: every joule is multiplied by it.
        flush_interval_s: seconds between two writes; each also renews the leases held.
        clock: the monotonic clock, in seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        monitor: Monitor,
        ledger: Ledger,
        *,
        study_id: str,
        account: str,
        pue: float = 1.0,
        flush_interval_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monitor = monitor
        self._ledger = ledger
        self._study_id = study_id
        self._account = account
        self._pue = pue
        self._flush_interval_s = flush_interval_s
        self._clock = clock
        self._sleep = sleep
        self._writing = threading.Lock()  # one writer at a time
        self._state = threading.RLock()  # guards what follows; never held while the database works
        self._accrual = Accrual(pue=pue, clock=clock)
        self._uses = [Use(lease=None, purpose="startup", trial_number=None)]
        self._entries: list[_Entry] = []
        self._outcomes: dict[str, ChargeOutcome] = {}
        self._beaten_at_s: dict[str, float] = {}
        self._write_again_s = clock() + flush_interval_s
        self._has_told_power = False  # until then, nothing would be assumed for this process if it were killed
        self._startup_s: float | None = None
        self._error: GreensvError | None = None
        self._away_since_s: float | None = None
        self._is_closed = False
        self._outage: Outage | None = None
        monitor.add_observer(self._observe)

    @contextmanager
    def hold(self, lease: Lease) -> Iterator[None]:
        """Charges to `lease` inside the block, and keeps it and those around it renewed. Does not settle it.

        At the end, all that the lease has to pay for is in the ledger, if the database can be had.

        Raises:
            StudyError: the ledger cannot be written, so that nothing may be used on its promise.
        """
        assert lease.ttl_s > self._next_beat_s, "the lease would expire between two beats"
        try:
            with self._using(Use(lease=lease, purpose=lease.purpose, trial_number=lease.trial_number)):
                self.check()
                yield
        finally:
            with suppress(GreensvError):  # must not hide why the block was left: `check` tells
                self._wait_while(lambda: any(entry.lease == lease for entry in self._entries))

    @contextmanager
    def purpose(self, purpose: Purpose, *, trial_number: int | None = None) -> Iterator[None]:
        """Charges to another purpose inside the block, and to another trial if one is given."""
        use = self._uses[-1]
        trial_number = use.trial_number if trial_number is None else trial_number
        with self._using(replace(use, purpose=purpose, trial_number=trial_number)):
            yield

    def keep_unwritten_in(self, folder: Path) -> None:
        """Keeps what a database that is away does not take in a file of `folder` as well, until it does.

        Should this process be killed meanwhile, the next one finds it there by `book_unwritten`.
        """
        self._outage = Outage(folder, study_id=self._study_id, account=self._account)

    def charge_startup(self, duration_s: float) -> None:
        """Charges the energy this process used before the monitor started.

        Meters that count from the start of the process have it in their totals. For the others it is `duration_s` times
        the power of the first metering interval, or of two changes of the slowest meter where that is longer. It is
        charged when that has passed, at the latest on closing, as purpose `startup`, quality `attributed` (or
        `estimated`, where the meter is no better).

        Args:
            duration_s: seconds from the start of the process to the start of the monitor.
        """
        counting = [m.name for m in self._monitor.meters if m.availability.since_process_start]
        with self._state:
            self._startup_s = duration_s
            self._accrual.count_from(self._clock() - duration_s, counting)

    def flush(self) -> None:
        """Reads the meters and writes everything up to now, waiting for a database that is away.

        Raises:
            StudyError: the ledger cannot be written; what was not written is kept and written by the next success.
        """
        self._collect(self._monitor.poll())
        self._write()
        self._wait_while(lambda: True)

    def close(self) -> None:
        """Writes what is left; nothing is charged afterwards. Waits and raises as `flush`."""
        readings = self._monitor.poll()
        with self._state:
            self._collect(readings)
            self._enter_startup()
            self._is_closed = True
        self._write()
        self._wait_while(lambda: True)

    @property
    def unwritten(self) -> tuple[Charge, ...]:
        """The charges that are not known to be in the ledger: after a failed `close`, what would be lost."""
        with self._state:
            return tuple(entry.charge for entry in self._entries)

    def check(self) -> None:
        """Raises why the ledger could not be written, in whichever thread that was, until a write succeeds.

        A database that is away is no reason for as long as its patience lasts and the lease in force pays for what is
        used, which nobody can have closed before its ttl is over. Then it waits, so that nothing is used on no promise.
        """
        self._wait_while(lambda: not self._is_covered)

    def _wait_while(self, is_needed: Callable[[], bool]) -> None:
        """Tries to write for as long as the database is away, waiting is needed, and patience lasts."""
        while True:
            with self._state:
                if self._error is None:
                    return
                if self._away_since_s is None or self._clock() - self._away_since_s >= self._ledger.patience_s:
                    raise self._error
                if not is_needed():
                    return
            self._sleep(self._flush_interval_s / _LOOKS_PER_FLUSH)
            self._collect(self._monitor.poll())
            self._write()

    @property
    def _is_covered(self) -> bool:
        """Whether the lease in force, which cannot be renewed now, is still ours and pays for the next flush."""
        lease = self._lease_in_force
        if lease is None:
            return True
        if lease.id not in self._outcomes or self._clock() - self._beaten_at_s[lease.id] > lease.ttl_s - self._late_s:
            return False
        return self.lease_left_uj(lease) > uj_from_j((self._monitor.power_w or 0.0) * self._pue * self._late_s)

    @property
    def left_uj(self) -> int:
        """What may still be used: what the lease in force and the account have left, less what is not yet written.

        In microjoules, PUE included; below 0 when more was used; 0 at most without a lease. Asks no database.
        """
        with self._state:
            lease = self._lease_in_force
            outcome = self._outcomes.get(lease.id) if lease else None
            granted_uj = outcome.lease_left_uj + outcome.account_left_uj if outcome else 0
            unwritten_uj = sum(entry.charge.energy_uj for entry in self._entries)
            return granted_uj - unwritten_uj - self._accrual.pending_uj

    def lease_left_uj(self, lease: Lease) -> int:
        """Returns what a lease in force has left, less what is not yet written; asks no database."""
        with self._state:
            outcome = self._outcomes.get(lease.id)
            unwritten_uj = sum(entry.charge.energy_uj for entry in self._entries)
            return (outcome.lease_left_uj if outcome else 0) - unwritten_uj - self._accrual.pending_uj

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget would be used up at the present power before the totals show it.

        That takes a metering interval, or what the slowest charged meter takes to change where that is longer.
        """
        return self.left_uj <= uj_from_j((self._monitor.power_w or 0.0) * self._pue * self._late_s)

    @property
    def _late_s(self) -> float:
        return max(self._monitor.interval_s, self._monitor.resolution_s)

    @property
    def is_fenced(self) -> bool:
        """Whether the lease in force was closed by others, or may have been: it could not be renewed for its ttl."""
        with self._state:
            lease = self._lease_in_force
            if lease is None:
                return False
            outcome = self._outcomes.get(lease.id)
            return outcome is None or outcome.is_fenced or self._clock() - self._beaten_at_s[lease.id] > lease.ttl_s

    @property
    def use(self) -> Use:
        """What energy is being used for at this moment."""
        with self._state:
            return self._uses[-1]

    @property
    def _lease_in_force(self) -> Lease | None:
        return self._uses[-1].lease

    @property
    def _next_beat_s(self) -> float:
        # The observer runs once per poll, so that a write comes up to an interval late.
        return self._flush_interval_s + self._monitor.interval_s + _BUSY_ALLOWANCE_S

    @contextmanager
    def _using(self, use: Use) -> Iterator[None]:
        self._switch([*self._uses, use])
        try:
            yield
        finally:
            # A ledger that cannot be written now must not hide why the block was left: `check` tells.
            self._switch(self._uses[:-1])

    def _switch(self, uses: list[Use]) -> None:
        readings = self._monitor.poll()
        with self._state:
            self._collect(readings)
            self._enter_pending()
            self._uses = uses
        self._write()

    def _observe(self, readings: tuple[Reading, ...]) -> None:
        """Called by the monitor's thread after each poll."""
        self._collect(readings)
        is_power_new = not self._has_told_power and self._monitor.peak_power_w is not None
        if is_power_new or self._clock() >= self._write_again_s:
            self._write()

    def _collect(self, readings: Sequence[Reading]) -> None:
        with self._state:
            if self._is_closed:
                return
            self._accrual.add(readings)
            if self._accrual.observed_s >= self._startup_observed_s:
                self._enter_startup()

    @property
    def _startup_observed_s(self) -> float:
        return max(_SOONEST_FRACTION * self._monitor.interval_s, _STARTUP_CHANGES * self._monitor.resolution_s)

    def _enter_pending(self) -> None:
        use = self._uses[-1]
        self._entries += [_Entry(lease=use.lease, charge=charge) for charge in self._accrual.take(use)]

    def _enter_startup(self) -> None:
        if self._startup_s is not None:
            counted = {meter.name for meter in self._monitor.meters if meter.is_startup_counted}
            charges = self._accrual.startup(self._startup_s, counted_meters=counted)
            self._entries += [_Entry(lease=None, charge=charge) for charge in charges]
            self._startup_s = None

    def _write(self) -> None:
        """Writes the charges not yet written and renews every lease held. A failure is kept for `check`."""
        with self._writing:
            with self._state:
                self._enter_pending()
                read_at_s = self._clock() - self._accrual.age_s
                in_force = self._lease_in_force
                batches = self._batches()
                is_power_known = self._monitor.peak_power_w is not None
                began_s = self._clock()
            try:
                for lease, charges in batches:
                    self._write_batch(lease, charges, read_at_s=read_at_s, is_in_force=lease == in_force)
            except GreensvError as error:
                self._keep(batches, in_force)
                with self._state:
                    self._error = error
                    if not isinstance(error, StorageAway):
                        self._away_since_s = None
                    elif self._away_since_s is None:
                        self._away_since_s = began_s
            else:
                if self._outage:
                    self._outage.end()
                with self._state:
                    self._error = self._away_since_s = None
            with self._state:
                now_s = self._clock()
                # A server that does not answer holds up the meters' thread: for half of the time at most.
                self._write_again_s = now_s + max(self._flush_interval_s, now_s - began_s if self._error else 0.0)
                self._has_told_power = is_power_known

    def _keep(self, batches: Sequence[tuple[Lease | None, Sequence[Charge]]], in_force: Lease | None) -> None:
        if self._outage:
            for lease, charges in batches:
                power_w = self._assumed_power_w(is_in_force=lease == in_force)
                self._outage.keep(lease, charges, peak_power_w=power_w, next_beat_s=self._next_beat_s)

    def _assumed_power_w(self, *, is_in_force: bool) -> float:
        # A process that dies used energy on one lease only: of the others, nothing is to be assumed.
        return (self._monitor.peak_power_w or 0.0) * self._pue if is_in_force else 0.0

    def _batches(self) -> list[tuple[Lease | None, list[Charge]]]:
        """What is to be written, by lease; a lease that is held and has nothing to pay is there to be renewed."""
        held = {use.lease.id: use.lease for use in self._uses if use.lease}
        batches: dict[str, tuple[Lease | None, list[Charge]]] = {key: (lease, []) for key, lease in held.items()}
        for entry in self._entries:
            lease = entry.lease or self._lease_in_force
            batches.setdefault(lease.id if lease else "", (lease, []))[1].append(entry.charge)
        return list(batches.values())

    def _write_batch(
        self, lease: Lease | None, charges: Sequence[Charge], *, read_at_s: float, is_in_force: bool
    ) -> None:
        if lease is not None:
            outcome = self._ledger.charge(
                lease,
                charges,
                peak_power_w=self._assumed_power_w(is_in_force=is_in_force),
                next_beat_s=self._next_beat_s,
                age_s=self._clock() - read_at_s,
                patience_s=0.0,
            )
        elif charges:
            outcome = self._ledger.charge_unreserved(self._study_id, self._account, charges, patience_s=0.0)
        else:
            return
        written = {charge.id for charge in charges}
        with self._state:
            self._entries = [entry for entry in self._entries if entry.charge.id not in written]
            if lease is not None:
                self._outcomes[lease.id] = outcome
                self._beaten_at_s[lease.id] = read_at_s
