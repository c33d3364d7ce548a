"""The meter `rapl`: the energy counters of Intel and AMD processors and their memory, read from the powercap tree."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import MinLen

from greensv.builtin.meters.powercap import DEFAULT_ROOT, Zone, availability, unreadable
from greensv.energy.meter import Availability, CounterSample, Meter, MeterRequest, MeterSession, Quality
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl

LONGEST_COUNT = 32
"""Bytes: a 64-bit counter has at most 20 digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaplOptions:
    """Options of the meter `rapl`."""

    root: Annotated[str, MinLen(1)] = DEFAULT_ROOT
    """Where the powercap tree is mounted."""


class RaplMeter(Meter):
    """Package and dram zones, socket by socket (die by die where the kernel has them)."""

    name: ClassVar[str] = "rapl"
    quality: ClassVar[Quality] = "measured"
    options_type: ClassVar[type | None] = RaplOptions

    def probe(self, request: MeterRequest) -> Availability:
        """Looks for zones and reads each once."""
        return availability(_root(request), request.leave_out)[0]

    def open(self, request: MeterRequest) -> MeterSession:
        """Keeps every zone's counter file open."""
        about, zones = availability(_root(request), request.leave_out)
        if not zones:
            raise MeterError(f"meter 'rapl' is not available: {about.reason}; {about.remedy}")
        return RaplSession(zones)


class RaplSession(MeterSession):
    """One open file per zone: reading one again costs a microsecond."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._files: list[tuple[Zone, int]] = []
        for zone in zones:
            try:
                self._files.append((zone, os.open(zone.folder / "energy_uj", os.O_RDONLY | os.O_CLOEXEC)))
            except OSError as error:
                self.close()
                raise MeterError(f"meter 'rapl': {unreadable(error)}") from error

    def read(self) -> Sequence[CounterSample]:
        """Returns the counters in microjoules."""
        return [self._sample(zone, file) for zone, file in self._files]

    def close(self) -> None:
        """Closes the files."""
        while self._files:
            os.close(self._files.pop()[1])

    def _sample(self, zone: Zone, file: int) -> CounterSample:
        try:
            count = int(os.pread(file, LONGEST_COUNT, 0))
        except OSError as error:
            error.filename = str(zone.folder / "energy_uj")
            raise MeterError(f"meter 'rapl': {unreadable(error)}") from error
        except ValueError as error:
            raise MeterError(f"meter 'rapl': {zone.folder / 'energy_uj'} holds no number: {error}") from error
        return CounterSample(
            domain=zone.domain, taken_at_s=time.monotonic(), count=count, unit_j=1e-6, range_count=zone.range_uj
        )


def _root(request: MeterRequest) -> Path:
    return Path((request.options or RaplOptions()).root)


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `rapl`."""
    return (RaplMeter(),)
