"""Energy by the phase of a training step: attributed, never measured, and kept in the study's database.

A counter that changes ten times a second cannot see a forward pass; how the energy of a training is attributed to the
phases is `greensv.search.attribution`'s to say.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from greensv.energy.books.tables import phases
from greensv.units import j_from_uj, uj_from_j

DATA_WAIT = "data-wait"
"""The phase in which the device has nothing to do, no batch being ready."""
OTHER = "other"
"""What lies in a training and in no step: showing progress, saving the state, averaging weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseEnergy:
    """What one domain used in one phase, over a whole training. PUE is not included."""

    phase: str
    domain: str
    duration_s: float
    energy_j: float
    uncertainty_j: float
    """Standard: of the measurement, and of what is not known about the power of each phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseTotal:
    """What all domains together used in one phase. PUE is included."""

    phase: str
    duration_s: float
    energy_j: float
    uncertainty_j: float


def record_phases(
    connection: Connection,
    study_id: str,
    account: str,
    found: Sequence[PhaseEnergy],
    *,
    pue: float = 1.0,
    trial_number: int | None = None,
) -> None:
    """Keeps the phases of a training, times `pue`. A domain's microjoules add up to those of its energy."""
    rows = []
    sums_j: dict[str, float] = {}
    for energy in found:
        before_j = sums_j.get(energy.domain, 0.0)
        sums_j[energy.domain] = before_j + pue * energy.energy_j
        rows.append(
            {
                "study_id": study_id,
                "account": account,
                "trial_number": trial_number,
                "phase": energy.phase,
                "duration_s": energy.duration_s,
                "domain": energy.domain,
                "energy_uj": uj_from_j(sums_j[energy.domain]) - uj_from_j(before_j),
                "uncertainty_uj": uj_from_j(pue * energy.uncertainty_j),
            }
        )
    if rows:
        connection.execute(phases.insert(), rows)


def phase_totals(
    connection: Connection, study_id: str, account: str, *, trial_number: int | None = None
) -> tuple[PhaseTotal, ...]:
    """Returns what was kept for an account, or for one trial of it, by phase in the order they came in.

    One domain's uncertainties are of one model, which is wrong alike in all trainings: they add up. Those of several
    domains are independent.
    """
    wanted = (phases.c.study_id == study_id) & (phases.c.account == account)
    if trial_number is not None:
        wanted &= phases.c.trial_number == trial_number
    rows = connection.execute(
        select(
            phases.c.phase,
            phases.c.domain,
            func.min(phases.c.id).label("first"),
            func.sum(phases.c.duration_s).label("duration_s"),
            func.sum(phases.c.energy_uj).label("energy_uj"),
            func.sum(phases.c.uncertainty_uj).label("uncertainty_uj"),
        )
        .where(wanted)
        .group_by(phases.c.phase, phases.c.domain)
        .order_by("first")
    ).mappings()
    by_phase: dict[str, list[PhaseEnergy]] = {}
    for row in rows:
        energy = PhaseEnergy(
            phase=row["phase"],
            domain=row["domain"],
            duration_s=row["duration_s"],
            energy_j=j_from_uj(int(row["energy_uj"])),
            uncertainty_j=j_from_uj(int(row["uncertainty_uj"] or 0)),
        )
        by_phase.setdefault(energy.phase, []).append(energy)
    return tuple(
        PhaseTotal(
            phase=phase,
            duration_s=max(energy.duration_s for energy in energies),  # each domain has the phase's whole duration
            energy_j=sum(energy.energy_j for energy in energies),
            uncertainty_j=math.hypot(*(energy.uncertainty_j for energy in energies)),
        )
        for phase, energies in by_phase.items()
    )
