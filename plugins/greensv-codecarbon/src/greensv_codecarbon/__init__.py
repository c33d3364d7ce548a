"""The meter `codecarbon`: CodeCarbon's figures, recorded beside greensv's own and never charged."""

from collections.abc import Iterable

from greensv.energy.meter import Meter
from greensv.hookspecs import hookimpl
from greensv_codecarbon.meter import CodeCarbonMeter


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `codecarbon`."""
    return (CodeCarbonMeter(),)
