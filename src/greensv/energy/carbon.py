"""The interface of a carbon source: grams of CO2-equivalent per kWh for a region and a time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonFactor:
    """A carbon intensity of electricity and where it comes from."""

    region: str
    g_per_kwh: float
    source: str
    """Publisher, edition and licence, in words."""
    method: Literal["life-cycle", "direct"]
    valid_at: str
    """The year or the UTC time the figure is for."""


class CarbonSource(ABC):
    """Carbon intensity by region and time. Constructing one touches neither network nor disk."""

    name: ClassVar[str]

    @abstractmethod
    def factor(self, region: str, at: datetime) -> CarbonFactor:
        """Returns the factor of `region` (ISO 3166 alpha-3 code, or a source's own zone) at the aware UTC time `at`.

        Raises:
            ConfigError: the source does not know the region; the message lists what it knows.
        """
