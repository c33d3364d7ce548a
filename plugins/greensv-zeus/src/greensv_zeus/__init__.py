"""The meter `zeus`: Zeus's figures, recorded beside greensv's own and never charged."""

from collections.abc import Iterable

from greensv.energy.meter import Meter
from greensv.hookspecs import hookimpl
from greensv_zeus.meter import ZeusMeter


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `zeus`."""
    return (ZeusMeter(),)
