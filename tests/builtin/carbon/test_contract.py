import pytest

from greensv.builtin.carbon.constant import ConstantCarbonSource, ConstantOptions
from greensv.builtin.carbon.electricity_maps import ElectricityMapsCarbonSource, ElectricityMapsOptions
from greensv.builtin.carbon.rte import RteCarbonSource, RteOptions
from greensv.builtin.carbon.static import StaticCarbonSource
from greensv.energy.carbon import CarbonSource
from greensv.testing.carbon_contract import CarbonContract
from simulated.carbon_server import CarbonServer


class TestStatic(CarbonContract):
    region = "FRA"

    @pytest.fixture
    def source(self) -> CarbonSource:
        return StaticCarbonSource()


class TestConstant(CarbonContract):
    region = "our-roof"
    unknown_region = " "

    @pytest.fixture
    def source(self) -> CarbonSource:
        return ConstantCarbonSource(ConstantOptions(g_per_kwh=41.0, method="life-cycle", provenance="IPCC AR5"))


class TestRte(CarbonContract):
    region = "FRA"

    @pytest.fixture
    def source(self, server: CarbonServer) -> CarbonSource:
        return RteCarbonSource(RteOptions(base_url=server.rte_url))


class TestElectricityMaps(CarbonContract):
    region = "FR"
    unknown_region = "XX-NOWHERE"

    @pytest.fixture
    def source(self, server: CarbonServer) -> CarbonSource:
        return ElectricityMapsCarbonSource(ElectricityMapsOptions(base_url=server.maps_url))


class TestElectricityMapsDirect(TestElectricityMaps):
    @pytest.fixture
    def source(self, server: CarbonServer) -> CarbonSource:
        return ElectricityMapsCarbonSource(ElectricityMapsOptions(base_url=server.maps_url, method="direct"))
