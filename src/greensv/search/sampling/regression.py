"""A Gaussian process over rows of numbers and how far each was trained: numpy, closed form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular  # type: ignore[import-untyped]
from scipy.optimize import minimize  # type: ignore[import-untyped]

NUM_FITTED = 96
"""Rows by which hyperparameters are found: the cost rises with the cube, what they add does not."""
NUM_ITERATIONS = 25
ROOT5 = 5.0**0.5
JITTER = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """Of the covariance, for values scaled to mean 0 and deviation 1."""

    lengths: Floats
    smooth: float
    """Deviation of what is smooth but not linear."""
    linear: float
    """Deviation of the slopes."""
    behind: float
    """Deviation of how the gap to a whole training differs from point to point."""
    noise: float
    noise_behind: float
    """Deviation that is added at gap 1."""


# Of the logarithms: mean and deviation of a normal prior, and bounds. The rows lie in the unit cube.
_PRIORS = {
    "length": (np.log(1.0), 0.8, np.log(0.1), np.log(20.0)),
    "smooth": (np.log(0.5), 1.0, np.log(0.02), np.log(5.0)),
    "linear": (np.log(1.0), 1.0, np.log(0.02), np.log(10.0)),
    "behind": (np.log(0.3), 1.0, np.log(0.01), np.log(5.0)),
    "noise": (np.log(0.1), 1.0, np.log(1e-3), np.log(1.0)),
    "noise_behind": (np.log(0.1), 1.0, np.log(1e-3), np.log(1.0)),
}
_SCALES = ("smooth", "linear", "behind", "noise", "noise_behind")


class Regression:
    """Predicts a value from a row, for a gap of 0, from values seen at gaps of 0 to 1.

    The covariance of (x, h) and (x', h'), Rasmussen and Williams 2006, chapters 2, 4.2 and 5.4:

        1 + smooth²·M(x, x') + linear²·x·x' + h·h'·(1 + behind²·(M(x, x') + x·x'))

    M is the Matérn-5/2 kernel with a length per column, x is counted from the middle of the cube, and noise is added on
    the diagonal. So the gap h (0: trained to the end) shifts values in proportion, by an amount that may differ across
    the space. Hyperparameters are those of the largest posterior: marginal likelihood times log-normal priors.
    """

    def __init__(self, rows: Floats, values: Floats, *, gaps: Floats, hyper: Hyperparameters | None = None) -> None:
        """Fits to rows (n, columns), their values (n,) and gaps (n,); with `hyper`, only conditions.

        Raises:
            LinAlgError: the covariance of the rows cannot be decomposed.
            ValueError: a value is not finite.
        """
        if not np.all(np.isfinite(values)):
            raise ValueError("a regression needs finite values")
        self._rows, self._gaps, self._values = rows, gaps, values
        self._mean = float(np.mean(values))
        self._scale = max(float(np.std(values)), 1e-6)
        self._scaled = (values - self._mean) / self._scale
        self.hyper = hyper or _fit(rows[:NUM_FITTED], gaps[:NUM_FITTED], self._scaled[:NUM_FITTED])
        self._condition()

    def _condition(self) -> None:
        covariance = _covariance(self._rows, self._gaps, self._rows, self._gaps, self.hyper)
        covariance[np.diag_indices_from(covariance)] += _noise(self._gaps, self.hyper)
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, self._scaled)

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Returns the mean and the standard deviation of the value at gap 0, without the noise of seeing it."""
        gaps = np.zeros(len(rows))
        cross = _covariance(rows, gaps, self._rows, self._gaps, self.hyper)
        mean = cross @ self._weights
        half = solve_triangular(self._factor[0], cross.T, lower=True)
        variance = _own_variance(rows, self.hyper) - np.sum(half**2, axis=0)
        return self._mean + self._scale * mean, self._scale * np.sqrt(np.maximum(variance, 1e-10))

    def believing(self, rows: Floats) -> "Regression":
        """Returns this regression as if its own predictions had been seen at `rows`, at gap 0.

        The kriging believer of Ginsbourger, Le Riche and Carraro 2010: what others are training now is counted as done,
        so that many workers do not all ask for the same.
        """
        if not len(rows):
            return self
        believed = object.__new__(Regression)
        believed.hyper, believed._mean, believed._scale = self.hyper, self._mean, self._scale
        believed._rows = np.vstack([self._rows, rows])
        believed._gaps = np.concatenate([self._gaps, np.zeros(len(rows))])
        believed._values = np.concatenate([self._values, self.predict(rows)[0]])
        believed._scaled = (believed._values - self._mean) / self._scale
        believed._condition()
        return believed


