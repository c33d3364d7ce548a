"""What meters read of a whole node, shared by the processes of greensv that work on it at the same time.

Two processes on one machine each read the whole socket: charged as it is, every joule would be charged twice. So they
agree through the ledger's database: one of them, the owner, settles every two seconds what a domain used, and allots it
by the CPU time of each. Between settlements a process counts on its latest fraction, so reading asks no database.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from types import TracebackType
from typing import Self

from sqlalchemy import Engine

from greensv.energy.books.budget import this_process
from greensv.energy.books.schema import Clock, database_time, transaction
from greensv.energy.meter import Domain, Sample
from greensv.energy.metering.reading import OpenMeter
from greensv.energy.sharing import settlement as sharing_book
from greensv.energy.sharing.rows import Mark, Member
from greensv.energy.sharing.settlement import Report, Standing
from greensv.energy.sharing.trace import Trace
from greensv.errors import GreensvError, MeterError
from greensv.units import MICROJOULES_PER_JOULE, j_from_uj

logger = logging.getLogger(__name__)

EXCHANGE_INTERVAL_S = 2.0
LOOK_S = 0.2
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Sharing:
    """Makes open meters read this process's part alone of what others use too. A context manager.

    Example::

        with Sharing(open_meters(choices), engine, cpu_time_s=cpu_time_s) as sharing:
            with Monitor(sharing.meters) as monitor:
                ...
                monitor.poll()
                sharing.leave()

    A domain is shared where its joules are charged and its meter counts what others use. Alone on the node, a process
    reads exactly what its meters do. Without any such domain the database is not touched.

    Args:
        meters: the open meters. They are closed when entering fails; afterwards the monitor closes them.
        engine: the ledger's database, the same for all processes that are to share.
        cpu_time_s: the CPU time of this process and of those that work for it, in seconds since they started.
        node: which machine this is; None: as the kernel says.
        clock: the time in UTC epoch seconds, asked within each transaction.
        interval_s: seconds between two exchanges; None: none but those that are called for.
    """

    def __init__(
        self,
        meters: Sequence[OpenMeter],
        engine: Engine,
        *,
        cpu_time_s: Callable[[], float],
        node: str | None = None,
        clock: Clock = database_time,
        interval_s: float | None = EXCHANGE_INTERVAL_S,
    ) -> None:
        shares = [{domain: DomainShare(meter, domain) for domain in _shareable(meter)} for meter in meters]
        self.meters = tuple(replace(meter, shares=own) for meter, own in zip(meters, shares, strict=True))
        self._shares = [share for own in shares for share in own.values()]
        self._engine = engine
        self._cpu_time_s = cpu_time_s
        self._member = Member(id=str(uuid.uuid4()), node=node or this_node(), holder=this_process())
        self._clock = clock
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_in = False

    @property
    def is_shared(self) -> bool:
        """Whether another process has shared any of the domains since this one came."""
        return any(share.is_shared for share in self._shares)

    def __enter__(self) -> Self:
        """Joins those who share the domains already.

        Raises:
            MeterError: another process on this node charges an overlapping domain, or the CPU time is not to be had.
            StudyError: the database cannot be used.
        """
        if not self._shares:
            return self
        try:
            self._join()
        except BaseException:
            for meter in self.meters:
                meter.session.close()
            raise
        if self._interval_s is not None:
            self._thread = threading.Thread(target=self._run, name="greensv-sharing", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def exchange(self) -> None:
        """Reports to the others and learns where this process stands; the thread does it every `interval_s`.

        Raises:
            StudyError: the database cannot be used. Nothing is lost: the next exchange makes up for it.
        """
        if not self._is_in:
            return
        cpu_time_s = self._cpu_time_s()
        with transaction(self._engine) as connection:
            reports = [share.report(cpu_time_s) for share in self._shares]
            standings = sharing_book.exchange(connection, self._member, reports, now=self._clock(connection))
        for share in self._shares:
            share.learn(standings[share.domain])

    def wait_until_counted(self, timeout_s: float = 3 * EXCHANGE_INTERVAL_S) -> bool:
        """Waits until the others know of this process, so that what it uses from now on is its own.

        Until the owner's next settlement a newcomer is allotted nothing: a measurement begun before would show 0 J.
        Needs a monitor that reads the meters. Returns whether they know; alone on the node, at once.

        Raises:
            StudyError: the database cannot be used.
        """
        until_s = time.monotonic() + timeout_s
        while not all(share.is_counted for share in self._shares):
            if time.monotonic() > until_s:
                return False
            time.sleep(LOOK_S)
            self.exchange()
        return True

    def leave(self) -> None:
        """Settles a last time and goes. Poll before; what is read afterwards of a shared domain belongs to the others.

        The next poll reads exactly what this process was allotted in all.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._is_in:
            return
        self._is_in = False
        try:
            cpu_time_s = self._cpu_time_s()
            with transaction(self._engine) as connection:
                reports = [share.report(cpu_time_s) for share in self._shares]
                standings = sharing_book.leave(connection, self._member, reports, now=self._clock(connection))
        except (GreensvError, OSError, ValueError) as error:
            logger.warning("energy shared with other processes could not be settled at the end: %s", error)
            return
        for share in self._shares:
            share.learn(standings[share.domain])

    def _join(self) -> None:
        try:
            cpu_time_s = self._cpu_time_s()
        except (OSError, ValueError) as error:
            raise MeterError(
                f"the CPU time of this process, by which processes on one machine share its energy, cannot be read: "
                f"{error}; mount /proc, or set energy.is_shared = false and run one process at a time"
            ) from error
        meters = {share.domain: share.meter for share in self._shares}
        with transaction(self._engine) as connection:
            now = self._clock(connection)
            is_alone = sharing_book.join(connection, self._member, meters, cpu_time_s=cpu_time_s, now=now)
        for share in self._shares:
            share.begin(is_alone=is_alone[share.domain])
        self._is_in = True

    def _run(self) -> None:
        has_failed = False
        while not self._stopping.wait(self._interval_s):
            try:
                self.exchange()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next exchange makes up for it
                if not has_failed:
                    logger.warning("energy shared with other processes could not be exchanged: %s", error)
                has_failed = True
            else:
                has_failed = False


