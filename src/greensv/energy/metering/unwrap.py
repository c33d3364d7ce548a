"""From two successive samples of a domain to the joules between them. What cannot be known is an error, not a guess."""

import math

from greensv.energy.meter import CounterSample, PowerSample
from greensv.errors import MeterError

UNKNOWN = "the energy of that interval is unknown"


def counter_step_j(before: CounterSample, now: CounterSample, *, max_power_w: float, resolution_s: float) -> float:
    """Returns the joules between two readings of one counter.

    A counter with a range may have wrapped any number of times. Of the energies that would explain the two readings,
    those within `max_power_w` × (the time between them + `resolution_s`) are possible: exactly one must be.

    Args:
        before: the earlier reading.
        now: the later reading.
        max_power_w: what the domain cannot exceed, in watts.
        resolution_s: how often the counter changes, in seconds: a reading may hold energy used that long before.

    Raises:
        MeterError: the counter was reset, or the interval is so long that the number of wraps is ambiguous.
    """
    interval_s = now.taken_at_s - before.taken_at_s
    if (before.unit_j, before.range_count) != (now.unit_j, now.range_count):
        raise MeterError(f"{now.domain}: the counter's unit or range changed while it was read; {UNKNOWN}")
    difference = now.count - before.count
    if now.range_count is None:
        if difference < 0:
            raise MeterError(
                f"{now.domain}: the counter went back from {before.count} to {now.count} within {interval_s:.3g} s "
                f"(a reset of the device, or a reload of its driver); {UNKNOWN}"
            )
        return difference * now.unit_j
    range_j = now.range_count * now.unit_j
    possible_j = max_power_w * (interval_s + resolution_s)
    energy_j = (difference + (now.range_count if difference < 0 else 0)) * now.unit_j
    if energy_j > possible_j:
        raise MeterError(
            f"{now.domain}: the counter went from {before.count} to {now.count} of {now.range_count} "
            f"within {interval_s:.3g} s; even a wrap-around would mean more than {max_power_w:g} W, so it was reset "
            f"(as after a suspend); {UNKNOWN}"
        )
    if energy_j + range_j <= possible_j:
        raise MeterError(
            f"{now.domain}: {interval_s:.3g} s passed between two readings; at up to {max_power_w:g} W the counter may "
            f"have wrapped more than once (its range is {range_j:.4g} J); {UNKNOWN}"
        )
    return energy_j


def power_step_j(before: PowerSample, now: PowerSample) -> float:
    """Returns the joules between two readings of power: the trapezoid over them, constant stretches included."""
    return (before.power_w + now.power_w) / 2 * (now.taken_at_s - before.taken_at_s)


def sample_problem(sample: CounterSample | PowerSample) -> str | None:
    """Says why a sample is impossible (negative, not finite, above its range); None when it is not."""
    if isinstance(sample, PowerSample):
        if not math.isfinite(sample.power_w) or sample.power_w < 0:
            return f"{sample.domain} reports {sample.power_w} W"
        return None
    if sample.count < 0 or (sample.range_count is not None and not 0 <= sample.count <= sample.range_count):
        return f"{sample.domain} reads {sample.count}, outside 0 to {sample.range_count}"
    return None
