"""What every carbon source must do. Subclass `CarbonContract` in a test module, and pytest runs it on your source."""

import math
import re
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from greensv.energy.carbon import CarbonSource
from greensv.errors import ConfigError, GreensvError

KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
AT = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)


class CarbonContract:
    """Tests of one carbon source.

    A complete test of a source::

        class TestGrid(CarbonContract):
            region = "FRA"

            @pytest.fixture
            def source(self):
                return Grid(base_url=recorded_answers)
    """

    region: str
    """A region that the source knows."""
    unknown_region: str = "no-such-region"

    @pytest.fixture
    def source(self) -> CarbonSource:
        """The source under test."""
        raise NotImplementedError("override the fixture `source`")

    def test_name_is_kebab_case(self, source: CarbonSource) -> None:
        assert KEBAB_CASE.fullmatch(source.name), f"{source.name!r} is not like 'my-grid'"

    def test_factor_is_a_plausible_number_with_its_provenance(self, source: CarbonSource) -> None:
        factor = source.factor(self.region, AT)
        # The dirtiest grids there are, all coal and oil, stay below 1.3 kg per kWh.
        assert math.isfinite(factor.g_per_kwh)
        assert 0 < factor.g_per_kwh < 1_500, f"{factor.g_per_kwh} g/kWh; is it in grams per kWh?"
        assert factor.region
        assert factor.method in {"life-cycle", "direct"}
        assert factor.source.strip(), "a factor without a source cannot be published"
        assert factor.valid_at.strip(), "say which year or time the factor is for"

    def test_a_region_is_known_without_asking_anybody(self, source: CarbonSource) -> None:
        resolved = source.resolve_region(self.region)
        assert resolved.strip(), "a region has a name"
        assert source.resolve_region(resolved) == resolved, "the source's own name of a region is one it knows"

    def test_factors_are_counted_as_the_source_says(self, source: CarbonSource) -> None:
        assert source.method in {None, source.factor(self.region, AT).method}

    def test_a_series_has_periods_in_order_that_say_what_factor_says(self, source: CarbonSource) -> None:
        start, end = AT - timedelta(hours=3), AT + timedelta(hours=2)
        series = source.series(self.region, start, end)
        assert series, "a series of five hours in the past should not be empty"
        for factor in series:
            assert factor.valid_from is not None
            assert factor.valid_to is not None
            assert factor.valid_from.tzinfo is not None, "times are aware, in UTC"
            assert factor.valid_from < factor.valid_to
            assert factor.valid_from < end
            assert factor.valid_to > start
        for before, after in pairwise(series):
            assert before.valid_to <= after.valid_from, "periods follow each other and do not overlap"  # type: ignore[operator]
        at_noon = [f for f in series if f.valid_from <= AT < f.valid_to]  # type: ignore[operator]
        assert [f.g_per_kwh for f in at_noon] == [source.factor(self.region, AT).g_per_kwh]

    def test_options_are_a_frozen_dataclass_that_makes_a_source_of_the_same_name(self, source: CarbonSource) -> None:
        if source.options_type is None:
            assert source.with_options(None) is source
            return
        assert is_dataclass(source.options_type)
        assert source.options_type.__dataclass_params__.frozen, "options are never changed"  # type: ignore[attr-defined]
        if all(f.default is not MISSING or f.default_factory is not MISSING for f in fields(source.options_type)):
            made = source.with_options(source.options_type())
            assert (type(made), made.name) == (type(source), source.name)
            assert made is not source

    def test_the_same_question_gets_the_same_answer(self, source: CarbonSource) -> None:
        assert source.factor(self.region, AT) == source.factor(self.region, AT)

    def test_unknown_region_is_an_error_that_says_so(self, source: CarbonSource) -> None:
        with pytest.raises(GreensvError) as caught:
            source.factor(self.unknown_region, AT)
        assert isinstance(caught.value, ConfigError), "a region that is not known is a mistake in the configuration"
        assert self.unknown_region in str(caught.value)
