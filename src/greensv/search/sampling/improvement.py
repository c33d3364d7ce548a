"""The hypervolume that a candidate is expected to add to a front, where one of its objectives is uncertain."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]

Floats = NDArray[np.float64]


def expected_below(levels: Floats, log_mean: Floats, log_std: Floats) -> Floats:
    """Returns E[max(0, level - Y)] for Y log-normal, (candidates, levels).

    With d = (ln level - μ)/σ it is level·Φ(d) - exp(μ + σ²/2)·Φ(d - σ): the price of a put option (Black and Scholes
    1973, equation 13, without interest), which is expected improvement for a log-normal variable.

    Args:
        levels: positive, (levels,).
        log_mean: μ, mean of ln Y, (candidates,).
        log_std: σ, its standard deviation, positive, (candidates,).
    """
    mean, std = log_mean[:, None], log_std[:, None]
    d = (np.log(levels)[None, :] - mean) / std
    value: Floats = levels[None, :] * norm.cdf(d) - np.exp(mean + std**2 / 2) * norm.cdf(d - std)
    return np.maximum(value, 0.0)


def expected_improvement(
    known: Floats,
    log_mean: Floats,
    log_std: Floats,
    *,
    front: Floats,
    front_uncertain: Floats,
    reference: Floats,
    reference_uncertain: float,
) -> Floats:
    """Returns the expected hypervolume improvement of each candidate, (candidates,); all objectives are minimised.

    All objectives but one are known beforehand: u, of up to two coordinates. The other, Y, is log-normal. Let f(t) be
    the smallest Y of a front member whose known coordinates are all at most t, and the reference where there is none.
    A candidate at u adds, between u and the reference, all that lies between its Y and f:

        HVI(u, Y) = ∫ max(0, f(t) - Y) dt  over t ≥ u,   so   E[HVI] = Σ_cells E[max(0, f(cell) - Y)]·|cell ∩ {t ≥ u}|

    f is constant in each cell of the grid that the front's known coordinates span, so the sum is exact: for one known
    coordinate the sum over the staircase of Emmerich, Giannakoglou and Naujoks 2006 (and Yang, Emmerich, Deutz and
    Bäck 2019), with one of its two integrals gone, as its coordinate is known.

    Args:
        known: known coordinates, (candidates, 1 or 2).
        log_mean: mean of ln Y.
        log_std: its standard deviation.
        front: known coordinates of the members so far, (members, 1 or 2).
        front_uncertain: their Y, positive.
        reference: beyond it nothing counts, (1 or 2,).
        reference_uncertain: the same for Y.
    """
    # A coordinate that is not there is alike everywhere, with a length of 1.
    while known.shape[1] < 2:
        known = np.hstack([known, np.zeros((len(known), 1))])
        front = np.hstack([front, np.zeros((len(front), 1))])
        reference = np.append(reference, 1.0)
    level_of_cell, lows = _cells(front, front_uncertain, reference, reference_uncertain)
    levels, index = np.unique(level_of_cell, return_inverse=True)
    gains = expected_below(levels, log_mean, log_std)[:, index.reshape(level_of_cell.shape)]
    lengths = [
        np.maximum(0.0, np.append(low[1:], end)[None, :] - np.maximum(low[None, :], at[:, None]))
        for low, end, at in zip(lows, reference, known.T, strict=True)
    ]
    total: Floats = np.einsum("cab,ca,cb->c", gains, lengths[0], lengths[1])
    return total


def _cells(
    front: Floats, uncertain: Floats, reference: Floats, reference_uncertain: float
) -> tuple[Floats, tuple[Floats, Floats]]:
    """Returns f of each cell of the grid, and where cells begin along each axis; the first begin at minus infinity."""
    inside = np.all(front < reference, axis=1)
    front, uncertain = front[inside], np.minimum(uncertain[inside], reference_uncertain)
    axes = [np.unique(column) for column in front.T]
    # The cell before the first coordinate has no member in it: its level is the reference.
    levels = np.full((len(axes[0]) + 1, len(axes[1]) + 1), reference_uncertain)
    at = [np.searchsorted(axis, column) + 1 for axis, column in zip(axes, front.T, strict=True)]
    np.minimum.at(levels, (at[0], at[1]), uncertain)
    levels = np.minimum.accumulate(np.minimum.accumulate(levels, axis=0), axis=1)
    lows = [np.append(-np.inf, axis) for axis in axes]
    return levels, (lows[0], lows[1])
