"""Open meters, and the joules read from them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from greensv.energy.meter import Availability, Domain, MeterSession, Quality, Role, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The energy of one domain, and the meter and quality it was read with."""

    domain: Domain
    meter: str
    quality: Quality
    energy_j: float
    uncertainty_j: float = 0.0
    """Standard uncertainty in joules: the meter's scale, the edges of the interval, what was missed between samples."""
    role: Role = "charged"
    scale_uncertainty_j: float = 0.0
    """The part of it that comes from the meter's scale: off alike in all readings of one meter, so that it adds up."""
    resolution_s: float = 0.0
    """How often the counter or sensor changes, in seconds: an interval that is not much longer is poorly known."""


class Share(Protocol):
    """This process's part of a domain that others use too; `sharing.DomainShare`."""

    @property
    def is_shared(self) -> bool:
        """Whether others use it, or did since this process came."""

    @property
    def joined_others(self) -> bool:
        """Whether others were there first: they are charged what this process used before its first reading."""

    @property
    def fraction(self) -> float:
        """Which part of the domain's present power is this process's; 1 while it is alone."""

    @property
    def resolution_s(self) -> float:
        """How old the knowledge of that may be, in seconds."""

    def own_j(self, sample: Sample, step_j: float) -> float:
        """Takes in a sample and the domain's joules since the one before it (0 with the first); returns our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMeter:
    """A meter that has been opened, and what it said it can measure."""

    name: str
    quality: Quality
    session: MeterSession
    availability: Availability
    roles: Mapping[Domain, Role] = field(default_factory=dict)
    """What each domain's joules are for; `charged` where none is given."""
    gains: Mapping[Domain, float] = field(default_factory=dict)
    """What each domain's readings are multiplied by, from a comparison with a better meter; 1 where none is given."""
    shares: Mapping[Domain, Share] = field(default_factory=dict)
    """This process's part of the domains that it may share with others; all of those that are not here."""

    @property
    def is_startup_counted(self) -> bool:
        """Whether what this process used before its first reading is in a total already, its own or another's."""
        return self.availability.since_process_start or any(share.joined_others for share in self.shares.values())

    def role(self, domain: Domain) -> Role:
        """What a domain's joules are for."""
        return self.roles.get(domain, "charged")

    @property
    def is_charged(self) -> bool:
        """Whether any of its joules are charged, so that nothing may go on without it."""
        return any(self.role(domain) == "charged" for domain in self.availability.domains)


def total_uncertainty_j(readings: Iterable[Reading]) -> float:
    """Returns the standard uncertainty of the sum of readings, in joules.

    The scale of a meter is off alike in all its readings: those parts add up. Different meters' scales, and all else,
    are independent and add in quadrature (JCGM 100:2008, the GUM, 5.1.2 and 5.2.2).
    """
    by_meter_j: dict[str, float] = {}
    variance_j2 = 0.0
    for reading in readings:
        by_meter_j[reading.meter] = by_meter_j.get(reading.meter, 0.0) + reading.scale_uncertainty_j
        variance_j2 += max(0.0, reading.uncertainty_j**2 - reading.scale_uncertainty_j**2)
    return math.sqrt(variance_j2 + sum(scale_j**2 for scale_j in by_meter_j.values()))
