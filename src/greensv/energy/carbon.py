"""The interface of a carbon source: grams of CO2-equivalent per kWh for a region and a time."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, Self

from greensv.config.load import Problem, validate
from greensv.errors import ConfigError

Method = Literal["life-cycle", "direct"]
"""Life-cycle: plants, fuel supply and combustion. Direct: what leaves the stacks. The two do not compare."""

SERIES_STEP = timedelta(hours=1)
"""How far apart `CarbonSource.series` asks a source that does not say how long its factors are valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonFactor:
    """A carbon intensity of electricity and where it comes from."""

    region: str
    g_per_kwh: float
    source: str
    """Provenance in words: publisher, edition and licence, and the address that was asked, without any token."""
    method: Method
    valid_at: str
    """The year or the UTC time the figure is for."""
    valid_from: datetime | None = None
    """Aware UTC; None in what `factor` returns: the source does not say since when."""
    valid_to: datetime | None = None
    """Aware UTC, exclusive; None as `valid_from`."""
    is_estimated: bool = False
    """The source modelled the figure, or the figure before stands for it until this one is known."""


class CarbonSource(ABC):
    """Carbon intensity by region and time. Constructing one touches neither network nor disk.

    A source with options is constructed with a record of its `options_type`, and by its plugin with none::

        class Grid(CarbonSource):
            name = "grid"
            options_type = GridOptions
            is_live = True

            def __init__(self, options=GridOptions()):
                self.options = options

            def with_options(self, options):
                return Grid(options)

            def factor(self, region, at):
                return CarbonFactor(region=region, g_per_kwh=ask(self.options.base_url, region, at), ...)
    """

    name: ClassVar[str]
    options_type: ClassVar[type | None] = None
    """A frozen dataclass of the options in `[energy.carbon_options.<name>]`; None: it has none."""
    is_live: ClassVar[bool] = False
    """It asks the network. greensv then asks it in the background, and never while it checks a configuration."""
    hold_s: ClassVar[float] = 3_600.0
    """Seconds for which the last factor of a live source may stand for the time after it, until the next is known."""

    @property
    def method(self) -> Method | None:
        """What its factors count; None: each factor says so itself."""
        return None

    @abstractmethod
    def factor(self, region: str, at: datetime) -> CarbonFactor:
        """Returns the factor of `region` (ISO 3166 alpha-3 code, or a source's own zone) at the aware UTC time `at`.

        Raises:
            ConfigError: the source does not know the region; the message lists what it knows.
            CarbonError: the source could not tell: not reached, refused, empty, or older than it may be.
        """

    def series(self, region: str, start: datetime, end: datetime) -> tuple[CarbonFactor, ...]:
        """Returns the factors from `start` to `end`, in order, not overlapping, each with its period of validity.

        A period may begin before `start` or end after `end`. Times that no factor covers are those the source knows
        nothing of. The default asks `factor` each hour, or when the last one ends; override it where one question
        gives many factors.

        Raises:
            ConfigError, CarbonError: as `factor`.
        """
        found: list[CarbonFactor] = []
        at = start
        while at < end:
            factor = self.factor(region, at)
            until = factor.valid_to if factor.valid_to and factor.valid_to > at else min(end, at + SERIES_STEP)
            since = at if found or factor.valid_from is None else factor.valid_from
            begun = replace(factor, valid_from=since, valid_to=until)
            last = found[-1] if found else None
            if last is not None and last == replace(begun, valid_from=last.valid_from, valid_to=last.valid_to):
                found[-1] = replace(last, valid_to=until)
            else:
                found.append(begun)
            at = until
        return tuple(found)

    def resolve_region(self, region: str) -> str:
        """Returns the region as the source writes it, without asking the network.

        Raises:
            ConfigError: it cannot be one of the source's.
        """
        return region.strip() if self.is_live else self.factor(region, datetime.now(UTC)).region

    def with_options(self, options: Any) -> "CarbonSource":
        """Returns the source with a record of its `options_type`; to be overridden by a source that has options."""
        if options is not None:
            raise NotImplementedError(f"{type(self).__name__} has an options_type and does not override with_options")
        return self

    def with_method(self, method: Method) -> "CarbonSource | Self":
        """Returns the source giving factors of that method; to be overridden by a source that knows both.

        Raises:
            ConfigError: it has only the other.
        """
        if self.method not in (None, method):
            raise ConfigError(f"carbon source {self.name!r} gives {self.method} factors only; leave out {method}")
        return self


def configured_source(source: CarbonSource, options: Mapping[str, Mapping[str, Any]]) -> CarbonSource:
    """Returns the source with its own of the options by name, as in `[energy.carbon_options.<name>]`.

    Raises:
        ConfigError: naming every mistake in them.
    """
    raw = options.get(source.name, {})
    if problems := option_problems(source, raw):
        raise ConfigError("; ".join(map(str, problems)))
    return source if source.options_type is None else source.with_options(validate(source.options_type, raw)[0])


def option_problems(source: CarbonSource, raw: Any) -> list[Problem]:
    """Returns what is wrong with the options of a source."""
    where = f"energy.carbon_options.{source.name}"
    if source.options_type is not None:
        return validate(source.options_type, raw, where=where)[1]
    return [Problem(where=where, what=f"carbon source {source.name!r} has no options; remove them")] if raw else []
