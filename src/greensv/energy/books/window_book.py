"""The energy windows that were kept, added up by trial, meter and domain: what else was read beside the charges."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, case, func, select

from greensv.energy.baseline.gains import parse_domain
from greensv.energy.books.tables import windows
from greensv.energy.metering.parts import REST, split
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow
from greensv.units import j_from_uj, uj_from_j

TRAINING = "training"
"""The window of a trial's, or a retraining's, training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTotal:
    """What one meter read of one domain in all windows of one name of a trial. PUE is not included."""

    trial_number: int
    meter: str
    domain: str
    """`cpu:0`; or `rest of node`."""
    quality: str
    role: str
    """`charged`, `part` or `beside`, as the meter read it; `rest`: what of a node no meter of a part has."""
    duration_s: float
    energy_j: float
    uncertainty_j: float | None
    """Standard; None in the books of an older greensv."""
    resolution_s: float | None
    """How often its counter or sensor changes; None in the books of an older greensv."""


def record_window(
    connection: Connection,
    study_id: str,
    account: str,
    window: EnergyWindow,
    *,
    trial_number: int | None,
    is_repeat: bool = False,
) -> None:
    """Writes a window: one row per reading, also of what was read beside the charged joules.

    Args:
        connection: in a transaction.
        study_id: the study's own id.
        account: the account that pays for what the window covers.
        window: a closed one.
        trial_number: the trial it is of, if it is of one.
        is_repeat: it may be there already; then nothing is written.
    """
    key = {
        "study_id": study_id,
        "account": account,
        "trial_number": trial_number,
        "name": window.name,
        "started_at": window.started_at.timestamp(),
        "duration_s": window.duration_s,
    }
    if is_repeat and connection.execute(select(windows.c.id).filter_by(**key).limit(1)).first():
        return
    rows = [
        {
            **key,
            "meter": reading.meter,
            "domain": str(reading.domain),
            "quality": reading.quality,
            "energy_uj": uj_from_j(reading.energy_j),
            "uncertainty_uj": uj_from_j(reading.uncertainty_j),
            "role": reading.role,
            "resolution_s": reading.resolution_s,
        }
        for reading in (*window.readings, *window.others)
    ]
    if rows:
        connection.execute(windows.insert(), rows)


def window_totals(
    connection: Connection, study_id: str, account: str, *, name: str = TRAINING
) -> tuple[WindowTotal, ...]:
    """Returns what was read in the windows of that name, by trial; after the parts of a node, what is left of it.

    The uncertainties of a trial's windows (those of a training that was interrupted and gone on with) add up: the
    meter's scale is off in all of them alike.
    """
    role = func.coalesce(windows.c.role, "charged")
    key = (windows.c.trial_number, windows.c.meter, windows.c.domain, windows.c.quality, role)
    rows = connection.execute(
        select(
            *key,
            func.sum(windows.c.duration_s),
            func.sum(windows.c.energy_uj),
            func.sum(windows.c.uncertainty_uj),
            func.sum(case((windows.c.uncertainty_uj.is_(None), 1), else_=0)),
            func.max(windows.c.resolution_s),
        )
        .where(windows.c.study_id == study_id, windows.c.account == account, windows.c.name == name)
        .where(windows.c.trial_number.is_not(None))
        .group_by(*key)
        .order_by(windows.c.trial_number, func.min(windows.c.id))
    ).all()
    by_trial: dict[int, list[WindowTotal]] = {}
    for (
        number,
        meter,
        domain,
        quality,
        role_name,
        duration_s,
        energy_uj,
        uncertainty_uj,
        num_unknown,
        resolution_s,
    ) in rows:
        total = WindowTotal(
            trial_number=number,
            meter=meter,
            domain=domain,
            quality=quality,
            role=role_name,
            duration_s=duration_s,
            energy_j=j_from_uj(int(energy_uj)),
            uncertainty_j=None if num_unknown else j_from_uj(int(uncertainty_uj)),
            resolution_s=resolution_s,
        )
        by_trial.setdefault(number, []).append(total)
    return tuple(total for totals in by_trial.values() for total in (*totals, *_rests(totals)))


def _rests(totals: Sequence[WindowTotal]) -> list[WindowTotal]:
    """Returns what is left of each whole whose parts were metered for as long; nothing without uncertainties."""
    inside = [total for total in totals if total.role != "beside"]
    if len({total.duration_s for total in inside}) > 1 or any(total.uncertainty_j is None for total in inside):
        return []  # another set of meters after an interruption: a difference would mix unlike times
    window = EnergyWindow(
        name=TRAINING,
        started_at=datetime.fromtimestamp(0, UTC),
        duration_s=max((total.duration_s for total in inside), default=0.0),
        readings=tuple(_reading(total) for total in inside),
    )
    return [
        WindowTotal(
            trial_number=totals[0].trial_number,
            meter=part.meter,
            domain=f"{REST} of {part.whole}",
            quality=part.quality,
            role=REST,
            duration_s=window.duration_s,
            energy_j=part.energy_j,
            uncertainty_j=part.uncertainty_j,
            resolution_s=max((total.resolution_s for total in inside if total.resolution_s is not None), default=None),
        )
        for part in split(window)
        if part.name == REST
    ]


def _reading(total: WindowTotal) -> Reading:
    uncertainty_j = total.uncertainty_j or 0.0
    return Reading(
        domain=parse_domain(total.domain),
        meter=total.meter,
        quality=total.quality,  # type: ignore[arg-type]
        energy_j=total.energy_j,
        uncertainty_j=uncertainty_j,
        # Which part of it is the scale was not kept: taken as all, so that one meter's readings add up.
        scale_uncertainty_j=uncertainty_j,
        role=total.role,  # type: ignore[arg-type]
    )
