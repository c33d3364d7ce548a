"""The running joules of one open meter, by domain."""

import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from greensv.energy.meter import Sample
from greensv.energy.metering.domain_tally import DomainEdge, DomainTally
from greensv.energy.metering.reading import OpenMeter, Reading
from greensv.energy.metering.unwrap import sample_problem
from greensv.errors import MeterError

__all__ = ["OpenMeter", "Reading", "Tally", "TallyEdge"]

logger = logging.getLogger(__name__)

EDGE_PAUSES_S = (0.0, 0.001, 0.004)
"""Before each further try of a read at the edge of a window. What disturbs it may last longer than a read takes."""
GAP_INTERVALS = 3
"""Power not read for that many intervals is a gap."""
RERUN = "the books cannot be closed with it; run the same command again to continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyEdge:
    """What is known of a meter's domains when a window opens."""

    at_s: float
    domains: tuple[DomainEdge | None, ...]
    """In the order of the meter's domains; None for one not read yet."""
    energies_j: tuple[float, ...]
    num_good_reads: int
    num_faults: int


class Tally:
    """Reads one open meter and adds up its joules by domain. For one thread at a time: the monitor holds its lock.

    Args:
        meter: the open meter.
        interval_s: seconds between two readings.
        max_failures: that many failing reads in a row are a `problem`.
    """

    def __init__(self, meter: OpenMeter, *, interval_s: float, max_failures: int) -> None:
        self.meter = meter
        self._max_failures = max_failures
        about = meter.availability
        gap_s = GAP_INTERVALS * max(interval_s, about.poll_interval_s or 0.0, about.resolution_s)
        self._domains = {
            domain: DomainTally(domain, meter, interval_s=interval_s, gap_s=gap_s) for domain in about.domains
        }
        self._fault: str | None = None
        self._num_faults = 0
        self._num_good_reads = 0
        self._num_failures = 0
        self._last_failure: MeterError | None = None

    @property
    def problem(self) -> str | None:
        """Why the totals cannot be trusted: a counter lost energy, or the meter keeps failing. None when they can."""
        return self._fault or self._failing

    @property
    def _failing(self) -> str | None:
        if self._num_failures < self._max_failures:
            return None
        return f"meter {self.meter.name!r} failed {self._num_failures} times in a row: {self._last_failure}"

    @property
    def failure(self) -> MeterError | None:
        """Why the latest read failed; None when it succeeded."""
        return self._last_failure

    def readings(self) -> tuple[Reading, ...]:
        """Returns the joules so far."""
        return tuple(domain.total() for domain in self._domains.values())

    def edge(self, now_s: float) -> TallyEdge:
        """Returns what a window that opens at `now_s` is to remember."""
        is_unread = self._last_failure is not None
        return TallyEdge(
            at_s=now_s,
            domains=tuple(domain.edge(now_s, is_unread=is_unread) for domain in self._domains.values()),
            energies_j=tuple(domain.energy_j for domain in self._domains.values()),
            num_good_reads=self._num_good_reads,
            num_faults=self._num_faults,
        )

    def known_since(self, opening: TallyEdge) -> float:
        """Returns the joules read since a window opened, whatever went wrong."""
        return sum(domain.energy_j for domain in self._domains.values()) - sum(opening.energies_j)

    def since(self, opening: TallyEdge, now_s: float) -> tuple[tuple[Reading, ...], tuple[str, ...]]:
        """Returns the joules from `opening` to `now_s`, and what is to be noted of them.

        Raises:
            MeterError: the meter was not read, or lost energy, so that they are unknown.
        """
        name = self.meter.name
        if self._num_good_reads == opening.num_good_reads:
            raise MeterError(f"meter {name!r} was not read in it: {self._last_failure or 'the monitor has stopped'}")
        lost = self._fault if self._num_faults > opening.num_faults else self._failing
        if lost is not None:
            raise MeterError(lost) from self._last_failure
        closing = self.edge(now_s)
        readings, notes = [], []
        for domain, before, now in zip(self._domains.values(), opening.domains, closing.domains, strict=True):
            if before is None or now is None:
                raise MeterError(f"meter {name!r} could not be read when it opened")
            readings.append(domain.between(before, now, duration_s=now_s - opening.at_s))
            notes += [
                f"{domain.domain}: not read for {edge.held_s:.3g} s at the window's {which}; its power was held"
                for which, edge in (("start", before), ("end", now))
                if edge.held_s > 0
            ]
        return tuple(readings), tuple(notes)

    def poll(self) -> list[str]:
        """Reads the meter once; returns what is to be noted. A failing read is noted and made up for by the next."""
        try:
            return self._succeeded(*self._read())
        except MeterError as error:
            return self._failed(error)

    def retry(self) -> list[str]:
        """Reads the meter again whose latest `poll` failed. One that fails again counts as the same failure.

        Nothing is done where it was read in the meantime, as at the edge of a window.
        """
        if self._last_failure is None:
            return []
        try:
            return self._succeeded(*self._read())
        except MeterError as error:
            self._last_failure = error
            return []

    def poll_edge(self) -> list[str]:
        """As `poll` for the edge of a window, which no later read makes up for: one that fails is tried again thrice.

        Not where the meter is given up already: trying may take its time.
        """
        if self.problem is None:
            for pause_s in EDGE_PAUSES_S:
                with suppress(MeterError):
                    return self._succeeded(*self._read())
                time.sleep(pause_s)
        return self.poll()

    def _succeeded(self, samples: Sequence[Sample], noted: Sequence[str]) -> list[str]:
        notes = []
        if self._num_failures:
            reads = "read" if self._num_failures == 1 else "reads"
            notes.append(f"meter {self.meter.name!r} reads again after {self._num_failures} failing {reads}")
        self._num_failures, self._last_failure = 0, None
        self._num_good_reads += 1
        notes += noted
        for sample in samples:
            notes += self._absorb(sample)
        return notes

    def _read(self) -> tuple[Sequence[Sample], Sequence[str]]:
        """Returns a sample of each domain and the session's notes. Whatever a meter raises is a `MeterError`."""
        try:
            samples = tuple(self.meter.session.read())
            self._refuse_impossible(samples)
            return samples, tuple(self.meter.session.notes())
        except MeterError:
            raise
        except Exception as error:
            name = self.meter.name
            raise MeterError(f"meter {name!r} could not be read ({type(error).__name__}: {error})") from error

    def _refuse_impossible(self, samples: Sequence[Sample]) -> None:
        name = self.meter.name
        domains = [sample.domain for sample in samples]
        if sorted(domains) != sorted(self._domains):
            found, announced = ", ".join(map(str, domains)) or "nothing", ", ".join(map(str, self._domains))
            raise MeterError(f"meter {name!r} reported {found} instead of {announced}")
        for sample in samples:
            if problem := sample_problem(sample):
                raise MeterError(f"meter {name!r}: {problem}")

    def _failed(self, error: MeterError) -> list[str]:
        self._num_failures += 1
        self._last_failure = error
        if self._num_failures > 1:
            return []
        logger.warning("a read failed: %s", error)
        return [f"a read failed: {error}"]

    def _absorb(self, sample: Sample) -> list[str]:
        try:
            return self._domains[sample.domain].add(sample)
        except MeterError as error:
            self._fault = f"meter {self.meter.name!r}: {error}"
            self._num_faults += 1
            if not self.meter.is_charged:
                logger.warning("%s", self._fault)
                return [self._fault]
            self._fault = f"{self._fault}; {RERUN}"
            logger.error("%s", self._fault)
            return [self._fault]
