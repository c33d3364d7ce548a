"""Grams of CO2-equivalent as an integral: the power of each charge times the factor of its time.

Energy without a factor is never counted as zero grams: it is reported beside them.
"""

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from greensv.units import carbon_g, format_duration, j_from_uj


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorSpan:
    """A factor and the period it is for: a row of the ledger's series. Times in UTC epoch seconds."""

    source: str
    """The carbon source's name."""
    region: str
    method: str
    """life-cycle or direct; `unknown` where a source failed that does not say in advance."""
    valid_from: float
    valid_to: float
    """Exclusive."""
    g_per_kwh: float | None
    """None: the source failed for this period."""
    is_estimated: bool
    provenance: str
    """Where the factor comes from, or why there is none."""
    fetched_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeSpan:
    """Energy that was charged, and when. Its power is taken as constant over the period."""

    account: str
    purpose: str
    trial_number: int | None
    started_at: float
    ended_at: float
    energy_uj: int
    """PUE and what exceeded the cap included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonFigure:
    """The carbon of some charges, and how much of them it covers."""

    covered_g: float
    """Grams of CO2-equivalent of the energy that has a factor."""
    energy_j: float
    """All of it, PUE included."""
    uncovered_j: float
    """The part for whose time there is no factor."""
    duration_s: float
    """Time in which anything was charged; charges at the same time count once."""
    uncovered_s: float
    estimated_j: float
    """The part whose factor was modelled by the source, or held over from the time before."""
    lowest_g_per_kwh: float | None
    highest_g_per_kwh: float | None
    provenance: tuple[str, ...]

    @property
    def carbon_g(self) -> float | None:
        """Grams of what is covered; None where energy was charged and none of it has a factor."""
        return None if self.uncovered_j > 0 and self.uncovered_j >= self.energy_j else self.covered_g

    @property
    def is_complete(self) -> bool:
        """Whether every charge has its factor."""
        return self.uncovered_j == 0

    @property
    def mean_g_per_kwh(self) -> float | None:
        """The mean factor, weighted by energy."""
        covered_j = self.energy_j - self.uncovered_j
        return self.covered_g / carbon_g(covered_j, 1.0) if covered_j > 0 else None

    @property
    def gap(self) -> str:
        """Says what is missing, such as `carbon incomplete: 12 min 0 s of 30 min 0 s have no factor`; empty if none."""
        if self.is_complete:
            return ""
        missing, whole = format_duration(self.uncovered_s), format_duration(self.duration_s)
        return f"carbon incomplete: {missing} of {whole} have no factor"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridCarbon:
    """The carbon of some charges in one grid, by one source."""

    source: str
    """The carbon source's name."""
    region: str
    method: str
    figure: CarbonFigure


