"""Carbon source `constant`: one factor for all times, from a contract, a report or a calculation of yours."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from annotated_types import Gt, Le, MinLen

from greensv.energy.carbon import CarbonFactor, CarbonSource, Method
from greensv.errors import ConfigError
from greensv.hookspecs import hookimpl


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantOptions:
    """The factor, and what can be published about it. All three are yours to say."""

    g_per_kwh: Annotated[float, Gt(0), Le(3000)]
    """Grams of CO2-equivalent per kWh."""
    method: Method
    """Life-cycle, or direct: combustion alone."""
    provenance: Annotated[str, MinLen(1)]
    """Who says so: publisher, edition, year, licence."""


class ConstantCarbonSource(CarbonSource):
    """One factor for every region and time, with the method and provenance that you state."""

    name = "constant"
    options_type = ConstantOptions

    def __init__(self, options: ConstantOptions | None = None) -> None:
        self.options = options

    @property
    def method(self) -> Method | None:
        """What the options say."""
        return self.options.method if self.options else None

    def with_options(self, options: Any) -> CarbonSource:
        """Returns the source with its factor."""
        return ConstantCarbonSource(options)

    def factor(self, region: str, at: datetime) -> CarbonFactor:
        """Returns the stated factor, for any region that has a name.

        Raises:
            ConfigError: the factor is not stated, or the region is empty.
        """
        if self.options is None:
            raise ConfigError(
                "carbon source 'constant' needs its factor: g_per_kwh, method and provenance in "
                "[energy.carbon_options.constant]"
            )
        if not region.strip():
            raise ConfigError(f"carbon source 'constant' needs a region to name, found {region!r}")
        return CarbonFactor(
            region=region.strip(),
            g_per_kwh=self.options.g_per_kwh,
            source=self.options.provenance,
            method=self.options.method,
            valid_at="any time",
        )


@hookimpl
def greensv_carbon_sources() -> Iterable[CarbonSource]:
    """Returns the built-in source."""
    return (ConstantCarbonSource(),)
