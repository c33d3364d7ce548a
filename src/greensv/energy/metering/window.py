"""Energy windows: the joules between two moments."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from greensv.energy.metering.reading import Reading, total_uncertainty_j
from greensv.energy.metering.tally import Tally, TallyEdge
from greensv.errors import MeterError

COVERAGE_FACTOR = 1.96
"""Standard uncertainties either way that hold the truth in 95 of 100 cases, the errors being normal (GUM, 6.3.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyWindow:
    """The energy between two moments, by domain. `notes` says what went wrong with the meters meanwhile."""

    name: str
    started_at: datetime
    duration_s: float
    readings: tuple[Reading, ...]
    """What is charged, each joule once."""
    others: tuple[Reading, ...] = ()
    """What was read beside it and is in no sum: parts of a node, and meters to compare with."""
    notes: tuple[str, ...] = ()

    @property
    def energy_j(self) -> float:
        """The joules of all domains together."""
        return sum(reading.energy_j for reading in self.readings)

    @property
    def uncertainty_j(self) -> float:
        """The standard uncertainty of `energy_j`, in joules."""
        return total_uncertainty_j(self.readings)

    @property
    def interval_j(self) -> tuple[float, float]:
        """The 95 % interval of the energy, in joules."""
        half_j = COVERAGE_FACTOR * self.uncertainty_j
        return max(0.0, self.energy_j - half_j), self.energy_j + half_j

    @property
    def resolution_s(self) -> float:
        """How often the slowest of its counters and sensors changes, in seconds. Make windows 200 times as long."""
        return max((reading.resolution_s for reading in self.readings), default=0.0)


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
    at_s: float
    tallies: tuple[TallyEdge, ...]
    num_notes: int


def window_between(
    name: str, edge: Edge, tallies: Sequence[Tally], *, now_s: float, notes: Sequence[str]
) -> EnergyWindow:
    """Returns the window from an edge to now, the meters having been read just before.

    Args:
        name: the window's.
        edge: what was known when it opened.
        tallies: the meters, in the edge's order.
        now_s: the moment, on the clock of the edge.
        notes: what went wrong with the meters since it opened.

    Raises:
        MeterError: a meter whose joules are charged cannot tell those of the window.
    """
    readings: list[Reading] = []
    noted = list(notes)
    for tally, opening in zip(tallies, edge.tallies, strict=True):
        try:
            if tally.meter.is_charged and tally.problem is not None:
                raise MeterError(tally.problem) from tally.failure
            found, held = tally.since(opening, now_s)
        except MeterError as error:
            if tally.meter.is_charged:
                known_j = tally.known_since(opening)
                raise MeterError(f"energy window {name!r}: {error}; it had read {known_j:.6g} J by then") from error
            noted.append(f"left out of the window: {error}")
        else:
            readings += found
            noted += held
    return EnergyWindow(
        name=name,
        started_at=edge.started_at,
        duration_s=now_s - edge.at_s,
        readings=tuple(reading for reading in readings if reading.role == "charged"),
        others=tuple(reading for reading in readings if reading.role != "charged"),
        notes=tuple(dict.fromkeys(noted)),
    )
