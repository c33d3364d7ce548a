"""Turns the monitor's running totals into charges: what each domain used since the last one, for one use at a time."""

import logging
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from greensv.energy.books.budget import Charge, Lease, Purpose
from greensv.energy.meter import Domain, Quality
from greensv.energy.metering.tally import Reading
from greensv.units import uj_from_j

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What energy is used for, and the lease that pays for it; None: the lease in force when it is written, if any."""

    lease: Lease | None
    purpose: Purpose
    trial_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    meter: str
    domain: Domain
    quality: Quality = field(compare=False)  # it becomes "attributed" when others come to share the domain


class Accrual:
    """What has been used and not yet been made a charge. For one thread at a time: the charger holds its lock.

    Args:
        pue: every charge is multiplied by it.
        clock: the monotonic clock, in seconds.
    """

    def __init__(self, *, pue: float, clock: Callable[[], float]) -> None:
        self._pue = pue
        self._clock = clock
        self._epoch_s = time.time() - clock()
        self._begun_s = self._added_at_s = clock()
        self._process_began_s: dict[str, float] = {}
        self._since_s: dict[_Source, float] = {}
        self._first_s: float | None = None
        self._first_j: dict[_Source, float] = {}
        self._seen_j: dict[_Source, float] = {}
        self._pending_j: dict[_Source, float] = {}
        self._scale_uncertainty: dict[_Source, float] = {}

    @property
    def pending_uj(self) -> int:
        """What is not yet a charge, PUE included."""
        return uj_from_j(sum(self._pending_j.values()) * self._pue)

    @property
    def observed_s(self) -> float:
        """Seconds since the first totals were added; 0 before."""
        return 0.0 if self._first_s is None else self._clock() - self._first_s

    @property
    def age_s(self) -> float:
        """Seconds since the latest totals were added: what was used since is in no charge yet."""
        return self._clock() - self._added_at_s

    def add(self, readings: Sequence[Reading]) -> None:
        """Adds what is new in the totals. Totals only grow: older ones, overtaken by another thread's, add nothing."""
        by_source = {_Source(meter=r.meter, domain=r.domain, quality=r.quality): r for r in readings}
        totals_j = {source: reading.energy_j for source, reading in by_source.items()}
        for source, reading in by_source.items():
            if reading.energy_j > 0:
                self._scale_uncertainty[source] = reading.scale_uncertainty_j / reading.energy_j
        self._added_at_s = self._clock()
        if self._first_s is None:
            self._first_s = self._added_at_s
            self._first_j = totals_j
        for source, total_j in totals_j.items():
            new_j = total_j - self._seen_j.get(source, 0.0)
            if new_j > 0:
                self._seen_j[source] = total_j
                self._pending_j[source] = self._pending_j.get(source, 0.0) + new_j

    def take(self, use: Use) -> list[Charge]:
        """Returns what is pending as charges for `use`, one per domain, and starts anew.

        A charge covers the time since the one before it of the same domain: a counter that changes less often than
        charges are taken is in some of them alone.

        Their uncertainty is the scale of the meter alone: what one charge misses at an edge is in the one beside it.
        """
        charges = [
            self._charge(
                use,
                source,
                energy_j,
                uncertainty_j=self._scale_uncertainty.get(source, 0.0) * energy_j,
                from_s=self._from_s(source),
                to_s=self._added_at_s,
            )
            for source, energy_j in self._pending_j.items()
        ]
        self._since_s |= dict.fromkeys(self._pending_j, self._added_at_s)
        self._pending_j.clear()
        return charges

    def count_from(self, began_s: float, meters: Collection[str]) -> None:
        """Takes the totals of `meters` for those since `began_s`, on the clock, rather than since this was made."""
        self._process_began_s |= dict.fromkeys(meters, began_s)

    def startup(self, duration_s: float, *, counted_meters: Collection[str]) -> list[Charge]:
        """Returns charges for the time before the first totals: `duration_s` at the mean power seen since.

        That power may have been anything from none to twice as much: a rectangular distribution, beside the scale.

        What has shown no energy yet is left out, and logged.

        Args:
            duration_s: seconds from the start of the process to the first totals.
            counted_meters: meters whose totals hold that energy already.
        """
        if self._first_s is None or self.observed_s <= 0:
            return []
        use = Use(lease=None, purpose="startup", trial_number=None)
        charges = []
        for source, first_j in self._first_j.items():
            if source.meter in counted_meters:
                continue
            energy_j = self._seen_j.get(source, 0.0) - first_j
            if energy_j <= 0:
                logger.warning(
                    "meter %r showed no energy of %s in its first %.3g s: the %.3g s from the start of this process to "
                    "then cannot be worked out, and are not charged",
                    *(source.meter, source.domain, self.observed_s, duration_s),
                )
                continue
            # Not measured then, but worked out from a measurement; an estimate stays an estimate.
            quality: Quality = "estimated" if source.quality == "estimated" else "attributed"
            startup_j = energy_j / self.observed_s * duration_s
            before = replace(source, quality=quality)
            from_s = self._first_s - duration_s
            uncertainty_j = startup_j * math.hypot(self._scale_uncertainty.get(source, 0.0), 1 / math.sqrt(3))
            charges.append(
                self._charge(use, before, startup_j, uncertainty_j=uncertainty_j, from_s=from_s, to_s=self._first_s)
            )
        return charges

    def _from_s(self, source: _Source) -> float:
        return self._since_s.get(source, self._process_began_s.get(source.meter, self._begun_s))

    def _charge(
        self, use: Use, source: _Source, energy_j: float, *, uncertainty_j: float, from_s: float, to_s: float
    ) -> Charge:
        return Charge(
            purpose=use.purpose,
            trial_number=use.trial_number,
            started_at=self._epoch_s + from_s,
            ended_at=self._epoch_s + to_s,
            meter=source.meter,
            domain=str(source.domain),
            quality=source.quality,
            energy_uj=uj_from_j(energy_j * self._pue),
            pue=self._pue,
            uncertainty_uj=uj_from_j(uncertainty_j * self._pue),
        )
