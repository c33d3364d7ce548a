"""Which candidates of a rung go on: its best half (for η = 3), at any time, without waiting for the others."""

import numpy as np
from numpy.typing import NDArray

from greensv.search.scheduling.ranking import Floats, front_ranks, net_order

GOING_ON = 1.5
"""More go on than 1/η, which suits candidates drawn at random. Those that a model proposes are much alike in quality,
so that at a low rung noise decides between them more than merit does."""


def promoted_share(eta: int) -> float:
    """Returns the share of a rung's candidates that goes on: a half for η = 3."""
    return GOING_ON / eta


def promotable(points: Floats, *, is_open: NDArray[np.bool_], share: float) -> list[int]:
    """Returns the rows of `points` (n, k) that may go on from a rung, the most promising first.

    They are among the best floor(n·share) of all that have reached the rung (asynchronous successive halving: Li et al.
    2020), by rank of non-domination and, within a front, by the ε-net that its members which went on before have begun
    (Schmucker et al. 2021, MO-ASHA).

    Args:
        points: what is compared, all minimised.
        is_open: which wait at the rung; the others have gone on, failed above it or been given up.
        share: of the rung that goes on.
    """
    room = int(len(points) * share + 1e-9)
    ranks = front_ranks(points)
    found: list[int] = []
    for rank in range(int(ranks.max()) + 1 if room else 0):
        members = np.flatnonzero(ranks == rank)
        gone = ~is_open[members]
        num_free = room - int(gone.sum())
        if num_free > 0 and not gone.all():
            found += [int(members[i]) for i in net_order(points[members], taken=gone, num=num_free)]
        room -= len(members)
        if room <= 0:
            break
    return found
