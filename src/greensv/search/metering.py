"""Meters, monitor, ledger and budget of one process, tied together: every joule of it is charged to one account."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection

from greensv.builtin.meters.machine import cpu_time_s
from greensv.config import EnergyConfig
from greensv.energy.baseline.gains import Gain, data_folder, load_gains, source_words, with_gains
from greensv.energy.baseline.idle import IdleBaseline
from greensv.energy.books.budget import Lease, Purpose, head_room_j, is_alive, this_process
from greensv.energy.books.charging import Charger
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.unwritten import book_unwritten, save_unwritten
from greensv.energy.meter import Domain
from greensv.energy.metering.selection import Choice, choose_meters, open_meters
from greensv.energy.monitoring import EnergyWindow, Monitor
from greensv.energy.sharing.sharing import EXCHANGE_INTERVAL_S, Sharing
from greensv.errors import BudgetError, StudyError
from greensv.plugins import Plugins
from greensv.search.control import BudgetExhausted
from greensv.search.events import BudgetMoved, Listener, MetersChosen, Noted
from greensv.units import MICROJOULES_PER_JOULE, format_energy, j_from_uj, kwh_from_uj, uj_from_j

logger = logging.getLogger(__name__)

LEASE_TTL_S = 60.0
UNWRITTEN = "unwritten"
"""Folder for charges that a database that was gone for good did not take; the next command books them."""
FLUSH_INTERVAL_S = 2.0
OVERHEAD_SHARE = 0.01
"""Share of the cap that is set aside for what is no trial: preparation, probing, the report. Topped up as needed."""
CLOSING_S = 5.0
"""Seconds of present power kept back for ending a search: telling Optuna, the report, Python's own end."""


