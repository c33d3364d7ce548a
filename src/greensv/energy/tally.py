"""The running joules of one open meter, by domain."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from greensv.energy.meter import Availability, CounterSample, Domain, MeterSession, PowerSample, Quality, Role, Sample
from greensv.energy.unwrap import counter_step_j, power_step_j, sample_problem
from greensv.errors import MeterError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The energy of one domain, and the meter and quality it was read with."""

    domain: Domain
    meter: str
    quality: Quality
    energy_j: float
    uncertainty_j: float = 0.0
    """Standard uncertainty in joules: the meter's scale, the edges of the interval, what was missed between samples."""
    role: Role = "charged"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMeter:
    """A meter that has been opened, and what it said it can measure."""

    name: str
    quality: Quality
    session: MeterSession
    availability: Availability
    roles: Mapping[Domain, Role] = field(default_factory=dict)
    """What each domain's joules are for; `charged` where none is given."""
    gains: Mapping[Domain, float] = field(default_factory=dict)
    """What each domain's readings are multiplied by, from a comparison with a better meter; 1 where none is given."""


class Tally:
    """Reads one open meter and adds up its joules by domain. For one thread at a time: the monitor holds its lock.

    Args:
        meter: the open meter.
        gap_s: a stretch without readings that long is noted where power was integrated across it.
        max_failures: that many failing reads in a row are a `problem`.
    """

    def __init__(self, meter: OpenMeter, *, gap_s: float, max_failures: int) -> None:
        self.meter = meter
        self._gap_s = gap_s
        self._max_failures = max_failures
        self._energy_j = dict.fromkeys(meter.availability.domains, 0.0)
        self._last: dict[Domain, Sample] = {}
        self._fault: str | None = None
        self._num_failures = 0
        self._last_failure: MeterError | None = None

    @property
    def problem(self) -> str | None:
        """Why the totals cannot be trusted: a counter lost energy, or the meter keeps failing. None when they can."""
        if self._fault is not None:
            return self._fault
        if self._num_failures >= self._max_failures:
            return f"meter {self.meter.name!r} failed {self._num_failures} times in a row: {self._last_failure}"
        return None

    @property
    def failure(self) -> MeterError | None:
        """Why the latest read failed; None when it succeeded."""
        return self._last_failure

    def readings(self) -> tuple[Reading, ...]:
        """Returns the joules so far."""
        meter = self.meter
        return tuple(
            Reading(domain=domain, meter=meter.name, quality=meter.quality, energy_j=energy_j)
            for domain, energy_j in self._energy_j.items()
        )

    def poll(self) -> list[str]:
        """Reads the meter once; returns what is to be noted. A failing read is noted and made up for by the next."""
        try:
            samples = self._read()
        except MeterError as error:
            return self._failed(error)
        notes = []
        if self._num_failures:
            notes.append(f"meter {self.meter.name!r} reads again after {self._num_failures} failing reads")
        self._num_failures, self._last_failure = 0, None
        for sample in samples:
            notes += self._absorb(sample)
        return notes

    def _read(self) -> Sequence[Sample]:
        name = self.meter.name
        try:
            samples = self.meter.session.read()
        except MeterError:
            raise
        except Exception as error:
            raise MeterError(f"meter {name!r} could not be read ({type(error).__name__}: {error})") from error
        domains = [sample.domain for sample in samples]
        if sorted(domains) != sorted(self._energy_j):
            found, announced = ", ".join(map(str, domains)) or "nothing", ", ".join(map(str, self._energy_j))
            raise MeterError(f"meter {name!r} reported {found} instead of {announced}")
        for sample in samples:
            if problem := sample_problem(sample):
                raise MeterError(f"meter {name!r}: {problem}")
        return samples

    def _failed(self, error: MeterError) -> list[str]:
        self._num_failures += 1
        self._last_failure = error
        if self._num_failures > 1:
            return []
        logger.warning("a read failed: %s", error)
        return [f"a read failed: {error}"]

    def _absorb(self, sample: Sample) -> list[str]:
        before = self._last.get(sample.domain)
        self._last[sample.domain] = sample
        if before is None:
            if isinstance(sample, CounterSample) and self.meter.availability.since_process_start:
                self._energy_j[sample.domain] = sample.count * sample.unit_j
            return []
        try:
            energy_j, notes = self._step(before, sample)
        except MeterError as error:
            self._fault = f"meter {self.meter.name!r}: {error}"
            logger.error("%s", self._fault)
            return [self._fault]
        self._energy_j[sample.domain] += energy_j
        return notes

    def _step(self, before: Sample, now: Sample) -> tuple[float, list[str]]:
        interval_s = now.taken_at_s - before.taken_at_s
        if interval_s < 0:
            raise MeterError(
                f"{now.domain}: a reading is {-interval_s:.3g} s older than the one before it; fix that meter"
            )
        match before, now:
            case CounterSample(), CounterSample():
                about = self.meter.availability
                step_j = counter_step_j(before, now, max_power_w=about.max_power_w, resolution_s=about.resolution_s)
                return step_j, []
            case PowerSample(), PowerSample():
                gap = f"{now.domain}: no reading for {interval_s:.3g} s; its power was interpolated"
                return power_step_j(before, now), [gap] if interval_s > self._gap_s else []
        raise MeterError(f"{now.domain}: the meter changed from counting energy to reporting power; fix that meter")
