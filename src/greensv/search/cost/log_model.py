"""Predicts a positive quantity from the work of a network: a sum over its parts, fitted to what was measured, in ln.

    ln y = level + ln Σ weight(part) · part + offsets + misfit

The sum's weights start from a prior and move as far as the measurements move them (each ln weight is normal around the
prior's). So a prediction between what was measured is near it, one beyond adds up what it consists of, and the interval
says how much of it is the prior's. It is nonlinear only through ln Σ: a few Gauss-Newton steps on a handful of
unknowns, so a fit takes milliseconds and a prediction microseconds. A measurement that is far off weighs less the
further off it is, as under Student's t with `TAIL` degrees of freedom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from greensv.search.cost.work import Prior, Work, parts_of

WEIGHT_LOG_STD = 1.0
"""How far a part's weight may be off against the others': a factor of 2.7 is one standard deviation."""
MISFIT_LOG_STD = 0.12
"""What a sum of these parts does not tell of a network's cost, as assumed before it is measured."""
MISFIT_COUNT = 4.0
"""How many measurements that assumption is worth."""
UNKNOWN_LEVEL_LOG_STD = 5.0
"""Of the scale, where nothing at all is known of it."""
TAIL = 4.0
NUM_ITERATIONS = 30
MAX_STEP = 1.5
SETTLED = 1e-4
"""Steps of all unknowns below this end the fit."""
LEAST_STD = 1e-3
MAX_POINTS = 500
"""The newest are looked at."""
NUM_PARTS = 4
NUM_KNOWN = 1 + NUM_PARTS
"""Unknowns of what is to be predicted: the level and a weight for each part. Offsets come after them."""
NO_OFFSETS: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """The unknowns (level, ln weights, offsets of groups), their covariance, and the misfit's deviation."""

    level: float
    weights: NDArray[np.float64]
    covariance: NDArray[np.float64]
    misfit: float


class LogModel:
    """Learns from measured pairs of work and quantity, and predicts the quantity of other work."""

    def __init__(self, prior: Prior, *, log_level: float | None = None) -> None:
        """Starts from `prior`.

        Args:
            prior: the ratios of the parts, and how far the scale may be off.
            log_level: ln of what the prior's figures are multiplied by to be the quantity; None: not known.
        """
        self._prior = prior
        self._level_mean = 0.0 if log_level is None else log_level
        self._level_std = UNKNOWN_LEVEL_LOG_STD if log_level is None else prior.level_log_std
        self._is_level_known = log_level is not None
        self._works: list[Work] = []
        self._logs: list[float] = []
        self._offsets: list[Mapping[str, float]] = []
        self._fit: _Fit | None = None

    @property
    def num_points(self) -> int:
        """How many measurements it has learned from."""
        return len(self._logs)

    def add(self, work: Work, value: float, *, offsets: Mapping[str, float] = NO_OFFSETS) -> None:
        """Learns that `work` takes `value`, which is positive.

        Args:
            work: of the network.
            value: the quantity.
            offsets: by what it may differ from what is to be predicted, in common with all that name the same: names,
                and standard deviations of ln. None: it is like what is to be predicted.
        """
        assert value > 0, f"a cost of {value}"
        self._works.append(work)
        self._logs.append(float(np.log(value)))
        self._offsets.append(offsets)
        self._fit = None

    def predict(self, work: Work) -> tuple[float, float]:
        """Returns the quantity and the standard deviation of its ln."""
        values, stds = self.predict_many([work])
        return float(values[0]), float(stds[0])

    def predict_many(self, works: Sequence[Work]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the quantities of many works, and the standard deviations of their ln.

        The deviation is that of a measurement: what is not known of the fit, and what the fit does not tell.
        """
        assert self._logs or self._is_level_known, "measure a network before predicting another"
        if self._fit is None:
            self._fit = self._fitted()
        fit = self._fit
        parts = parts_of(works) * self._prior.weights
        logs, slopes = _log_sums(parts, fit.weights)
        covariance = fit.covariance[:NUM_KNOWN, :NUM_KNOWN]
        slopes = np.column_stack([np.ones(len(parts)), slopes])
        variances = np.einsum("ij,jk,ik->i", slopes, covariance, slopes) + fit.misfit**2 * TAIL / (TAIL - 2)
        return np.exp(fit.level + logs), np.sqrt(variances)

    def _fitted(self) -> _Fit:
        logs = np.array(self._logs[-MAX_POINTS:])
        given = self._offsets[-MAX_POINTS:]
        parts = parts_of(self._works[-MAX_POINTS:]) * self._prior.weights
        offset_stds = {name: std for offsets in given for name, std in offsets.items()}
        names = {name: number for number, name in enumerate(offset_stds)}
        offsets = np.zeros((len(logs), len(names)))
        for row, named in enumerate(given):
            offsets[row, [names[name] for name in named]] = 1.0
        stds = np.array([self._level_std, *[WEIGHT_LOG_STD] * NUM_PARTS, *offset_stds.values()])
        precision = np.diag(np.maximum(stds, LEAST_STD) ** -2.0)
        start = np.zeros(len(stds))
        start[0] = self._level_mean
        if len(logs) and not self._is_level_known:
            start[0] = np.median(logs - _log_sums(parts, np.zeros(NUM_PARTS))[0])
        centre, unknowns, misfit = start.copy(), start, MISFIT_LOG_STD
        trust = np.ones(len(logs))
        covariance = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        for _ in range(NUM_ITERATIONS if len(logs) else 0):
            sums, slopes = _log_sums(parts, unknowns[1:NUM_KNOWN])
            slopes = np.column_stack([np.ones(len(logs)), slopes, offsets])
            residuals = logs - unknowns[0] - sums - offsets @ unknowns[NUM_KNOWN:]
            weighted = slopes.T * (trust / misfit**2)
            covariance = np.asarray(np.linalg.inv(precision + weighted @ slopes), dtype=np.float64)
            step = covariance @ (weighted @ residuals - precision @ (unknowns - centre))
            unknowns = unknowns + np.clip(step, -MAX_STEP, MAX_STEP)
            is_settled = bool(np.all(np.abs(step) < SETTLED))
            sums, _ = _log_sums(parts, unknowns[1:NUM_KNOWN])
            residuals = logs - unknowns[0] - sums - offsets @ unknowns[NUM_KNOWN:]
            trust = (TAIL + 1) / (TAIL + (residuals / misfit) ** 2)
            num_fitted = float(np.sum(weighted.T * (slopes @ covariance)))
            num_free = max(0.0, len(logs) - num_fitted)
            scatter = float(np.sum(trust * residuals**2))
            misfit = float(np.sqrt((MISFIT_COUNT * MISFIT_LOG_STD**2 + scatter) / (MISFIT_COUNT + num_free)))
            if is_settled:
                break
        return _Fit(level=float(unknowns[0]), weights=unknowns[1:NUM_KNOWN], covariance=covariance, misfit=misfit)


def _log_sums(
    parts: NDArray[np.float64], log_weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns ln Σ exp(log weight) · part for each row, and its slopes: each part's share of the sum."""
    weighted = parts * np.exp(log_weights)
    sums = weighted.sum(axis=1)
    return np.log(sums), weighted / sums[:, None]