class FactorSeries:
    """A step function of time, made of spans that may overlap: the one fetched last counts, as far as it has a figure.

    So what was held over or estimated gives way to what the source published later.
    """

    def __init__(self, spans: Iterable[FactorSpan]) -> None:
        """Takes spans of one source, region and method, in any order; those without a figure cover nothing."""
        self.spans = _flattened([span for span in spans if span.g_per_kwh is not None])
        self._starts = [start for start, _, _ in self.spans]

    def figure(self, charges: Iterable[ChargeSpan]) -> CarbonFigure:
        """Returns the carbon of charges: Σ of energy × share of its time × factor of that time.

        A charge without a duration has the factor of its moment.
        """
        charged = list(charges)
        grams = energy_j = covered_j = estimated_j = 0.0
        used: dict[int, FactorSpan] = {}
        uncovered = [0.0]
        for charge in charged:
            charge_j, duration_s = j_from_uj(charge.energy_uj), charge.ended_at - charge.started_at
            energy_j += charge_j
            covered_s = 0.0
            for seconds, span in self._parts(charge.started_at, charge.ended_at):
                part_j = charge_j * (seconds / duration_s if duration_s > 0 else 1.0)
                covered_s += seconds
                grams += carbon_g(part_j, span.g_per_kwh or 0.0)
                covered_j += part_j
                estimated_j += part_j if span.is_estimated else 0.0
                used[id(span)] = span
            # Not `energy - covered`: a sum of rounded parts is never quite the whole.
            missing = 1.0 - covered_s / duration_s if duration_s > 0 else float(not self._parts_at(charge.started_at))
            uncovered.append(charge_j * missing if missing > 1e-9 else 0.0)
        whole = merged((c.started_at, c.ended_at) for c in charged)
        duration_s = sum(end - start for start, end in whole)
        uncovered_s = duration_s - sum(seconds for start, end in whole for seconds, _ in self._parts(start, end))
        factors = [span.g_per_kwh for span in used.values() if span.g_per_kwh is not None]
        return CarbonFigure(
            covered_g=grams,
            energy_j=energy_j,
            uncovered_j=sum(uncovered),
            duration_s=duration_s,
            uncovered_s=max(0.0, uncovered_s),
            estimated_j=estimated_j,
            lowest_g_per_kwh=min(factors, default=None),
            highest_g_per_kwh=max(factors, default=None),
            provenance=tuple(dict.fromkeys(span.provenance for span in used.values())),
        )

    def says(self, other: FactorSpan) -> bool:
        """Whether the series gives the same factor, for the same reason, all the time of another span."""
        parts = self._parts(other.valid_from, other.valid_to)
        same = all(
            (span.g_per_kwh, span.is_estimated, span.provenance, span.method)
            == (other.g_per_kwh, other.is_estimated, other.provenance, other.method)
            for _, span in parts
        )
        return same and not self.gaps([(other.valid_from, other.valid_to)])

    def gaps(
        self, periods: Iterable[tuple[float, float]], *, with_estimated: bool = False
    ) -> list[tuple[float, float]]:
        """Returns the parts of the periods that no factor covers, or that only an estimated one does."""
        found = []
        for start, end in merged(periods):
            at = start
            for left, right, span in self.spans[self._first(start) :]:
                if left >= end:
                    break
                if span.is_estimated and with_estimated:
                    continue
                if left > at:
                    found.append((at, left))
                at = max(at, right)
            if at < end:
                found.append((at, end))
        return found

    def _first(self, at: float) -> int:
        """Index of the first span that ends after `at`."""
        index = max(0, bisect_right(self._starts, at) - 1)
        return index + 1 if index < len(self.spans) and self.spans[index][1] <= at else index

    def _parts(self, start: float, end: float) -> list[tuple[float, FactorSpan]]:
        """Returns the covered parts of a period: seconds and the span they lie in. A moment is one part of 0 s."""
        if end <= start:
            return self._parts_at(start)
        parts = []
        for index in range(self._first(start), len(self.spans)):
            left, right, span = self.spans[index]
            if left >= end:
                break
            parts.append((min(right, end) - max(left, start), span))
        return parts

    def _parts_at(self, at: float) -> list[tuple[float, FactorSpan]]:
        index = self._first(at)
        return [(0.0, self.spans[index][2])] if index < len(self.spans) and self.spans[index][0] <= at else []


def merged(periods: Iterable[tuple[float, float]], *, slack_s: float = 0.0) -> list[tuple[float, float]]:
    """Returns the union of periods, in order; gaps of at most `slack_s` seconds between them are closed."""
    found: list[tuple[float, float]] = []
    for start, end in sorted(periods):
        if found and start <= found[-1][1] + slack_s:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _flattened(spans: Sequence[FactorSpan]) -> list[tuple[float, float, FactorSpan]]:
    """Returns (start, end, span) without overlaps, in order: in each place the span fetched last, then the last one."""
    edges = sorted({edge for span in spans for edge in (span.valid_from, span.valid_to)})
    by_start = sorted(enumerate(spans), key=lambda item: item[1].valid_from)
    pieces: list[tuple[float, float, FactorSpan]] = []
    current: list[tuple[float, int, FactorSpan]] = []  # a heap: the one that counts is on top
    following = 0
    for left, right in pairwise(edges):
        while following < len(by_start) and by_start[following][1].valid_from <= left:
            index, span = by_start[following]
            heapq.heappush(current, (-span.fetched_at, -index, span))
            following += 1
        while current and current[0][2].valid_to <= left:
            heapq.heappop(current)
        if not current:
            continue
        top = current[0][2]
        if pieces and pieces[-1][2] is top and pieces[-1][1] == left:
            pieces[-1] = (pieces[-1][0], right, top)
        else:
            pieces.append((left, right, top))
    return pieces
