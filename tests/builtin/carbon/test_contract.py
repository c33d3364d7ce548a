import pytest

from greensv.builtin.carbon.static import StaticCarbonSource
from greensv.energy.carbon import CarbonSource
from greensv.testing.carbon_contract import CarbonContract


class TestStatic(CarbonContract):
    region = "FRA"

    @pytest.fixture
    def source(self) -> CarbonSource:
        return StaticCarbonSource()
