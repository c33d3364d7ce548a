"""From a comparison with an external meter to a correction of ours."""

from datetime import UTC, datetime

from greensv.energy.baseline.comparison import Comparison, Trace
from greensv.energy.baseline.gains import Gain, parse_domain
from greensv.errors import MeterError
from greensv.search.calibration import Calibration


def part_of(trace: Trace, domain: str) -> tuple[Trace, bool]:
    """Returns what of a trace the external meter reads, too, and whether that is one domain of one meter.

    Only then is their ratio that meter's scale. For the whole node, where no meter of ours reads it, all domains
    together are returned.

    Args:
        trace: of the calibration.
        domain: what the external meter reads; the kind alone where there is one of it.

    Raises:
        MeterError: nothing of ours reads it, or several do.
    """
    found = [source for source in trace.energy_j if source[1] == domain]
    if not found:
        found = [source for source in trace.energy_j if source[1].partition(":")[0] == domain]
    if len(found) == 1:
        return Trace(at_s=trace.at_s, energy_j={found[0]: trace.energy_j[found[0]]}), True
    if not found and domain == "node":
        return trace, False
    there = ", ".join(f"{d} ({meter})" for meter, d in trace.energy_j)
    many = f"several domains are {domain}" if found else f"the calibration has no domain {domain!r}"
    raise MeterError(f"{many}; it has {there}; choose with --domain what the external meter reads")


def gain_of(calibration: Calibration, part: Trace, found: Comparison, *, against: str) -> Gain:
    """Returns the correction of the one domain in `part`: the ratio, times what was in force in the calibration."""
    ((meter, domain),) = part.energy_j
    return Gain(
        meter=meter,
        domain=parse_domain(domain),
        factor=found.ratio * calibration.gains.get(f"{meter} {domain}", 1.0),
        uncertainty=found.uncertainty,
        against=against,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
