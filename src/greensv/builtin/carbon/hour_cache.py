"""Factors that were published, kept on disk by the hour, so that the same question is not asked twice."""

import contextlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

logger = logging.getLogger(__name__)

HOUR = timedelta(hours=1)
FRESH = timedelta(minutes=5)
"""How long an hour that may still change is taken from the cache."""
FINAL_AFTER = timedelta(hours=24)
"""Providers revise their figures; an hour that ended so long before it was fetched stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One published figure and the time from which it is valid."""

    at: datetime
    g_per_kwh: float
    is_estimated: bool = False


@dataclass(frozen=True, slots=True)
class HourCache:
    """A folder of one file per hour: for one source, provider's address, zone and method."""

    folder: Path
    num_points: int = 1
    """Of a whole hour; one with fewer is not final."""

    def read(self, hour: datetime, *, now: datetime) -> list[Point] | None:
        """Returns the points of an hour; None when they are not there, may have changed, or cannot be read."""
        path = self._path(hour)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            fetched_at = datetime.fromisoformat(kept["fetched_at"])
            points = [_point(item, hour) for item in kept["points"]]
            age, ended_before = now - fetched_at, fetched_at - (hour + HOUR)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("the cached carbon factors in %s cannot be read (%s) and are asked for again", path, error)
            return None
        is_settled = len(points) >= self.num_points and not any(point.is_estimated for point in points)
        is_final = is_settled and ended_before >= FINAL_AFTER
        return points if is_final or timedelta(0) <= age < FRESH else None

    def write(self, hour: datetime, points: Iterable[Point], *, now: datetime) -> None:
        """Keeps the points of an hour, whole or not at all; a cache that cannot be written is said and done without."""
        kept = {
            "fetched_at": now.isoformat(),
            "points": [{"at": p.at.isoformat(), "g_per_kwh": p.g_per_kwh, "estimated": p.is_estimated} for p in points],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump(kept, file)
                Path(name).replace(self._path(hour))
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            logger.warning("carbon factors cannot be cached in %s: %s", self.folder, error)

    def _path(self, hour: datetime) -> Path:
        return self.folder / f"{hour:%Y-%m-%dT%H}.json"


def cache_at(*parts: str, num_points: int = 1) -> HourCache:
    """Returns the cache below `$XDG_CACHE_HOME/greensv/carbon` (or `~/.cache`) for these names; touches nothing."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "greensv" / "carbon"
    return HourCache(
        root.joinpath(*("".join(c if c.isalnum() or c in "-_." else "_" for c in part) for part in parts)), num_points
    )


def hour_of(at: datetime) -> datetime:
    """Returns the beginning of the UTC hour of a time."""
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _point(item: Mapping[str, object], hour: datetime) -> Point:
    at, value, is_estimated = datetime.fromisoformat(str(item["at"])), item["g_per_kwh"], item["estimated"]
    if (
        not isinstance(value, int | float)
        or not math.isfinite(value)
        or value < 0
        or not isinstance(is_estimated, bool)
    ):
        raise ValueError(f"found {item!r}")
    if not hour <= at < hour + HOUR:
        raise ValueError(f"{at} is not in the hour")
    return Point(at=at, g_per_kwh=float(value), is_estimated=is_estimated)
