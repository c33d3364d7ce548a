"""How much of the objective space a set of networks dominates: exact for two and for three objectives."""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greensv.search.simulation.problem import Problem
from greensv.search.simulation.space import search_space

NUM_POINTS = 40_000
"""Random points by which the best possible front is estimated."""
NUM_FOR_REFERENCE = 1_000
BEYOND_WORST = 1.1


def hypervolume(points: NDArray[np.float64], reference: Sequence[float]) -> float:
    """Returns the volume between a set of points and the reference that at least one of them dominates.

    Args:
        points: (n, 2) or (n, 3), all minimised; those that are not below the reference in every column add nothing.
        reference: one value per column.
    """
    bound = np.asarray(reference, dtype=np.float64)
    inside = points[np.all(points < bound, axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 2:
        return _area(inside, bound)
    return _volume(inside, bound)


def _area(points: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    area, top = 0.0, float(bound[1])
    for x, y in points[np.lexsort((points[:, 1], points[:, 0]))].tolist():
        if y < top:
            area += (float(bound[0]) - x) * (top - y)
            top = y
    return area


def _volume(points: NDArray[np.float64], bound: NDArray[np.float64]) -> float:
    """Slices along the last column: between two of its values, the area of all points at or below it counts."""
    ordered = points[np.argsort(points[:, 2], kind="stable")]
    depths = np.append(ordered[1:, 2], bound[2]) - ordered[:, 2]
    staircase: list[tuple[float, float]] = []  # non-dominated in the first two columns, by the first
    volume = 0.0
    for point, depth in zip(ordered[:, :2].tolist(), depths.tolist(), strict=True):
        x, y = point
        if not any(a <= x and b <= y for a, b in staircase):
            staircase = [(a, b) for a, b in staircase if not (x <= a and y <= b)]
            insort(staircase, (x, y))
        if depth > 0:
            volume += depth * _area(np.array(staircase), bound[:2])
    return volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What fronts of one problem are measured by: EER as it is, energy by its natural logarithm."""

    reference: tuple[float, float]
    """(EER, kWh) beyond which a point adds nothing."""
    best: float
    """The hypervolume of the true front of all points drawn, about the largest that any method can reach."""

    def fraction(self, true_points: Sequence[tuple[float, float]]) -> float:
        """Returns the hypervolume of (EER, kWh) points as a fraction of the best."""
        return _hypervolume(true_points, self.reference) / self.best


def scale_of(problem: Problem, *, num_points: int = NUM_POINTS) -> Scale:
    """Returns a problem's scale, its best front estimated by random points and its seeds."""
    random_points = drawn(problem, num_points, seed=0)
    reference = problem.reference()
    truths = [problem.truth(params) for params in [*problem.seeds(), *random_points]]
    return Scale(reference=reference, best=_hypervolume(truths, reference))


def worst_of_random(problem: Problem, *, num_points: int = NUM_FOR_REFERENCE) -> tuple[float, float]:
    """Returns (EER, kWh) a tenth beyond the worst of random points."""
    truths = np.array([problem.truth(params) for params in drawn(problem, num_points, seed=1)], dtype=np.float64)
    eer, energy_kwh = truths.max(axis=0).tolist()
    return BEYOND_WORST * eer, BEYOND_WORST * energy_kwh


def drawn(problem: Problem, num: int, *, seed: int) -> list[dict[str, int | float | str]]:
    """Returns different random points of a problem's space: `num`, or fewer where drawing so many found no more."""
    space, random = search_space(problem), np.random.default_rng(seed)
    points = [dict(space.draw(random).params) for _ in range(num)]
    return list({tuple(point.items()): point for point in points}.values())


def _hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    if not points:
        return 0.0
    scaled = np.array([(eer, math.log(energy_kwh)) for eer, energy_kwh in points], dtype=np.float64)
    return hypervolume(scaled, (reference[0], math.log(reference[1])))
