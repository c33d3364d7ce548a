"""Carbon source `electricity-maps`: hourly intensity of over 200 zones, life-cycle or direct. Needs a token."""

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from annotated_types import Gt, Le

from greensv.builtin.carbon.hour_cache import HOUR, Point, hour_of
from greensv.builtin.carbon.http_json import Refused, get_json
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

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "ELECTRICITY_MAPS_TOKEN"
ZONE = re.compile(r"[A-Z]{2}(-[A-Z0-9]+)*")
EMISSION_FACTOR_TYPES = {"life-cycle": "lifecycle", "direct": "direct"}
HISTORY = timedelta(hours=23)
"""What `history` reaches back, for every plan; `past-range` goes further, for those that include it."""
LONGEST_RANGE = timedelta(days=10)
"""Of `past-range`, hour by hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectricityMapsOptions:
    """Where Electricity Maps is asked, and which emissions are counted.

    The token is never written here: it is read from the environment variable ELECTRICITY_MAPS_TOKEN.
    """

    base_url: str = "https://api.electricitymaps.com/v3"
    """Some plans have an address of their own."""
    method: Method = "life-cycle"
    """Life-cycle, or direct: combustion alone."""
    timeout_s: Annotated[float, Gt(0), Le(120)] = 15.0
    """Seconds to wait for an answer."""

    def __post_init__(self) -> None:
        if problem := base_url_problem(self.base_url, with_token=True):
            raise ValueError(problem)


class ElectricityMapsCarbonSource(PublishedCarbonSource):
    """Hourly carbon intensity of the electricity consumed in a zone such as `FR` or `US-CAL-CISO`: Electricity Maps.

    Needs a token in ELECTRICITY_MAPS_TOKEN. Hours that the provider modelled are marked as estimated.
    """

    name = "electricity-maps"
    options_type = ElectricityMapsOptions
    hold_s = 7_200.0

    def __init__(self, options: ElectricityMapsOptions | None = None, *, now: Clock = utc_now) -> None:
        super().__init__(now=now)
        self.options = options or ElectricityMapsOptions()

    @property
    def method(self) -> Method:
        """What the options say."""
        return self.options.method

    def with_options(self, options: Any) -> CarbonSource:
        """Returns the source with other options."""
        return ElectricityMapsCarbonSource(options, now=self.now)

    def with_method(self, method: Method) -> CarbonSource:
        """Returns the source giving life-cycle or direct factors: it knows both."""
        return ElectricityMapsCarbonSource(replace(self.options, method=method), now=self.now)

    def resolve_region(self, region: str) -> str:
        """Returns the zone in capitals. Raises ConfigError where that is no zone's form."""
        zone = region.strip().upper()
        if not ZONE.fullmatch(zone):
            raise ConfigError(
                f"Electricity Maps names its zones by two letters, such as FR, with parts such as US-CAL-CISO, found "
                f"{region!r}; {self.options.base_url.rstrip('/')}/zones lists them"
            )
        return zone

    def provider(self, zone: str) -> Provider:
        """Returns what the points are."""
        options = self.options
        return Provider(
            zone=zone,
            method=options.method,
            step=HOUR,
            provenance=f"Electricity Maps, zone {zone}, {EMISSION_FACTOR_TYPES[options.method]} (licence of the "
            f"token's plan), {options.base_url.rstrip('/')}/carbon-intensity",
            cache=cache_of(self.name, options.base_url, zone, options.method, step=HOUR),
        )

    def fetch(self, provider: Provider, start: datetime, end: datetime) -> Sequence[Point]:
        """Asks `latest` for this hour, `history` for the last day, `past-range` for what is older.

        Not every plan has `past-range`: where the others told something, that is returned, and the rest is missing.
        """
        now = self.now()
        recent = hour_of(now) - HISTORY
        points: list[Point] = []
        if recent < end and start < hour_of(now):
            points += self._points_of(provider, self._ask(provider, "history"), "history")
        if start <= hour_of(now) < end and all(point.at < hour_of(now) for point in points):
            points += self._latest(provider)
        at = start
        while at < min(end, recent):
            until = min(end, recent, at + LONGEST_RANGE)
            try:
                points += self._range(provider, at, until)
            except CarbonError as error:
                if not points:
                    raise
                logger.warning("no carbon factors of %s from %s to %s: %s", provider.zone, _iso(at), _iso(end), error)
                break
            at = until
        return list({point.at: point for point in points}.values())

    def _range(self, provider: Provider, start: datetime, end: datetime) -> list[Point]:
        try:
            answer = self._ask(provider, "past-range", start=_iso(start), end=_iso(end))
        except CarbonError as error:
            raise CarbonError(f"{error} (more than a day back needs a plan with past-range)") from None
        return self._points_of(provider, answer, "data")

    def _latest(self, provider: Provider) -> list[Point]:
        """The newest figure; one that is older than it may be is an error that tells its age, and no figure."""
        points = self._points_of(provider, {"latest": [self._ask(provider, "latest")]}, "latest")
        age_s = (self.now() - points[-1].at - HOUR).total_seconds() if points else 0.0
        if not points:
            raise CarbonError(f"Electricity Maps has no figure for {provider.zone} just now: carbonIntensity is null")
        if age_s > self.hold_s:
            raise CarbonError(
                f"the newest factor of Electricity Maps for {provider.zone} is of {_iso(points[-1].at)}, "
                f"{age_s / 3600 + 1:.1f} h old; it may be {self.hold_s / 3600 + 1:g} h"
            )
        return points

    def _ask(self, provider: Provider, endpoint: str, **period: str) -> Any:
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            raise CarbonError(f"Electricity Maps needs a token; set the environment variable {TOKEN_VARIABLE}")
        if not token.isascii() or not token.isprintable():
            raise CarbonError(f"{TOKEN_VARIABLE} holds what cannot be sent in a header; set it anew")
        url = f"{self.options.base_url.rstrip('/')}/carbon-intensity/{endpoint}"
        params = {
            "zone": provider.zone,
            "emissionFactorType": EMISSION_FACTOR_TYPES[provider.method],
            "temporalGranularity": "hourly",
            # A zone it does not know would be replaced by the caller's own, by address: the new and the old name.
            "disableCallerLookup": "true",
            "shouldUseFallbackCallerLookup": "false",
            **period,
        }
        try:
            answer = get_json(
                url,
                params,
                timeout_s=self.options.timeout_s,
                about=f"zone {provider.zone}",
                headers={"auth-token": token},
                secret=token,
            )
        except Refused as error:
            if error.code == 404:
                raise ConfigError(
                    f"Electricity Maps knows no zone {provider.zone!r}, or base_url is wrong: {error}"
                ) from None
            raise
        if isinstance(answer, dict) and (said := answer.get("error") or answer.get("message")):
            raise CarbonError(f"{url} answered for zone {provider.zone}: {str(said).replace(token, '…')[:200]!r}")
        return answer

    def _points_of(self, provider: Provider, answer: Any, key: str) -> list[Point]:
        what = f"Electricity Maps ({key})"
        _check_answer(provider, answer, what=what)
        points = []
        for item in items_of(answer, key, what=what):
            _check_answer(provider, item, what=what)
            is_estimated = item.get("isEstimated") is not False
            point = read_point(item.get("datetime"), item.get("carbonIntensity"), is_estimated=is_estimated, what=what)
            points += [point] if point is not None else []
        return sorted(points, key=lambda point: point.at)


@hookimpl
def greensv_carbon_sources() -> Iterable[CarbonSource]:
    """Returns the built-in source."""
    return (ElectricityMapsCarbonSource(),)


def _check_answer(provider: Provider, answer: Any, *, what: str) -> None:
    """Sees that the answer is for the zone and the method asked for.

    Raises:
        CarbonError: it is for another.
    """
    if not isinstance(answer, dict):
        return
    if (zone := answer.get("zone", provider.zone)) != provider.zone:
        raise CarbonError(f"{what} was asked for zone {provider.zone} and answered for {zone!r}")
    wanted = EMISSION_FACTOR_TYPES[provider.method]
    if (kind := answer.get("emissionFactorType", wanted)) != wanted:
        raise CarbonError(f"{what} was asked for {wanted} factors and answered with {kind!r} ones")


def _iso(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
