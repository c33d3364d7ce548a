"""The meter `pyrapl`: RAPL counters through the pyRAPL package.

pyRAPL 0.2.3.1 does not see counters wrap, is not thread-safe, and lets any error through; so only its `Sensor.energy()`
is used, the counters' ranges are read here, and the monitor unwraps. `rapl` reads more machines and needs no adapter.
"""

import logging
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from greensv.builtin.meters import powercap
from greensv.energy.meter import (
    Availability,
    CounterSample,
    Domain,
    DomainKind,
    Meter,
    MeterRequest,
    MeterSession,
    Quality,
)
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl

KINDS_PER_SOCKET: tuple[DomainKind, ...] = ("cpu", "dram")
"""The order of `Sensor.energy()`: package and dram of socket 0, of socket 1, and so on; -1 for what is absent."""
USE_RAPL = "use the meter `rapl`"
IN_CONTAINER = f"{USE_RAPL}, which can read them elsewhere"

_import_lock = threading.Lock()


class PyRaplMeter(Meter):
    """Package and dram counters of each socket, under /sys/class/powercap, where pyRAPL looks."""

    name: ClassVar[str] = "pyrapl"
    quality: ClassVar[Quality] = "measured"

    def probe(self, request: MeterRequest) -> Availability:
        """Builds pyRAPL's sensor, reads it once and lets it go."""
        try:
            session = self._open(request)
        except _UnavailableError as error:
            return error.availability
        session.close()
        return session.availability

    def open(self, request: MeterRequest) -> MeterSession:
        """Builds pyRAPL's sensor."""
        try:
            return self._open(request)
        except _UnavailableError as error:
            raise MeterError(
                f"meter 'pyrapl' is not available: {error.availability.reason}; {error.availability.remedy}"
            ) from error

    def _open(self, request: MeterRequest) -> "PyRaplSession":
        root = Path(powercap.DEFAULT_ROOT)
        about, zones = powercap.availability(root, request.leave_out, in_container=IN_CONTAINER)
        if not zones:
            raise _UnavailableError(about)
        return PyRaplSession(_sensor(), zones, about)


class PyRaplSession(MeterSession):
    """One pyRAPL sensor, read under a lock."""

    def __init__(self, sensor: Any, zones: Sequence[powercap.Zone], about: Availability) -> None:
        self.availability = about
        self._sensor = sensor
        self._lock = threading.Lock()
        self._range_uj = {zone.domain: zone.range_uj for zone in zones}
        try:
            missing = self._range_uj.keys() - self._counts().keys()
        except MeterError as error:
            self.close()
            raise _UnavailableError(Availability(reason=str(error), remedy=USE_RAPL)) from error
        if missing:
            self.close()
            names = ", ".join(map(str, sorted(missing)))
            raise _UnavailableError(
                Availability(reason=f"pyRAPL does not find {names}, which this machine has", remedy=USE_RAPL)
            )

    def read(self) -> Sequence[CounterSample]:
        """Returns the counters in microjoules."""
        counts, taken_at_s = self._counts(), time.monotonic()
        if missing := self._range_uj.keys() - counts.keys():
            raise MeterError(f"pyRAPL no longer reports {', '.join(map(str, sorted(missing)))}")
        return [
            CounterSample(domain=domain, taken_at_s=taken_at_s, count=counts[domain], unit_j=1e-6, range_count=range_uj)
            for domain, range_uj in self._range_uj.items()
        ]

    def close(self) -> None:
        """Closes the files that pyRAPL keeps open and has no way to close."""
        for api in self._sensor._device_api.values():
            for file in api._sys_files:
                file.close()

    def _counts(self) -> dict[Domain, int]:
        try:
            with self._lock:
                flat = self._sensor.energy()
        except OSError as error:
            raise MeterError(f"meter 'pyrapl': {powercap.unreadable(error)}") from error
        except ValueError as error:
            raise MeterError(f"meter 'pyrapl': pyRAPL could not read a counter ({error})") from error
        return {
            Domain(KINDS_PER_SOCKET[place % 2], str(place // 2)): int(count)
            for place, count in enumerate(flat)
            if count >= 0
        }


class _UnavailableError(Exception):
    def __init__(self, availability: Availability) -> None:
        super().__init__(availability.reason)
        self.availability = availability


def _sensor() -> Any:
    """Builds a `pyRAPL.Sensor`, for all sockets, and never pyRAPL's global one."""
    # The error is dealt with while it is quiet: with it go the files that pyRAPL opened and left open.
    with _import_lock, _quiet():
        sensor, reason = _sensor_or_reason()
    if reason is not None:
        raise _UnavailableError(Availability(reason=reason, remedy=USE_RAPL))
    return sensor


def _sensor_or_reason() -> tuple[Any, str | None]:
    try:
        import pyRAPL
    except (ImportError, SyntaxError) as error:
        return None, f"the package pyRAPL cannot be imported ({error})"
    try:
        return pyRAPL.Sensor(), None
    except PermissionError as error:
        return None, powercap.unreadable(error)
    except (pyRAPL.PyRAPLException, OSError, ValueError, IndexError) as error:
        details = f": {error}" if str(error) else ""
        return None, f"pyRAPL cannot use this machine's RAPL zones ({type(error).__name__}{details})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Importing pyRAPL warns of its own syntax and logs, to the root logger, that pymongo and pandas are missing."""
    root, handler, disabled = logging.getLogger(), logging.NullHandler(), logging.root.manager.disable
    root.addHandler(handler)  # otherwise its logging.warning() configures the root logger
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `pyrapl`."""
    return (PyRaplMeter(),)