@dataclass(slots=True, kw_only=True)
class Metering:
    """The metering of this process. Made by `open_metering`."""

    monitor: Monitor
    charger: Charger
    ledger: Ledger
    study_id: str
    account: str
    cap_j: float
    pue: float
    choices: tuple[Choice, ...]
    gains: Mapping[tuple[str, Domain], Gain] = field(default_factory=dict)
    """Corrections of the meters' scales that are in force."""
    idle: IdleBaseline = field(default_factory=lambda: IdleBaseline(powers=()))
    """What this machine draws at rest, as far as it is known."""
    sharing: Sharing | None = None
    """With other processes on this machine."""
    longest_step_s: float = 0.0
    """The longest time so far between two looks at the budget; a training gate keeps it."""

    @contextmanager
    def purpose(self, purpose: Purpose, *, trial_number: int | None = None) -> Iterator[None]:
        """Charges to `purpose` inside the block."""
        with self.charger.purpose(purpose, trial_number=trial_number):
            yield

    def check(self) -> None:
        """Raises what should end the job: budget used up, lease lost, ledger or meter failing. Asks no database.

        Raises:
            BudgetExhausted: nothing is left for the next metering interval, or for ending in good order.
            BudgetError: another process closed our lease.
            MeterError: a meter keeps failing.
            StudyError: the ledger cannot be written.
        """
        self.charger.check()
        self.monitor.check()
        if self.charger.is_fenced:
            raise BudgetError(
                "this process's lease was closed by another one, which took it for dead; nothing was lost, run again"
            )
        if self.charger.is_exhausted or j_from_uj(self.charger.left_uj) <= CLOSING_S * self.power_w:
            raise BudgetExhausted("the budget is used up")

    def reserve(
        self,
        energy_j: float,
        *,
        purpose: Purpose,
        trial_number: int | None = None,
        within: Callable[[Connection, Lease], bool] | None = None,
    ) -> Lease | None:
        """Takes joules out of what is left of the account; None when they do not fit, or `within` says no."""
        return self.ledger.reserve(
            self.study_id,
            self.account,
            max(1, round(energy_j * MICROJOULES_PER_JOULE)),
            purpose=purpose,
            trial_number=trial_number,
            holder=this_process(),
            ttl_s=LEASE_TTL_S,
            within=within,
        )

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Lease]:
        """Charges to `lease` inside the block and gives back what is left of it at the end."""
        try:
            with self.charger.hold(lease):
                yield lease
        finally:
            self.ledger.settle(lease)

    def cover(self, lease: Lease, energy_j: float) -> bool:
        """Sees to it that the lease in force has `energy_j` left; False when the account cannot give it."""
        needed_uj = uj_from_j(energy_j)
        if self.charger.lease_left_uj(lease) >= needed_uj:
            return True
        self.charger.flush()
        missing_uj = needed_uj - self.charger.lease_left_uj(lease)
        if missing_uj > 0:
            if not self.ledger.top_up(lease, missing_uj):
                return False
            self.charger.flush()
        return True

    @property
    def used_j(self) -> float:
        """Joules of this process so far, PUE included, at the latest poll."""
        return self.pue * sum(reading.energy_j for reading in self.monitor.known_totals())

    @property
    def power_w(self) -> float:
        """Power over the last few polls, PUE included; 0 before one is known."""
        return self.pue * (self.monitor.power_w or 0.0)

    @property
    def is_shared(self) -> bool:
        """Whether other processes of greensv have used this machine's meters since this one came."""
        return self.sharing is not None and self.sharing.is_shared

    @property
    def head_room_j(self) -> float:
        """Joules by which true energy may exceed the cap: peak power × (metering interval + longest step).

        The charge never does. A meter that changes less often than that takes the place of the interval. Who of several
        processes on one machine used what is known two exchanges later at most.
        """
        power_w = self.pue * (self.monitor.peak_power_w or 0.0)
        interval_s = max(self.monitor.interval_s, self.monitor.resolution_s)
        late_s = 2 * EXCHANGE_INTERVAL_S if self.is_shared else 0.0
        return head_room_j(power_w, interval_s=interval_s + late_s, step_s=self.longest_step_s)

    @property
    def left_j(self) -> float:
        """Joules that can still be reserved, by the database."""
        return j_from_uj(self.ledger.statement(self.study_id, self.account).left_uj)

    def trial_energy_kwh(self, trial_number: int) -> float:
        """All that was charged for a trial, in kWh."""
        self.charger.flush()
        return kwh_from_uj(self.ledger.trial_energy_uj(self.study_id, self.account, trial_number))

    def record(self, window: EnergyWindow, *, trial_number: int | None = None) -> None:
        """Keeps a window for reports; what went wrong with the meters in it is logged."""
        for note in window.notes:
            logger.warning("energy window %r of trial %s: %s", window.name, trial_number, note)
        self.ledger.record_window(self.study_id, self.account, window, trial_number=trial_number)

    def tell(self, listen: Listener) -> None:
        """Tells the listener how the account stands."""
        statement = self.ledger.statement(self.study_id, self.account)
        listen(
            BudgetMoved(
                cap_j=j_from_uj(statement.cap_uj),
                spent_j=j_from_uj(statement.spent_uj),
                reserved_j=j_from_uj(statement.reserved_uj),
                power_w=self.power_w,
            )
        )

    def domains(self) -> dict[str, str]:
        """Returns what measures each domain, and its quality: `{"cpu": "estimate (estimated)"}`; and its correction."""
        return {
            str(domain): source_words(choice.meter, domain, self.gains)
            for choice in self.choices
            for domain, role in choice.roles.items()
            if role != "beside"
        }

    def unmetered(self) -> list[str]:
        """Returns the parts of the machine that none of the chosen meters covers, of cpu and dram."""
        covered = {domain.kind for c in self.choices for domain, role in c.roles.items() if role != "beside"}
        return [] if covered & {"node", "host"} else sorted({"cpu", "dram"} - covered)

    def meter_lines(self) -> list[str]:
        """Returns one line per chosen meter, for the user."""
        lines = []
        for choice in self.choices:
            if choice.is_chosen:
                domains = ", ".join(map(str, choice.availability.domains))
                gain = f", ±{choice.availability.gain_uncertainty:.0%}" if choice.availability.gain_uncertainty else ""
                beside = "; beside, never charged" if "beside" in choice.roles.values() else ""
                lines.append(f"{choice.meter.name}: {domains} ({choice.meter.quality}{gain}{beside})")
        return lines


