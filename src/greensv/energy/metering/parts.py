"""Where a machine's energy goes: its node meter's joules, split by the meters of its parts."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from greensv.energy.meter import Domain, Quality
from greensv.energy.metering.reading import Reading, total_uncertainty_j
from greensv.energy.metering.window import COVERAGE_FACTOR, EnergyWindow

REST = "rest"
"""Mainboard, fans, storage, network, and the losses of the power supply: what the meters of the parts do not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a node's, or a host's, energy in one window."""

    name: str
    """The domain, such as `cpu:0`; or `rest`."""
    whole: Domain
    """What it is a part of."""
    meter: str
    """For the rest: those it was worked out from, such as `ipmi - rapl`."""
    quality: Quality
    energy_j: float
    """Of the rest, it may be negative: then the meters disagree, and this is by how much."""
    uncertainty_j: float
    """Standard uncertainty in joules."""
    share: float | None
    """Of the whole's energy; None where that is 0."""
    problem: str | None = None
    """Of the rest: how the meters disagree, where the parts have more than the whole beyond what is uncertain."""


def split(window: EnergyWindow) -> tuple[Part, ...]:
    """Returns the parts of the window's node or host, and what is left of it.

    The rest is what the whole's meter counted less what those of the parts counted, and as uncertain as all of them
    together. It is never cut at zero.

    Returns:
        For each whole, its parts as they were measured, then the rest; nothing where no meter of a part was read
        beside that of a whole.
    """
    readings = [reading for reading in (*window.readings, *window.others) if reading.role != "beside"]
    parts: list[Part] = []
    for whole in readings:
        inside = _direct_parts(whole, readings)
        if inside:
            parts += [_measured(part, whole) for part in inside]
            parts.append(_rest(whole, inside))
    return tuple(parts)


def _direct_parts(whole: Reading, readings: Iterable[Reading]) -> list[Reading]:
    """Returns what is inside the whole and not inside another part of it: a node's host, and not the host's CPU."""
    inside = [reading for reading in readings if whole.domain.contains(reading.domain)]
    return [part for part in inside if not any(other.domain.contains(part.domain) for other in inside)]


def _measured(part: Reading, whole: Reading) -> Part:
    return Part(
        name=str(part.domain),
        whole=whole.domain,
        meter=part.meter,
        quality=part.quality,
        energy_j=part.energy_j,
        uncertainty_j=part.uncertainty_j,
        share=_share(part.energy_j, whole),
    )


def _rest(whole: Reading, inside: Sequence[Reading]) -> Part:
    parts_j = sum(part.energy_j for part in inside)
    rest_j = whole.energy_j - parts_j
    # Another meter's scale is off independently, so that a difference is as uncertain as a sum.
    uncertainty_j = math.hypot(whole.uncertainty_j, total_uncertainty_j(inside))
    meters = " - ".join(dict.fromkeys((whole.meter, *(part.meter for part in inside))))
    problem = None
    if rest_j < -COVERAGE_FACTOR * uncertainty_j:
        names = ", ".join(f"{part.meter} {part.domain}" for part in inside)
        problem = (
            f"the meters disagree: {names} have {parts_j:.4g} J together, more than the {whole.energy_j:.4g} J of the "
            f"whole by {whole.meter} ({whole.domain}), and 1.96 × {uncertainty_j:.3g} J do not explain it; find out "
            "whether that meter covers all of them, and which one's scale is off (greensv calibrate)"
        )
    return Part(
        name=REST,
        whole=whole.domain,
        meter=meters,
        quality=_quality((whole, *inside)),
        energy_j=rest_j,
        uncertainty_j=uncertainty_j,
        share=_share(rest_j, whole),
        problem=problem,
    )


def _quality(readings: Iterable[Reading]) -> Quality:
    """Returns the quality of a difference: worked out from measurements, but from an estimate it is an estimate."""
    return "estimated" if any(reading.quality == "estimated" for reading in readings) else "attributed"


def _share(energy_j: float, whole: Reading) -> float | None:
    return energy_j / whole.energy_j if whole.energy_j > 0 else None
