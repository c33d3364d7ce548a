"""The interface's own parts: the default series, options and methods."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from greensv.energy.carbon import CarbonFactor, CarbonSource, Method, configured_source, option_problems
from greensv.errors import ConfigError

AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Tide(CarbonSource):
    """Clean by day; says nothing of periods."""

    name = "tide"

    def factor(self, region: str, at: datetime) -> CarbonFactor:
        clean = 6 <= at.hour < 18
        return CarbonFactor(
            region=region,
            g_per_kwh=10.0 if clean else 40.0,
            source="tables of the tide",
            method="direct",
            valid_at="day" if clean else "night",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftOptions:
    hours: int = 0


class Shifted(Tide):
    name = "shifted"
    options_type = ShiftOptions

    def __init__(self, options: ShiftOptions | None = None) -> None:
        self.options = options or ShiftOptions()

    @property
    def method(self) -> Method:
        return "direct"

    def with_options(self, options: object) -> CarbonSource:
        assert isinstance(options, ShiftOptions)
        return Shifted(options)

    def factor(self, region: str, at: datetime) -> CarbonFactor:
        start = at.replace(minute=0, second=0, microsecond=0)
        factor = super().factor(region, start + self.options.hours * HOUR)
        return dataclasses.replace(factor, valid_from=start, valid_to=start + 2 * HOUR)


def test_the_default_series_asks_each_hour_and_joins_what_is_the_same() -> None:
    series = Tide().series("sea", AT + HOUR / 2, AT + 8 * HOUR)
    assert [(f.valid_from, f.valid_to, f.g_per_kwh) for f in series] == [
        (AT + HOUR / 2, AT + 6.5 * HOUR, 10.0),
        (AT + 6.5 * HOUR, AT + 8 * HOUR, 40.0),
    ]


def test_the_default_series_follows_the_periods_a_source_states() -> None:
    series = Shifted().series("sea", AT + HOUR / 2, AT + 3 * HOUR)
    assert [(f.valid_from, f.valid_to) for f in series] == [(AT, AT + 4 * HOUR)]


def test_options_make_another_source_and_their_mistakes_are_all_told() -> None:
    source = configured_source(Shifted(), {"shifted": {"hours": 12}, "static": {"x": 1}})
    assert source.factor("sea", AT).g_per_kwh == 40.0
    assert Shifted().factor("sea", AT).g_per_kwh == 10.0
    with pytest.raises(ConfigError, match=r"energy\.carbon_options\.shifted\.hours: .*; energy\.carbon_options.*huors"):
        configured_source(Shifted(), {"shifted": {"hours": "12", "huors": 1}})


def test_a_source_without_options_takes_none() -> None:
    assert configured_source(Tide(), {}).name == "tide"
    (problem,) = option_problems(Tide(), {"hours": 1})
    assert str(problem) == "energy.carbon_options.tide: carbon source 'tide' has no options; remove them"


def test_a_source_that_forgets_its_options_is_a_bug_that_shows() -> None:
    class Forgetful(Tide):
        options_type = ShiftOptions

    with pytest.raises(NotImplementedError, match="Forgetful has an options_type"):
        configured_source(Forgetful(), {})


def test_a_source_of_one_method_refuses_the_other() -> None:
    assert Shifted().with_method("direct").method == "direct"
    with pytest.raises(ConfigError, match="'shifted' gives direct factors only; leave out life-cycle"):
        Shifted().with_method("life-cycle")