@contextmanager
def open_metering(
    energy: EnergyConfig,
    *,
    plugins: Plugins,
    ledger: Ledger,
    study_id: str,
    account: str,
    gpu_uuids: tuple[str, ...],
    process_ids: tuple[int, ...] = (),
) -> Iterator[Metering]:
    """Yields the metering of this process, its account charged from the moment the process started.

    `gpu_uuids` are those in use, also by the processes `process_ids` that work with this one.

    The account must be open. A lease for what is no trial is held all along; at the end everything is flushed and
    settled, whatever happened.

    Raises:
        MeterError: nothing can measure, or a meter asked for cannot.
        BudgetExhausted: the account has nothing left.
    """
    choices = choose_meters(
        plugins.all("meter"),
        energy.meters,
        also=energy.also_meters,
        gpu_uuids=gpu_uuids,
        process_ids=process_ids,
        options=energy.options,
    )
    cap_j = j_from_uj(ledger.statement(study_id, account).cap_uj)
    synchronise = _cuda_synchronise if gpu_uuids else None
    gains = load_gains()
    meters = with_gains(open_meters(choices), gains)
    sharing = Sharing(meters if energy.is_shared else (), ledger.engine, cpu_time_s=partial(cpu_time_s, process_ids))
    with sharing, Monitor(sharing.meters or meters, interval_s=energy.interval_s, synchronise=synchronise) as monitor:
        charger = Charger(
            monitor, ledger, study_id=study_id, account=account, pue=energy.pue, flush_interval_s=FLUSH_INTERVAL_S
        )
        charger.keep_unwritten_in(data_folder() / UNWRITTEN)
        metering = Metering(
            monitor=monitor,
            charger=charger,
            ledger=ledger,
            study_id=study_id,
            account=account,
            cap_j=cap_j,
            pue=energy.pue,
            choices=choices,
            gains=gains,
            sharing=sharing,
        )
        charger.charge_startup(_seconds_since_process_start())
        try:
            with _overhead(metering), _leaving(sharing, monitor):
                yield metering
        finally:
            _close(charger, study_id=study_id, account=account)


def _close(charger: Charger, *, study_id: str, account: str) -> None:
    """Writes what is left to be charged; where the database is gone for good, to a file that the next command books."""
    try:
        charger.close()
    except StudyError:
        path = save_unwritten(data_folder() / UNWRITTEN, charger.unwritten, study_id=study_id, account=account)
        if path is not None:
            logger.warning("charges that the database did not take are kept in %s; the next command books them", path)
        raise


@contextmanager
def _overhead(metering: Metering) -> Iterator[None]:
    amount_j = min(OVERHEAD_SHARE * metering.cap_j, metering.left_j)
    lease = metering.reserve(amount_j, purpose="preparation") if amount_j > 0 else None
    if lease is None:
        raise BudgetExhausted(f"the budget of {format_energy(metering.cap_j)} is used up; raise it with --budget-kwh")
    with metering.holding(lease):
        yield


@contextmanager
def _leaving(sharing: Sharing, monitor: Monitor) -> Iterator[None]:
    try:
        sharing.wait_until_counted()
        yield
    finally:
        monitor.poll()
        sharing.leave()


def announce_meters(metering: Metering, listen: Listener) -> None:
    """Tells what measures, and what of the machine nothing measures."""
    listen(MetersChosen(lines=metering.meter_lines()))
    if unmetered := " and ".join(metering.unmetered()):
        listen(
            Noted(text=f"nothing chosen measures {unmetered}: their energy is not charged; add a meter, or use auto")
        )
    metering.tell(listen)


def reap_dead(ledger: Ledger, study_id: str) -> None:
    """Closes the leases of processes that died, charging what they may have used since their last beat.

    What they trained is set free in the same transactions. What a process could not book is booked first.
    """
    from greensv.search.rungs.book import set_free

    book_unwritten(data_folder() / UNWRITTEN, ledger, study_id=study_id)
    ledger.reap(study_id, is_alive=is_alive, within=set_free)


def _seconds_since_process_start() -> float:
    return max(0.0, time.time() - this_process().process_started_at)


def _cuda_synchronise() -> None:
    """Waits for this process's GPU. In a team the others are then at most one exchange of gradients away."""
    import torch

    torch.cuda.synchronize()