class DomainShare:
    """This process's part of one domain. Safe to use from several threads."""

    def __init__(self, meter: OpenMeter, domain: Domain) -> None:
        self.meter = meter.name
        self.domain = domain
        self._lock = threading.Lock()
        self._trace = Trace(meter.availability)
        self._first: Sample | None = None
        self._latest: Sample | None = None
        self._passed_on_j = 0.0
        self._allotted_j = 0.0
        self._fraction = 1.0
        self._settled: Mark | None = None
        self._owed_j = 0.0
        self._is_shared = False
        self._joined_others = False

    @property
    def is_shared(self) -> bool:
        """Whether others have shared it since this process came: its readings are then attributed, not measured."""
        return self._is_shared

    @property
    def is_counted(self) -> bool:
        """Whether a settlement has been made since this process read its first sample, or nobody else is there."""
        with self._lock:
            if not self._is_shared:
                return True
            first, settled = self._first, self._settled
            return first is not None and settled is not None and settled.sample.taken_at_s >= first.taken_at_s

    @property
    def joined_others(self) -> bool:
        """Whether others were there first: they are charged what it used before its first settlement."""
        return self._joined_others

    @property
    def resolution_s(self) -> float:
        """How old the knowledge of who used what may be, in seconds."""
        return EXCHANGE_INTERVAL_S

    @property
    def fraction(self) -> float:
        """Which part of the domain's present power is this process's, as far as it is known."""
        return self._fraction if self._is_shared else 1.0

    def own_j(self, sample: Sample, step_j: float) -> float:
        """Takes in a sample and returns how many joules to add to what has been read before.

        Args:
            sample: as the meter read it.
            step_j: the joules of the whole domain since the sample before it; 0 with the first.
        """
        with self._lock:
            self._trace.add(sample, step_j)
            self._first = self._first or sample
            self._latest = sample
            own_j = step_j
            if self._is_shared:
                # Readings never go back: where too much was counted on, they stand still until it is caught up with.
                own_j = max(0.0, self._allotted_j + self._expected_j(sample) - self._passed_on_j)
            self._passed_on_j += own_j
            return own_j

    def begin(self, *, is_alone: bool) -> None:
        """Sets whether others were there first."""
        with self._lock:
            self._is_shared = self._joined_others = not is_alone
            self._fraction = 1.0 if is_alone else 0.0

    def report(self, cpu_time_s: float) -> Report:
        """Returns what is to be told to the others."""
        with self._lock:
            passed_on_uj = round(self._passed_on_j * MICROJOULES_PER_JOULE) if self._is_shared else None
            return Report(
                domain=self.domain,
                meter=self.meter,
                cpu_time_s=cpu_time_s,
                passed_on_uj=passed_on_uj,
                first=self._first,
                latest=self._latest,
                energy_j=self._energy_j,
            )

    def learn(self, standing: Standing) -> None:
        """Takes in where this process stands."""
        with self._lock:
            self._is_shared = self._is_shared or standing.num_sharers > 1
            self._allotted_j = j_from_uj(standing.allotted_uj)
            self._fraction = standing.fraction
            self._settled = standing.settled
            self._owed_j = j_from_uj(standing.owed_uj)

    def _expected_j(self, sample: Sample) -> float:
        if self._fraction == 0 or self._settled is None or sample.taken_at_s <= self._settled.sample.taken_at_s:
            return 0.0
        try:
            energy_j = self._trace.energy_j(self._settled, sample, meter=self.meter)
        except MeterError:  # another's counter, from before this process read its own: the next settlement tells
            return 0.0
        return self._fraction * max(0.0, energy_j - self._owed_j)

    def _energy_j(self, before: Mark, now: Sample) -> float:
        with self._lock:
            return self._trace.energy_j(before, now, meter=self.meter)


def this_node() -> str:
    """Returns what tells this machine from others: the kernel's boot id, or its name where there is none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return gethostname()


def _shareable(meter: OpenMeter) -> Iterable[Domain]:
    about = meter.availability
    if not about.counts_others or about.since_process_start:
        return ()
    return [domain for domain in about.domains if meter.role(domain) == "charged"]
