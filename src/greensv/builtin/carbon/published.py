"""What the live sources share: the published points of a period, from the cache or asked for, as factors."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from greensv.builtin.carbon.hour_cache import HOUR, HourCache, Point, cache_at, hour_of
from greensv.energy.carbon import CarbonFactor, CarbonSource, Method
from greensv.errors import CarbonError

MAX_G_PER_KWH = 3_000.0
"""No grid is dirtier: the worst coal plants emit half of it."""
_MOMENT = timedelta(seconds=1)

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of sources in use: aware UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Where the points of one zone come from and what they are."""

    zone: str
    method: Method
    step: timedelta
    """How long a point is valid, unless the next one comes earlier."""
    provenance: str
    cache: HourCache


class PublishedCarbonSource(CarbonSource):
    """A source that publishes points in time. A subclass says where (`provider`) and asks for them (`fetch`)."""

    is_live = True

    def __init__(self, *, now: Clock) -> None:
        self.now = now

    @abstractmethod
    def provider(self, zone: str) -> Provider:
        """Returns what the points of a zone are, without asking."""

    @abstractmethod
    def fetch(self, provider: Provider, start: datetime, end: datetime) -> Sequence[Point]:
        """Asks for the points of `start` to `end`, both whole UTC hours; may return more.

        Raises:
            ConfigError, CarbonError: as `CarbonSource.factor`.
        """

    def series(self, region: str, start: datetime, end: datetime) -> tuple[CarbonFactor, ...]:
        """Returns what was published for the period. Raises as `CarbonSource.series`, and where that is nothing."""
        provider = self.provider(self.resolve_region(region))
        points = self._points(provider, start, min(end, self.now()))
        factors = [_factor(provider, point, following) for point, following in _with_next(points)]
        found = tuple(f for f in factors if f.valid_to and f.valid_from and f.valid_to > start and f.valid_from < end)
        if not found:
            raise CarbonError(f"{self.name} has published nothing for {provider.zone} {_period(start, end)}")
        return found

    def factor(self, region: str, at: datetime) -> CarbonFactor:
        """Returns the factor valid at `at`, or the last one before if it ended `hold_s` ago at most."""
        provider = self.provider(self.resolve_region(region))
        points = self._points(provider, at - timedelta(seconds=self.hold_s) - provider.step, at + _MOMENT)
        known = [_factor(provider, p, following) for p, following in _with_next(points) if p.at <= at]
        if not known:
            raise CarbonError(
                f"{self.name} has published nothing for {provider.zone} in the {self.hold_s / 3600:g} h before "
                f"{_minute(at)}; it is behind, or does not reach back so far"
            )
        last = known[-1]
        assert last.valid_to is not None
        age_s = (at - last.valid_to).total_seconds()
        if age_s > self.hold_s:
            raise CarbonError(
                f"the newest factor of {self.name} for {provider.zone} is of {last.valid_at}, "
                f"{age_s / 3600:.1f} h too old for {_minute(at)}; it may be {self.hold_s / 3600:g} h"
            )
        return replace(last, valid_to=at + _MOMENT, is_estimated=True) if age_s >= 0 else last

    def _points(self, provider: Provider, start: datetime, end: datetime) -> list[Point]:
        """Returns the points from the hour of `start` to `end`, asking for those hours that the cache lacks."""
        now, found, missing = self.now(), dict[datetime, Sequence[Point]](), list[datetime]()
        # The hour before, since a point may be valid into the next one.
        hour = hour_of(start - provider.step)
        while hour < end:
            cached = provider.cache.read(hour, now=now)
            if cached is None:
                missing.append(hour)
            else:
                found[hour] = cached
            hour += HOUR
        for first, last in _runs(missing):
            asked = self.fetch(provider, first, last)
            by_hour = {hour: [p for p in asked if hour_of(p.at) == hour] for hour in missing if first <= hour < last}
            for hour, points in by_hour.items():
                found[hour] = points
                provider.cache.write(hour, points, now=now)
        return sorted((p for points in found.values() for p in points), key=lambda p: p.at)


def read_point(at: object, value: object, *, is_estimated: bool = False, what: str) -> Point | None:
    """Returns a provider's time and figure as a point; None where the figure is null, that is not known (yet).

    Raises:
        CarbonError: the time has no zone, or the figure is none that a grid can have.
    """
    try:
        time = datetime.fromisoformat(str(at))
    except ValueError:
        raise CarbonError(f"{what} answered with the time {at!r}, which is none") from None
    if time.tzinfo is None:
        raise CarbonError(f"{what} answered with the time {at!r}, which has no zone")
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= MAX_G_PER_KWH:  # type: ignore[arg-type,operator]
        raise CarbonError(f"{what} answered with {value!r} g/kWh at {at}, which no grid has; check base_url")
    return Point(at=time.astimezone(UTC), g_per_kwh=float(value), is_estimated=is_estimated)  # type: ignore[arg-type]


def base_url_problem(url: str, *, with_token: bool = False) -> str | None:
    """Says why a base URL cannot be used; None when it can. One with a password would end up in the study's record."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        return f"base_url {url!r} is none: {error}"
    if parts.scheme not in ("http", "https") or not host:
        return f"base_url begins with https://, found {url!r}"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "base_url holds no user, password, query or fragment: it is stored with the study"
    if with_token and parts.scheme == "http" and host not in ("localhost", "127.0.0.1", "::1"):
        return f"base_url begins with https://, or the token could be read on its way; found {url!r}"
    return None


def cache_of(name: str, base_url: str, *parts: str, step: timedelta) -> HourCache:
    """Returns the cache of a source at a provider's address, for points of one step; touches nothing."""
    address = urlsplit(base_url)
    path = address.path.strip("/")
    return cache_at(name, address.netloc + (f"_{path}" if path else ""), *parts, num_points=HOUR // step)


def items_of(answer: Any, key: str, *, what: str) -> list[dict[str, Any]]:
    """Returns the list of objects below a key of an answer.

    Raises:
        CarbonError: the answer is another, saying which keys it has.
    """
    items = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        found = ", ".join(map(str, answer)) if isinstance(answer, dict) else type(answer).__name__
        raise CarbonError(f"{what} answered without a list {key!r} (found {found[:200] or 'nothing'}); check base_url")
    return items


def _factor(provider: Provider, point: Point, following: Point | None) -> CarbonFactor:
    end = point.at + provider.step
    return CarbonFactor(
        region=provider.zone,
        g_per_kwh=point.g_per_kwh,
        source=provider.provenance,
        method=provider.method,
        valid_at=_minute(point.at),
        valid_from=point.at,
        valid_to=end if following is None else min(end, following.at),
        is_estimated=point.is_estimated,
    )


def _with_next(points: Sequence[Point]) -> list[tuple[Point, Point | None]]:
    distinct = list({point.at: point for point in points}.values())
    return list(zip(distinct, [*distinct[1:], None], strict=True)) if distinct else []


def _runs(hours: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """Returns hours that follow each other as periods."""
    runs: list[tuple[datetime, datetime]] = []
    for hour in hours:
        if runs and runs[-1][1] == hour:
            runs[-1] = (runs[-1][0], hour + HOUR)
        else:
            runs.append((hour, hour + HOUR))
    return runs


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


def _period(start: datetime, end: datetime) -> str:
    return f"between {_minute(start)} and {_minute(end)}"
