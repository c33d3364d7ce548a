"""The idle powers of a study in its database, and what they make of an account: gross and net, by purpose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from greensv.energy.baseline.idle import IdleBaseline, IdlePower
from greensv.energy.books.tables import charges, idle, leases
from greensv.units import j_from_uj

TIMES = " × "
"""Stands between a meter and the correction its joules had had, as in `rapl × 1.043`; no component's name has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetAccount:
    """An account less what the machines would have used anyway, PUE included in both."""

    gross_j: float
    """All that was charged, beyond the cap too."""
    net_j: float
    """Of those charges alone for which the idle power is known."""
    without_baseline_j: float
    """Gross, of the charges for which it is not: in no net figure."""
    net_j_by_purpose: Mapping[str, float] = field(default_factory=dict)


def record_idle(connection: Connection, study_id: str, powers: Sequence[IdlePower]) -> None:
    """Adds idle powers to a study; the latest of each machine's domain is in force."""
    rows = [
        {
            "study_id": study_id,
            "host": power.host,
            "meter": power.meter if power.gain == 1 else f"{power.meter}{TIMES}{power.gain!r}",
            "domain": power.domain,
            "power_w": power.power_w,
            "uncertainty_w": power.uncertainty_w,
            "duration_s": power.duration_s,
            "measured_at": power.measured_at.timestamp(),
        }
        for power in powers
    ]
    if rows:
        connection.execute(idle.insert(), rows)


def idle_baselines(connection: Connection, study_id: str) -> dict[str, IdleBaseline]:
    """Returns the idle powers of a study by machine, the latest of each domain."""
    found: dict[str, dict[tuple[str, str], IdlePower]] = {}
    for row in connection.execute(select(idle).where(idle.c.study_id == study_id).order_by(idle.c.id)).mappings():
        meter, _, gain = row["meter"].partition(TIMES)
        power = IdlePower(
            host=row["host"],
            meter=meter,
            domain=row["domain"],
            power_w=row["power_w"],
            uncertainty_w=row["uncertainty_w"],
            duration_s=row["duration_s"],
            measured_at=datetime.fromtimestamp(row["measured_at"], UTC),
            gain=float(gain or 1.0),
        )
        found.setdefault(power.host, {})[power.source] = power
    return {host: IdleBaseline(powers=tuple(powers.values())) for host, powers in found.items()}


def net_account(connection: Connection, study_id: str, account: str) -> NetAccount | None:
    """Returns an account's gross and net energy; None when no idle power is known in the study.

    Every charge covers a stretch of time of one domain, and those of a domain cover its time once; so idle power ×
    duration, times PUE, is what each would have been anyway. A charge's machine is that of its lease's holder; one
    without a lease is of the study's only machine, if it has one.
    """
    baselines = idle_baselines(connection, study_id)
    if not baselines:
        return None
    columns = (
        charges.c.meter,
        charges.c.domain,
        charges.c.purpose,
        charges.c.pue,
        charges.c.quality,
        leases.c.host,
    )
    energy, duration = charges.c.energy_uj + charges.c.overrun_uj, charges.c.ended_at - charges.c.started_at
    rows = connection.execute(
        select(*columns, func.sum(energy).label("energy_uj"), func.sum(duration).label("duration_s"))
        .select_from(charges.outerjoin(leases, charges.c.lease_id == leases.c.id))
        # What moves an overrun under the cap later is no energy of its own, and no time.
        .where(charges.c.study_id == study_id, charges.c.account == account, charges.c.overrun_uj >= 0)
        .group_by(*columns)
    ).mappings()
    only = next(iter(baselines.values())) if len(baselines) == 1 else None
    gross_j = without_j = 0.0
    by_purpose: dict[str, float] = {}
    for row in rows:
        energy_j = j_from_uj(int(row["energy_uj"]))
        gross_j += energy_j
        # A holder's host is the machine's name and its PID namespace.
        baseline = baselines.get(row["host"].rpartition("/")[0]) if row["host"] else only
        known = baseline.power_w([(row["meter"], row["domain"])]) if baseline else None
        # A domain shared with other processes: only a part of its idle power is this one's, and which is not known.
        is_shared = row["quality"] == "attributed" and row["purpose"] != "startup"
        if known is None or is_shared:
            without_j += energy_j
            continue
        net_j = energy_j - row["pue"] * known[0] * row["duration_s"]
        by_purpose[row["purpose"]] = by_purpose.get(row["purpose"], 0.0) + net_j
    return NetAccount(
        gross_j=gross_j, net_j=sum(by_purpose.values()), without_baseline_j=without_j, net_j_by_purpose=by_purpose
    )
