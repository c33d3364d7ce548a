"""What error a candidate would reach at the top rung, judged by what it showed at a lower one."""

from dataclasses import dataclass

import numpy as np

from greensv.search.scheduling.ranking import Floats

SMALLEST_EER = 1e-3
"""An error rate below it, from few pairs, says no more than that it is small; its logarithm would say too much."""
_PRIOR_OFFSET, _PRIOR_ERROR_SLOPE, _PRIOR_SIZE_SLOPE = 1.0, 0.3, 0.1
_PRIOR_NOISE, _PRIOR_WEIGHT = 0.05, 4.0


def log_eer(eer: Floats) -> Floats:
    """Returns the natural logarithm of error rates, the smallest cut off."""
    return np.log(np.maximum(eer, SMALLEST_EER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolation:
    """ln EER at the top = ln EER at the rung + a + b·(ln EER - mean) + c·(ln size - mean), fitted to what got there.

    c is there because larger networks start behind and catch up: compared as they stand, early rungs would stop the
    best. Size is what the objectives beside the error tell of it: energy, parameters, latency. Bayesian linear
    regression (Bishop 2006, section 3.3) with a prior at b = c = 0, so that a few pairs move it little; its noise is
    estimated with a prior worth four pairs.
    """

    centre: Floats
    """Means of the features, (features,)."""
    weights: Floats
    """a, b and c, (1 + features,)."""
    covariance: Floats
    """Of the weights."""
    noise: float
    """Standard deviation of ln EER at the top around the line."""
    num_pairs: int

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation of ln EER at the top, (n,) each, for `features` (n, features)."""
        design = _design(features, self.centre)
        variance = np.einsum("ni,ij,nj->n", design, self.covariance, design) + self.noise**2
        return features[:, 0] + design @ self.weights, np.sqrt(variance)


def fit(features: Floats, log_top: Floats) -> Extrapolation:
    """Returns the extrapolation from a rung.

    Args:
        features: of candidates at the rung, (n, features): ln EER first, then the logarithms of their sizes.
        log_top: ln EER of the same at the top, (n,); none at all leaves the prior, which changes no order.
    """
    num, num_features = features.shape
    centre = features.mean(axis=0) if num else np.zeros(num_features)
    design, target = _design(features, centre), log_top - features[:, 0]
    prior = np.diag(
        [_PRIOR_OFFSET**-2, _PRIOR_ERROR_SLOPE**-2] + [_PRIOR_SIZE_SLOPE**-2] * (num_features - 1),
    )
    noise = _PRIOR_NOISE
    for _ in range(3):
        covariance = np.asarray(np.linalg.inv(prior + design.T @ design / noise**2), dtype=np.float64)
        weights = covariance @ (design.T @ target) / noise**2
        residuals = target - design @ weights
        # Pairs less what the weights took up of them, so that few pairs do not look exact.
        free = max(num - float(np.trace(design @ covariance @ design.T)) / noise**2, 0.0)
        noise = float(np.sqrt((_PRIOR_WEIGHT * _PRIOR_NOISE**2 + residuals @ residuals) / (_PRIOR_WEIGHT + free)))
    return Extrapolation(centre=centre, weights=weights, covariance=covariance, noise=noise, num_pairs=num)


def left_out(line: Extrapolation, features: Floats, log_top: Floats) -> Floats:
    """Returns what would be predicted of each pair that `line` was fitted to by the others: ln EER at the top, (n,).

    In closed form, noise and centre of all pairs kept: residual / (1 - leverage), Hastie et al. 2009, equation 7.64.
    """
    design = _design(features, line.centre)
    leverage = np.einsum("ni,ij,nj->n", design, line.covariance, design) / line.noise**2
    residuals = log_top - features[:, 0] - design @ line.weights
    return np.asarray(log_top - residuals / np.maximum(1 - leverage, 1e-6), dtype=np.float64)


def _design(features: Floats, centre: Floats) -> Floats:
    return np.hstack([np.ones((len(features), 1)), features - centre])
