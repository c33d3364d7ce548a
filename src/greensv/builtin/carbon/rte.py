"""Carbon source `rte`: what French power stations emit, every quarter of an hour, from RTE's éCO2mix (open data)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from greensv.builtin.carbon.hour_cache import Point
from greensv.builtin.carbon.http_json import get_json
from greensv.builtin.carbon.published import (
    Clock,
    Provider,
    PublishedCarbonSource,
    base_url_problem,
    cache_of,
    items_of,
    read_point,
    utc_now,
)
from greensv.energy.carbon import CarbonSource, Method
from greensv.errors import CarbonError, ConfigError
from greensv.hookspecs import hookimpl

REGION = "FRA"
PAGE_SIZE = 100
"""The most records the service gives at once."""
PER_QUESTION = timedelta(hours=24)
"""96 records at the most, so no paging."""
STEPS = {"eco2mix-national-tr": timedelta(minutes=15), "eco2mix-national-cons-def": timedelta(minutes=30)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RteOptions:
    """Where éCO2mix is asked. No token is needed."""

    base_url: str = "https://odre.opendatasoft.com/api/explore/v2.1"
    """The Opendatasoft service that carries the data set."""
    dataset: Literal["eco2mix-national-tr", "eco2mix-national-cons-def"] = "eco2mix-national-tr"
    """Real time, of about the last two months; or consolidated and definitive, of the years before, each half hour."""
    timeout_s: Annotated[float, Gt(0), Le(120)] = 15.0
    """Seconds to wait for an answer."""

    def __post_init__(self) -> None:
        if problem := base_url_problem(self.base_url):
            raise ValueError(problem)


class RteCarbonSource(PublishedCarbonSource):
    """Direct emissions of the electricity produced in mainland France, in steps of 15 minutes: RTE éCO2mix, open data.

    Combustion alone, without imports, the building of plants or the supply of fuel, so well below life-cycle figures.
    """

    name = "rte"
    options_type = RteOptions

    def __init__(self, options: RteOptions | None = None, *, now: Clock = utc_now) -> None:
        super().__init__(now=now)
        self.options = options or RteOptions()

    @property
    def method(self) -> Method:
        """Always direct."""
        return "direct"

    def with_options(self, options: Any) -> CarbonSource:
        """Returns the source asking elsewhere."""
        return RteCarbonSource(options, now=self.now)

    def resolve_region(self, region: str) -> str:
        """Returns FRA, also for FR. Raises ConfigError for any other region."""
        if region.strip().upper() not in (REGION, "FR"):
            raise ConfigError(f"carbon source 'rte' knows France alone, region FRA, found {region!r}")
        return REGION

    def provider(self, zone: str) -> Provider:
        """Returns what the points are."""
        options = self.options
        return Provider(
            zone=zone,
            method="direct",
            step=STEPS[options.dataset],
            provenance=f"RTE éCO2mix, taux_co2 of {options.dataset} (Licence Ouverte 2.0), {self._url}",
            cache=cache_of(self.name, options.base_url, options.dataset, zone, "direct", step=STEPS[options.dataset]),
        )

    def fetch(self, provider: Provider, start: datetime, end: datetime) -> Sequence[Point]:
        """Asks for the quarter hours of a period, a day at a time; those without a figure are left out."""
        points: list[Point] = []
        at = start
        while at < end:
            until = min(end, at + PER_QUESTION)
            points += self._ask(f"date_heure >= date'{_iso(at)}' and date_heure < date'{_iso(until)}'", "date_heure")
            at = until
        if not points and end >= self.now() - timedelta(hours=3):
            self._complain(end)
        return points

    @property
    def _url(self) -> str:
        return f"{self.options.base_url.rstrip('/')}/catalog/datasets/{self.options.dataset}/records"

    def _ask(self, where: str, order: str, *, limit: int = PAGE_SIZE) -> list[Point]:
        params = {
            "select": "taux_co2,date_heure",
            "where": f"taux_co2 is not null and {where}" if where else "taux_co2 is not null",
            "order_by": order,
            "limit": str(limit),
            "timezone": "UTC",
        }
        answer = get_json(self._url, params, timeout_s=self.options.timeout_s, about="taux_co2")
        items = items_of(answer, "results", what=self._url)
        read = (read_point(item.get("date_heure"), item.get("taux_co2"), what=self._url) for item in items)
        return [point for point in read if point is not None]

    def _complain(self, end: datetime) -> None:
        """Says how old the newest record is: nothing at all for the last hours is no answer."""
        newest = self._ask("", "date_heure desc", limit=1)
        if not newest:
            raise CarbonError(f"{self._url} holds no figure at all; check base_url and dataset")
        age_h = (min(end, self.now()) - newest[0].at).total_seconds() / 3600
        if age_h > 1:
            raise CarbonError(
                f"the newest factor of rte is of {_iso(newest[0].at)}, {age_h:.1f} h old; éCO2mix is behind, or the "
                f"time asked for is not in {self.options.dataset}"
            )


@hookimpl
def greensv_carbon_sources() -> Iterable[CarbonSource]:
    """Returns the built-in source."""
    return (RteCarbonSource(),)


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