class _Loss:
    """The negative logarithm of the hyperparameters' posterior, and its gradient by their logarithms."""

    def __init__(self, rows: Floats, gaps: Floats, values: Floats) -> None:
        self.num_columns = rows.shape[1]
        kinds = ["length"] * self.num_columns + list(_SCALES)
        priors = np.array([_PRIORS[kind] for kind in kinds])
        self.means, self.deviations, self.bounds = priors[:, 0].copy(), priors[:, 1], priors[:, 2:]
        # Distances grow with the number of columns; so do the lengths that make rows alike.
        self.means[: self.num_columns] += 0.5 * np.log(max(self.num_columns, 1) / 4)
        self._values, self._gaps = values, gaps
        self._squares = (rows[:, None, :] - rows[None, :, :]) ** 2
        self._linear = (rows - 0.5) @ (rows - 0.5).T
        self._both = gaps[:, None] * gaps[None, :]

    def __call__(self, logs: Floats) -> tuple[float, Floats]:
        """Rasmussen and Williams 2006, equations 5.8 and 5.9, with the prior's terms."""
        num = self.num_columns
        lengths2 = np.exp(2 * logs[:num])
        smooth2, linear2, behind2, noise2, noise_behind2 = np.exp(2 * logs[num:])
        distance = np.sqrt(self._squares @ (1 / lengths2) + 1e-12)
        decay = np.exp(-ROOT5 * distance)
        matern = (1 + ROOT5 * distance + 5 / 3 * distance**2) * decay
        shifting = self._both * (matern + self._linear)
        noise_gap = noise_behind2 * self._gaps**2
        covariance = 1.0 + self._both + smooth2 * matern + linear2 * self._linear + behind2 * shifting
        covariance[np.diag_indices_from(covariance)] += noise2 + noise_gap + JITTER
        factor = cho_factor(covariance, lower=True)
        weights = cho_solve(factor, self._values)
        sensitivity = 0.5 * (cho_solve(factor, np.eye(len(weights))) - np.outer(weights, weights))
        slope = sensitivity * (smooth2 + behind2 * self._both) * (5 / 3) * (1 + ROOT5 * distance) * decay
        by_scale = [
            smooth2 * np.sum(sensitivity * matern),
            linear2 * np.sum(sensitivity * self._linear),
            behind2 * np.sum(sensitivity * shifting),
            noise2 * np.trace(sensitivity),
            np.diag(sensitivity) @ noise_gap,
        ]
        gradient = np.append(np.tensordot(slope, self._squares, axes=2) / lengths2, 2 * np.array(by_scale))
        offset = (logs - self.means) / self.deviations
        value = 0.5 * self._values @ weights + np.sum(np.log(np.diag(factor[0]))) + 0.5 * offset @ offset
        return float(value), gradient + offset / self.deviations


def _fit(rows: Floats, gaps: Floats, values: Floats) -> Hyperparameters:
    loss = _Loss(rows, gaps, values)
    found = minimize(
        loss, loss.means, jac=True, method="L-BFGS-B", bounds=loss.bounds.tolist(), options={"maxiter": NUM_ITERATIONS}
    )
    best = np.exp(found.x)
    scales = dict(zip(_SCALES, map(float, best[loss.num_columns :]), strict=True))
    return Hyperparameters(lengths=best[: loss.num_columns], **scales)


def _covariance(rows: Floats, gaps: Floats, others: Floats, other_gaps: Floats, hyper: Hyperparameters) -> Floats:
    scaled, other_scaled = rows / hyper.lengths, others / hyper.lengths
    squared = (
        np.sum(scaled**2, axis=1)[:, None] + np.sum(other_scaled**2, axis=1)[None, :] - 2 * scaled @ other_scaled.T
    )
    distance = np.sqrt(np.maximum(squared, 0.0))
    matern = (1 + ROOT5 * distance + 5 / 3 * distance**2) * np.exp(-ROOT5 * distance)
    linear = (rows - 0.5) @ (others - 0.5).T
    both = gaps[:, None] * other_gaps[None, :]
    covariance: Floats = 1.0 + hyper.smooth**2 * matern + hyper.linear**2 * linear
    covariance += both * (1.0 + hyper.behind**2 * (matern + linear))
    return covariance


def _own_variance(rows: Floats, hyper: Hyperparameters) -> Floats:
    own: Floats = 1.0 + hyper.smooth**2 + hyper.linear**2 * np.sum((rows - 0.5) ** 2, axis=1)
    return own


def _noise(gaps: Floats, hyper: Hyperparameters) -> Floats:
    return hyper.noise**2 + hyper.noise_behind**2 * gaps**2 + JITTER
