"""The meter: the CPUs and GPUs as Zeus finds and reads them, by its public `zeus.device`.

`ZeusMonitor` takes the difference of the same readings at both ends of its windows; here greensv's windows do.
"""

import contextlib
import importlib.util
import io
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

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

RESOLUTION_S = 0.1
"""Of the GPUs' counters; the CPUs' change every millisecond."""
GAIN_UNCERTAINTY = 0.05
MICROJOULES_PER_MILLIJOULE = 1000
REMEDY = "see https://ml.energy/zeus/getting_started/#system-privileges"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What Zeus finds here, as far as it was asked for, and what it does not."""

    cpus: Any
    """A `zeus.device.cpu.CPUs`, or None."""
    has_dram: bool
    gpus: Any
    """A `zeus.device.gpu.GPUs`, or None."""
    problems: tuple[str, ...]

    @property
    def kinds(self) -> tuple[DomainKind, ...]:
        """The kinds of domains it tells of."""
        found: list[DomainKind] = ["cpu"] if self.cpus else []
        found += ["dram"] if self.has_dram else []
        found += ["gpu"] if self.gpus else []
        return tuple(found)


class ZeusMeter(Meter):
    """The energy that Zeus reads, for `--also-meter zeus`."""

    name: ClassVar[str] = "zeus"
    quality: ClassVar[Quality] = "measured"
    is_beside_only: ClassVar[bool] = True

    def probe(self, request: MeterRequest) -> Availability:
        """Asks Zeus what it finds; reads nothing, which would start its helper processes."""
        if importlib.util.find_spec("zeus") is None:
            return Availability(reason="zeus is not installed", remedy="pip install 'zeus>=0.16,<0.17'")
        found = _find(request)
        domains = tuple(Domain(kind) for kind in found.kinds if kind not in request.leave_out)
        if not domains:
            reason = "other meters measure what it could" if found.kinds else "; ".join(found.problems)
            return Availability(reason=reason, remedy="leave one of them out" if found.kinds else REMEDY)
        return Availability(
            domains=domains,
            resolution_s=RESOLUTION_S,
            gain_uncertainty=GAIN_UNCERTAINTY,
            notes=found.problems,
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Takes what Zeus finds. Its first reading starts a process for each of RAPL's counters, to see them wrap."""
        about = self.require(request)
        return ZeusSession(_find(request), about.domains)


class ZeusSession(MeterSession):
    """Reads Zeus's cumulative figures. Zeus keeps its devices, and its processes, to the end of this one."""

    def __init__(self, found: Found, domains: Sequence[Domain]) -> None:
        self._found = found
        self._domains = domains

    def read(self) -> Sequence[CounterSample]:
        """Returns one sum per kind, in microjoules.

        Raises:
            MeterError: Zeus cannot read.
        """
        try:
            energy_uj = self._energy_uj()
        except Exception as error:  # Zeus lets through what each of its libraries raises
            message = f"meter 'zeus': Zeus cannot read ({type(error).__name__}: {error}); {REMEDY}"
            raise MeterError(message) from error
        now_s = time.monotonic()
        return [
            CounterSample(domain=domain, taken_at_s=now_s, count=energy_uj[domain.kind], unit_j=1e-6)
            for domain in self._domains
        ]

    def _energy_uj(self) -> dict[DomainKind, int]:
        energy_mj: dict[DomainKind, float] = {"cpu": 0.0, "dram": 0.0, "gpu": 0.0}
        if self._found.cpus:
            for index in range(len(self._found.cpus)):
                reading = self._found.cpus.get_total_energy_consumption(index)
                energy_mj["cpu"] += reading.cpu_mj
                energy_mj["dram"] += reading.dram_mj or 0.0
        if self._found.gpus:
            for index in range(len(self._found.gpus)):
                energy_mj["gpu"] += self._found.gpus.get_total_energy_consumption(index)
        return {kind: round(energy * MICROJOULES_PER_MILLIJOULE) for kind, energy in energy_mj.items()}


def _find(request: MeterRequest) -> Found:
    with _quiet():
        cpus, has_dram, cpu_problem = _cpus()
        gpus, gpu_problem = _gpus(request)
    logging.getLogger("zeus").setLevel(logging.CRITICAL)  # it logs what it lacks at each reading, too
    problems = tuple(problem for problem in (cpu_problem, gpu_problem) if problem)
    return Found(cpus=cpus, has_dram=has_dram, gpus=gpus, problems=problems)


def _cpus() -> tuple[Any, bool, str | None]:
    try:
        from zeus.device import get_cpus

        cpus = get_cpus()
        has_dram = any(cpus.supports_get_dram_energy_consumption(index) for index in range(len(cpus)))
    except Exception as error:  # noqa: BLE001 - a file, a library, a daemon: each has errors of its own
        return None, False, f"no CPU: {_told(error)}"
    return (cpus, has_dram, None) if len(cpus) else (None, False, "no CPU: Zeus finds no RAPL zone")


def _gpus(request: MeterRequest) -> tuple[Any, str | None]:
    if not (request.gpu_uuids or request.uses_visible_gpus):
        return None, "no GPU: none is in use"
    try:
        from zeus.device import get_gpus

        gpus = get_gpus()
        if not all(gpus.supports_get_total_energy_consumption(index) for index in range(len(gpus))):
            return None, "no GPU: one has no energy counter, and Zeus would poll its power from another process"
    # A UUID in CUDA_VISIBLE_DEVICES is a ValueError of Zeus 0.16.
    except Exception as error:  # noqa: BLE001 - as above
        return None, f"no GPU: {_told(error)}"
    return (gpus, None) if len(gpus) else (None, "no GPU: Zeus finds none")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Importing Zeus imports AMD's library, which prints where it is not whole; Zeus itself logs what it lacks.

    It silences the whole process, so it is for that alone: later the program prints and logs from other threads.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
