"""Carbon source `static`: yearly averages by country, life-cycle, from a table that ships with greensv."""

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from greensv.energy.carbon import CarbonFactor, CarbonSource, Method
from greensv.errors import ConfigError, did_you_mean
from greensv.hookspecs import hookimpl

WORLD = "WORLD"
COUNTRY_SOURCE = (
    "Ember and Energy Institute, with major processing by Our World in Data, edition of 2024 (CC BY 4.0); "
    "yearly average of the country"
)
WORLD_SOURCE = "Ember, edition of July 2024 (CC BY 4.0); yearly average of the world"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    code: str
    country: str
    year: str
    g_per_kwh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticOptions:
    """Which year of the table counts."""

    year: int | None = None
    """A region that the table has for another year is an error then; None: the last year it has for each."""


class StaticCarbonSource(CarbonSource):
    """Life-cycle carbon intensity of electricity by ISO 3166 alpha-3 code, or `WORLD`; the latest year there is."""

    name = "static"
    options_type = StaticOptions

    def __init__(self, options: StaticOptions | None = None) -> None:
        self.options = options or StaticOptions()

    @property
    def method(self) -> Method:
        """Always life-cycle."""
        return "life-cycle"

    def with_options(self, options: Any) -> CarbonSource:
        """Returns the source for another year."""
        return StaticCarbonSource(options)

    def factor(self, region: str, at: datetime) -> CarbonFactor:
        """Returns the yearly average of `region`, in upper or lower case.

        The table has one year for each region, which the factor names: it is the same for every time `at`.

        Raises:
            ConfigError: no such region, with some suggested and all listed; or not for the year asked for.
        """
        regions = _read_regions()
        found = regions.get(region.upper())
        if found is None:
            raise ConfigError(
                f"no carbon intensity for region {region!r}{_suggestion(region, regions)} "
                f"(known are {WORLD} and countries by their ISO 3166 alpha-3 code: {', '.join(regions)})"
            )
        if self.options.year not in (None, int(found.year)):
            raise ConfigError(
                f"the table has {found.code} for {found.year}, not for {self.options.year}; leave out the year of "
                "[energy.carbon_options.static], or state a factor with carbon source 'constant'"
            )
        return CarbonFactor(
            region=found.code,
            g_per_kwh=found.g_per_kwh,
            source=f"{WORLD_SOURCE if found.code == WORLD else COUNTRY_SOURCE}, {found.year}",
            method="life-cycle",
            valid_at=found.year,
        )


@hookimpl
def greensv_carbon_sources() -> Iterable[CarbonSource]:
    """Returns the built-in source."""
    return (StaticCarbonSource(),)


@functools.cache
def _read_regions() -> Mapping[str, _Region]:
    import csv
    from importlib import resources

    text = (resources.files(__package__) / "static.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row["region"]: _Region(
            code=row["region"], country=row["country"], year=row["year"], g_per_kwh=float(row["g_per_kwh"])
        )
        for row in rows
    }


def _suggestion(region: str, regions: Mapping[str, _Region]) -> str:
    """Names the regions meant by a two-letter code or a country's name, else those with a name much like it."""
    wanted = region.strip().casefold()
    alike = [r for r in regions.values() if len(wanted) >= 2 and r.code.casefold().startswith(wanted)]
    if not alike:
        names = {r.country.casefold(): r for r in regions.values()}
        alike = [names[name] for name in difflib.get_close_matches(wanted, names, n=2, cutoff=0.7)]
    if alike:
        return f"; did you mean {' or '.join(f'{r.code} ({r.country})' for r in alike)}?"
    return did_you_mean(region.upper(), regions)
