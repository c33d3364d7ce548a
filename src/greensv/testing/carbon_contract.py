"""What every carbon source must do. Subclass `CarbonContract` in a test module, and pytest runs it on your source."""

import math
import re
from datetime import UTC, datetime

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

    def test_the_same_question_gets_the_same_answer(self, source: CarbonSource) -> None:
        assert source.factor(self.region, AT) == source.factor(self.region, AT)

    def test_unknown_region_is_an_error_that_says_so(self, source: CarbonSource) -> None:
        with pytest.raises(GreensvError) as caught:
            source.factor(self.unknown_region, AT)
        assert isinstance(caught.value, ConfigError), "a region that is not known is a mistake in the configuration"
        assert self.unknown_region in str(caught.value)
