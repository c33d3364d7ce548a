"""The records of a budget: who holds which lease, what is charged to it, and what an account says."""

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from greensv.energy.meter import Quality

SEARCH_ACCOUNT = "search"
RETRAIN_ACCOUNT = "retrain"

Purpose = Literal["startup", "preparation", "idle", "probe", "training", "evaluation", "report", "reaped"]
"""What energy was used for. `reaped`: assumed used by a process that died or fell silent."""

_START_TIME_TOLERANCE_S = 2.0  # the boot time in /proc/stat moves when the wall clock is set


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lease. `host` tells PID namespaces apart: a PID means nothing outside its own."""

    host: str
    pid: int
    process_started_at: float
    """UTC epoch seconds; tells a process from a later one with the same PID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A reservation as granted. What is left of it is in the database; each `ChargeOutcome` tells.

    Read back from the database, as in `ReapedLease`, `granted_uj` includes what it was topped up with.
    """

    id: str
    study_id: str
    account: str
    purpose: Purpose
    trial_number: int | None
    holder: Holder
    granted_uj: int
    ttl_s: float
    """Seconds after its last beat at which it expires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Energy used from one meter's domain for one purpose: one row of the ledger.

    `id` makes booking it twice harmless, so a charge whose commit was not confirmed can be sent again.
    """

    purpose: Purpose
    trial_number: int | None
    started_at: float
    ended_at: float
    """UTC epoch seconds, as `started_at`."""
    meter: str
    domain: str
    quality: Quality
    energy_uj: int
    """Whole microjoules, `pue` included."""
    pue: float
    uncertainty_uj: int | None = None
    """Standard, `pue` included. Those of one meter add up, since its scale is off in all of them alike."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeOutcome:
    """What is left after a charge, in microjoules."""

    lease_left_uj: int
    account_left_uj: int
    """What nobody has spent or reserved."""
    overrun_uj: int
    """What this call booked beyond the cap."""
    is_fenced: bool
    """The lease was closed meanwhile: its holder must stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What closing a lease did."""

    given_back_uj: int
    """What was left of it, in microjoules; 0 when it had been closed before."""
    is_reaped: bool
    """Another process had taken its holder for dead and closed it: the work it paid for is no longer the holder's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReapedLease:
    """A lease closed because its holder died or fell silent, for the search to reconcile its trial."""

    lease: Lease
    charged_uj: int
    """What was charged, by estimate, for the time since its last beat, overrun included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What an account holds, in microjoules; the mappings add up to `spent_uj`."""

    cap_uj: int
    spent_uj: int
    reserved_uj: int
    overrun_uj: int
    """Energy used beyond the cap; not part of `spent_uj`."""
    spent_by_purpose: Mapping[str, int]
    spent_by_quality: Mapping[str, int]
    spent_by_meter: Mapping[str, int]
    uncertainty_uj: int | None = None
    """Standard, of what is spent and the overrun together; None where that of a charge is not known."""

    @property
    def left_uj(self) -> int:
        """What can still be reserved."""
        return self.cap_uj - self.spent_uj - self.reserved_uj


def head_room_j(power_w: float, *, interval_s: float, flush_interval_s: float = 0.0, step_s: float = 0.0) -> float:
    """Returns the joules by which the energy truly used may exceed the cap; what is charged never does.

    `Charger.is_exhausted` looks one metering interval ahead, so a worker alone stops within the interval and the step
    it is in: power × (interval + step). Workers that share an account learn of each other's top-ups at their next
    flush, so each adds power × flush interval. Add the heads of all workers.

    Args:
        power_w: the highest power of one worker, PUE included.
        interval_s: seconds between two readings of the meters.
        flush_interval_s: seconds between two writes to the ledger; 0 for a single worker.
        step_s: the longest time between two looks at `is_exhausted`.
    """
    return power_w * (interval_s + flush_interval_s + step_s)


def this_process() -> Holder:
    """Returns the holder that stands for this process."""
    started_at = _process_started_at(os.getpid())
    assert started_at is not None
    return Holder(host=_host(), pid=os.getpid(), process_started_at=started_at)


def is_alive(holder: Holder) -> bool | None:
    """Says whether a holder still runs; None when it runs, or ran, where this process cannot look."""
    if holder.host != _host():
        return None
    started_at = _process_started_at(holder.pid)
    return started_at is not None and abs(started_at - holder.process_started_at) <= _START_TIME_TOLERANCE_S


def split_at_cap(energies_uj: Sequence[int], available_uj: int) -> list[tuple[int, int]]:
    """Splits each energy, in order, into what is covered by `available_uj` and what overruns it."""
    parts = []
    for energy_uj in energies_uj:
        covered_uj = min(energy_uj, available_uj)
        available_uj -= covered_uj
        parts.append((covered_uj, energy_uj - covered_uj))
    return parts


def _host() -> str:
    return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').readlink()}"


def _process_started_at(pid: int) -> float | None:
    """UTC epoch seconds from proc(5): field 22 of /proc/PID/stat in ticks after `btime` of /proc/stat."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name, in parentheses, may itself hold spaces and parentheses.
    state, *fields = stat.rpartition(")")[2].split()
    if state in "ZX":
        return None
    boot_line = next(line for line in Path("/proc/stat").read_text(encoding="ascii").splitlines() if "btime" in line)
    return int(boot_line.split()[1]) + int(fields[18]) / os.sysconf("SC_CLK_TCK")
