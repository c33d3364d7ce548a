"""The meter `estimate`: a power model times measured CPU time, for machines that measure nothing.

    cpu  = min_w_per_cpu × allowed CPUs × wall time + (max_w_per_cpu - min_w_per_cpu) × CPU time
    dram = w_per_gb × memory available to the process × wall time

The coefficients are Cloud Carbon Footprint's averages for AWS (https://www.cloudcarbonfootprint.org/docs/methodology/,
Apache-2.0): 0.74 W and 3.5 W for a virtual CPU at rest and at full load, from the SPECpower database, and 0.392 W per
GB of memory, the mean of Crucial's 0.375 W and Micron's 0.4083 W. The SPECpower figures are of whole servers and
hold some memory, so that the sum errs on the high side.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, MinLen

from greensv.builtin.meters import machine
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
from greensv.units import MICROJOULES_PER_JOULE

GAIN_UNCERTAINTY = 0.5
RESOLUTION_S = 0.01
"""CPU times of other processes come in clock ticks."""
BYTES_PER_GB = 1e9
LEAVE_OUT = "other meters measure what it could"


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateOptions:
    """Options of the meter `estimate`."""

    min_w_per_cpu: Annotated[float, Ge(0)] = 0.74
    """Watts of one CPU (as the operating system counts them) at rest."""
    max_w_per_cpu: Annotated[float, Gt(0)] = 3.5
    """Watts of one CPU under full load."""
    w_per_gb: Annotated[float, Ge(0)] = 0.392
    """Watts of a gigabyte of memory."""
    num_cpus: Annotated[float, Gt(0)] | None = None
    """CPUs to count; None: as many as this process may keep busy."""
    memory_gb: Annotated[float, Gt(0)] | None = None
    """Gigabytes to count; None: the memory that is this process's to use."""
    kinds: Annotated[tuple[Literal["cpu", "dram"], ...], MinLen(1)] = ("cpu", "dram")
    """What to estimate, where another meter measures the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The power model, with the machine filled in."""

    rest_w: float
    """Of the CPUs, while they do nothing."""
    busy_w: float
    """More for each CPU that is busy."""
    dram_w: float

    def energy_j(self, kind: DomainKind, *, wall_s: float, cpu_s: float) -> float:
        """Returns the joules of `kind` for a wall time and a CPU time, both in seconds."""
        return self.dram_w * wall_s if kind == "dram" else self.rest_w * wall_s + self.busy_w * cpu_s


class EstimateMeter(Meter):
    """The share of the CPUs and of the memory that this process holds, from its start.

    The CPU time is that of the processes that torchrun started with it, too.
    """

    name: ClassVar[str] = "estimate"
    quality: ClassVar[Quality] = "estimated"
    options_type: ClassVar[type | None] = EstimateOptions

    def probe(self, request: MeterRequest) -> Availability:
        """Looks at what this process may use."""
        options = _options(request)
        kinds = _kinds(options, request)
        if not kinds:
            return Availability(reason=LEAVE_OUT, remedy="leave one of them out")
        try:
            model = _model(options)
            machine.process_age_s()
        except (OSError, ValueError, AttributeError) as error:
            return Availability(reason=f"no /proc as Linux has it ({error})", remedy="greensv measures on Linux only")
        watts = {
            "cpu": f"cpu: {model.rest_w:.3g} W, and {model.busy_w:.3g} W for each busy CPU",
            "dram": f"dram: {model.dram_w:.3g} W",
        }
        return Availability(
            domains=tuple(map(Domain, kinds)),
            resolution_s=RESOLUTION_S,
            gain_uncertainty=GAIN_UNCERTAINTY,
            counts_others=False,
            since_process_start=True,
            rest_power_w={Domain(kind): model.energy_j(kind, wall_s=1.0, cpu_s=0.0) for kind in kinds},
            notes=tuple(watts[kind] for kind in kinds),
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Fixes the model: a limit that changes later is not seen."""
        self.require(request)
        kinds = _kinds(_options(request), request)
        return EstimateSession(
            _model(_options(request)),
            kinds,
            age_s=machine.process_age_s(),
            cpu_time_s=partial(machine.cpu_time_s, request.process_ids),
        )


class EstimateSession(MeterSession):
    """Counts microjoules from the start of this process.

    Args:
        model: the power model.
        kinds: the domains to report.
        age_s: seconds since this process started.
        clock: the monotonic clock, in seconds.
        cpu_time_s: the CPU time of this process, of those that work with it, and of their children, in seconds.
    """

    def __init__(
        self,
        model: Model,
        kinds: Sequence[DomainKind],
        *,
        age_s: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_time_s: Callable[[], float] = machine.cpu_time_s,
    ) -> None:
        self._model = model
        self._kinds = kinds
        self._clock = clock
        self._started_at_s = clock() - age_s
        self._cpu_time_s = cpu_time_s
        self._most_cpu_s = 0.0

    def read(self) -> Sequence[CounterSample]:
        """Returns the counters in microjoules."""
        try:
            self._most_cpu_s = max(self._most_cpu_s, self._cpu_time_s())
        except (OSError, ValueError, IndexError) as error:
            raise MeterError(f"meter 'estimate': /proc cannot be read ({error})") from error
        now_s = self._clock()
        return [self._sample(kind, now_s) for kind in self._kinds]

    def _sample(self, kind: DomainKind, now_s: float) -> CounterSample:
        energy_j = self._model.energy_j(kind, wall_s=now_s - self._started_at_s, cpu_s=self._most_cpu_s)
        count = int(energy_j * MICROJOULES_PER_JOULE)
        return CounterSample(domain=Domain(kind), taken_at_s=now_s, count=count, unit_j=1 / MICROJOULES_PER_JOULE)


def _options(request: MeterRequest) -> EstimateOptions:
    return request.options or EstimateOptions()


def _kinds(options: EstimateOptions, request: MeterRequest) -> tuple[DomainKind, ...]:
    modelled: tuple[DomainKind, ...] = ("cpu", "dram")
    return tuple(kind for kind in modelled if kind in options.kinds and kind not in request.leave_out)


def _model(options: EstimateOptions) -> Model:
    num_cpus = options.num_cpus if options.num_cpus is not None else machine.allowed_cpus()
    memory_gb = options.memory_gb if options.memory_gb is not None else machine.available_memory_bytes() / BYTES_PER_GB
    return Model(
        rest_w=options.min_w_per_cpu * num_cpus,
        busy_w=max(0.0, options.max_w_per_cpu - options.min_w_per_cpu),
        dram_w=options.w_per_gb * memory_gb,
    )


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `estimate`."""
    return (EstimateMeter(),)
