"""Energy windows: the joules between two moments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from greensv.energy.meter import Domain
from greensv.energy.tally import Reading
from greensv.errors import MeterError


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyWindow:
    """The energy between two moments, by domain. `notes` says what went wrong with the meters meanwhile."""

    name: str
    started_at: datetime
    duration_s: float
    readings: tuple[Reading, ...]
    notes: tuple[str, ...] = ()

    @property
    def energy_j(self) -> float:
        """The joules of all domains together."""
        return sum(reading.energy_j for reading in self.readings)


class Window:
    """A window that is open; `result` once it is closed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._result: EnergyWindow | None = None

    @property
    def result(self) -> EnergyWindow:
        """The window's energy.

        Raises:
            MeterError: the window is still open, or was left by an exception while its meters could not be read.
        """
        if self._result is None:
            raise MeterError(f"energy window {self.name!r} has no result: it was not closed")
        return self._result

    def close(self, result: EnergyWindow) -> None:
        """Sets the result; the monitor calls this."""
        self._result = result


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What is known when a window opens."""

    started_at: datetime
    opened_at_s: float
    readings: tuple[Reading, ...]
    num_polls: tuple[int, ...]
    num_notes: int


def difference(before: Sequence[Reading], now: Sequence[Reading]) -> tuple[Reading, ...]:
    """Returns `now` less `before`, domain by domain; both name the same domains of the same meters."""
    start_j: dict[tuple[str, Domain], float] = {(r.meter, r.domain): r.energy_j for r in before}
    return tuple(
        Reading(domain=r.domain, meter=r.meter, quality=r.quality, energy_j=r.energy_j - start_j[r.meter, r.domain])
        for r in now
    )
