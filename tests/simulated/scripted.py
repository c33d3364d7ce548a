"""A meter that reads what the test says, and a clock that shows what the test says."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

from greensv.energy.meter import (
    Availability,
    CounterSample,
    Domain,
    Meter,
    MeterRequest,
    MeterSession,
    PowerSample,
    Quality,
    Role,
    Sample,
)
from greensv.energy.metering.tally import OpenMeter
from greensv.errors import MeterError

CPU = Domain("cpu", "0")
NO_ROLES: Mapping[Domain, Role] = MappingProxyType({})
NO_GAINS: Mapping[Domain, float] = MappingProxyType({})


class ScriptedClock:
    """Stands still unless told to advance."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class ScriptedSession(MeterSession):
    """Reads what `samples` returns, or fails while `failure` is set."""

    def __init__(self, samples: Callable[[], Sequence[Sample]]) -> None:
        self.samples = samples
        self.failure: Exception | None = None
        self.num_reads = 0
        self.num_closed = 0

    def read(self) -> Sequence[Sample]:
        self.num_reads += 1
        if self.failure is not None:
            raise self.failure
        return self.samples()

    def close(self) -> None:
        self.num_closed += 1


class Counter:
    """A counter of microjoules that the test adds joules to; it wraps as the hardware's does."""

    def __init__(self, clock: ScriptedClock, *, domain: Domain = CPU, range_uj: int | None = None) -> None:
        self.count_uj = 0
        self._clock = clock
        self._domain = domain
        self._range_uj = range_uj

    def add(self, energy_j: float) -> None:
        self.count_uj += round(energy_j * 1e6)
        if self._range_uj is not None:
            self.count_uj %= self._range_uj

    def samples(self) -> Sequence[Sample]:
        return [
            CounterSample(
                domain=self._domain,
                taken_at_s=self._clock(),
                count=self.count_uj,
                unit_j=1e-6,
                range_count=self._range_uj,
            )
        ]


class Gauge:
    """A power in watts that the test sets."""

    def __init__(self, clock: ScriptedClock, *, domain: Domain = CPU) -> None:
        self.power_w = 0.0
        self._clock = clock
        self._domain = domain

    def samples(self) -> Sequence[Sample]:
        return [PowerSample(domain=self._domain, taken_at_s=self._clock(), power_w=self.power_w)]


def open_scripted(
    session: MeterSession,
    *,
    name: str = "scripted",
    domains: Sequence[Domain] = (CPU,),
    roles: Mapping[Domain, Role] = NO_ROLES,
    gains: Mapping[Domain, float] = NO_GAINS,
    **about: Any,
) -> OpenMeter:
    """Opens a session as a meter; `about` are fields of its availability."""
    availability = Availability(domains=tuple(domains), **{"max_power_w": 1000.0, **about})
    return OpenMeter(
        name=name, quality="measured", session=session, availability=availability, roles=roles, gains=gains
    )


class ScriptedMeter(Meter):
    """Announces the given domains, less those to be left out, and reads 0 W; or is unavailable for a reason."""

    name: ClassVar[str] = "scripted"
    quality: ClassVar[Quality] = "measured"

    def __init__(
        self, name: str, *domains: Domain, reason: str | None = None, quality: Quality = "measured", fails: bool = False
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.quality = quality  # type: ignore[misc]
        self._domains = domains
        self._reason = reason
        self._fails = fails
        self.sessions: list[ScriptedSession] = []
        self.requests: list[MeterRequest] = []

    def probe(self, request: MeterRequest) -> Availability:
        self.requests.append(request)
        if self._reason is not None:
            return Availability(reason=self._reason, remedy=f"mend {self.name}")
        domains = tuple(domain for domain in self._domains if domain.kind not in request.leave_out)
        return Availability(domains=domains) if domains else Availability(reason="nothing left", remedy="none")

    def open(self, request: MeterRequest) -> MeterSession:
        if self._fails:
            raise MeterError(f"{self.name} broke while it was opened")
        domains = self.probe(request).domains
        session = ScriptedSession(lambda: [PowerSample(domain=d, taken_at_s=0.0, power_w=0.0) for d in domains])
        self.sessions.append(session)
        return session
