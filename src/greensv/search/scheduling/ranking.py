"""Which of several candidates are better: ranks of non-domination, and an order that covers a front evenly."""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from greensv.search.objectives import Objective

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SMALLEST = 1e-12
"""What a logarithmic objective of 0 counts as."""


def scaled(values: Floats, objectives: Sequence[Objective]) -> Floats:
    """Returns objectives (n, k) as they are compared: natural logarithms of those compared by ratio."""
    logs = np.array([objective.is_logarithmic for objective in objectives])
    return np.where(logs, np.log(np.maximum(values, SMALLEST)), values)


def coarse(points: Floats, objectives: Sequence[Objective], *, energy_tolerance: float) -> Floats:
    """Returns scaled points (n, k) whose energies are rounded, so that those within the tolerance are alike.

    Rounded rather than compared pair by pair: being alike within a tolerance is not transitive, ranks have to be.
    """
    if not energy_tolerance:
        return points
    is_energy = np.array([objective.name.endswith("_energy") for objective in objectives])
    return np.where(is_energy, np.round(points / np.log1p(energy_tolerance)), points)


def front_ranks(points: Floats) -> Ints:
    """Returns the rank of non-domination of each row of `points` (n, k), all minimised: 0 for the front, and so on.

    Deb et al. 2002 (NSGA-II), by the efficient sort of Zhang et al. 2015 (ENS-BS). Equal rows have equal ranks.
    """
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    unique, index = np.unique(points, axis=0, return_inverse=True)
    ranks = _ranks_of_two(unique) if points.shape[1] == 2 else _ranks_of_many(unique)
    return np.asarray(ranks[index.reshape(-1)], dtype=np.int64)


def _ranks_of_two(unique: Floats) -> Ints:
    """Rows come sorted by the first column, then the second, so a front is known by the last it took in."""
    lasts: list[float] = []
    ranks = np.empty(len(unique), dtype=np.int64)
    for row, second in enumerate(unique[:, 1].tolist()):
        rank = bisect_right(lasts, second)
        if rank == len(lasts):
            lasts.append(second)
        else:
            lasts[rank] = second
        ranks[row] = rank
    return ranks


def _ranks_of_many(unique: Floats) -> Ints:
    fronts: list[list[int]] = []
    ranks = np.empty(len(unique), dtype=np.int64)
    for row, point in enumerate(unique):
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            if bool(np.any(np.all(unique[fronts[middle]] <= point, axis=1))):
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append([])
        fronts[low].append(row)
        ranks[row] = low
    return ranks


def net_order(points: Floats, *, taken: NDArray[np.bool_], num: int) -> list[int]:
    """Returns up to `num` rows of `points` (n, k) that are not taken, each as far as can be from all before it.

    The ε-net of Salinas et al. 2021 ("A multi-objective perspective on jointly tuning hardware and hyperparameters",
    section 4), which goes on from the `taken` rows. Coordinates are scaled to the points' own range; where nothing is
    taken, the first is the one nearest to the best in every coordinate.
    """
    span = np.ptp(points, axis=0)
    unit = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    order: list[int] = []
    is_left = ~taken
    if taken.any():
        distance = np.min([np.sum((unit - row) ** 2, axis=1) for row in unit[taken]], axis=0)
    else:
        distance = -np.sum(unit**2, axis=1)
    while len(order) < num and is_left.any():
        chosen = int(np.argmax(np.where(is_left, distance, -np.inf)))
        is_left[chosen] = False
        order.append(chosen)
        step = np.sum((unit - unit[chosen]) ** 2, axis=1)
        distance = step if len(order) == 1 and not taken.any() else np.minimum(distance, step)
    return order
