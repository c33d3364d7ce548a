"""What a study's machine draws at rest: measured before its first work there, known again when it goes on."""

import logging
from datetime import UTC, datetime

from greensv.energy.baseline.idle import (
    IdleBaseline,
    IdleMeasurement,
    IdlePower,
    charged_domains,
    measure_idle,
    modelled_powers,
    needs_measuring,
    this_host,
)
from greensv.energy.baseline.idle_book import idle_baselines, record_idle
from greensv.energy.books.schema import transaction
from greensv.search.events import Noted, Progressed
from greensv.search.session import Session
from greensv.units import format_energy

logger = logging.getLogger(__name__)

IDLE_SHARE = 0.02
"""The idle power is not measured where that would use a larger share of the cap."""
NOT_KNOWN = "so net energies are not known"
SHARED = (
    f"idle power is not measured: another process of greensv uses this machine, {NOT_KNOWN}. Start one alone first, "
    "and the others when it has measured it"
)


class _TooDear(Exception):
    def __init__(self, power_w: float) -> None:
        super().__init__()
        self.power_w = power_w


def learn_idle_power(session: Session) -> None:
    """Sees to it that the session's metering knows what its machine draws at rest, as far as that can be known.

    That of `estimate` is in its model. Others are measured for `energy.idle_s` seconds, charged to the purpose `idle`,
    and kept with the study, which does not measure them again on this machine. Nothing else may be at work yet.

    Raises:
        Interrupted: the user asked to stop.
        BudgetExhausted: the budget was used up meanwhile.
        MeterError: a meter keeps failing.
    """
    metering, energy = session.metering, session.config.energy
    meters = metering.monitor.meters
    modelled = modelled_powers(meters, host=this_host(), at=datetime.now(UTC))
    wanted = {((m.name, str(d)), m.gains.get(d, 1.0)) for m in meters if needs_measuring(m) for d in charged_domains(m)}
    with transaction(metering.ledger.engine) as connection:
        stored = idle_baselines(connection, metering.study_id).get(this_host(), IdleBaseline(powers=()))
    # One that was measured under another correction is of other joules.
    kept = tuple(power for power in stored.powers if (power.source, power.gain) in wanted)
    if len(kept) < len(wanted):
        measured = _measured(session) if energy.idle_s else None
        kept = measured or ()
    elif kept:
        session.listen(Noted(text=f"idle power of this machine: {_words(kept)}, measured {_when(kept)}"))
    known = {(power.source, power.gain, power.power_w) for power in stored.powers}
    new = [power for power in (*modelled, *kept) if (power.source, power.gain, power.power_w) not in known]
    with transaction(metering.ledger.engine) as connection:
        record_idle(connection, metering.study_id, new)
    metering.idle = IdleBaseline(powers=(*modelled, *kept))


def _measured(session: Session) -> tuple[IdlePower, ...] | None:
    """Returns the idle powers; None, and says why, where the machine was not at rest or the budget is too small."""
    metering, duration_s = session.metering, session.config.energy.idle_s
    limit_j = IDLE_SHARE * metering.cap_j
    if metering.is_shared:
        session.listen(Noted(text=SHARED))
        return None

    def on_interval(done_s: float, power_w: float) -> None:
        session.stop.check()
        metering.check()
        if metering.pue * power_w * duration_s > limit_j:
            raise _TooDear(metering.pue * power_w)
        session.listen(Progressed(what="measuring idle power", done=round(done_s), total=round(duration_s)))

    try:
        with metering.purpose("idle"):
            found = measure_idle(metering.monitor, duration_s=duration_s, on_interval=on_interval)
    except _TooDear as error:
        text = (
            f"idle power is not measured: {duration_s:g} s at {error.power_w:.3g} W would use "
            f"{format_energy(error.power_w * duration_s)}, more than {IDLE_SHARE:.0%} of the budget; {NOT_KNOWN} "
            "(energy.idle_s makes it shorter)"
        )
        session.listen(Noted(text=text))
        return None
    if metering.is_shared:  # another one came meanwhile
        session.listen(Noted(text=SHARED))
        return None
    if found.disturbance is not None:
        session.listen(Noted(text=_told_busy(found)))
        return None
    session.listen(Noted(text=f"idle power of this machine: {_words(found.powers)}, over {found.duration_s:.0f} s"))
    return found.powers


def _told_busy(found: IdleMeasurement) -> str:
    return (
        f"the machine was not idle in the {found.duration_s:.0f} s before the work: {found.disturbance}; {NOT_KNOWN}. "
        "Run it when nothing else does: the same command measures again"
    )


def _words(powers: tuple[IdlePower, ...]) -> str:
    return ", ".join(f"{p.domain} {p.power_w:.3g} ± {p.uncertainty_w:.2g} W" for p in powers)


def _when(powers: tuple[IdlePower, ...]) -> str:
    oldest = min(powers, key=lambda power: power.measured_at)
    return f"{oldest.measured_at:%Y-%m-%d %H:%M} UTC for {oldest.duration_s:.0f} s"
