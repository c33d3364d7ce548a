"""Calibration: from scores, and what tells their worth, to natural-log likelihood ratios.

A log-likelihood ratio of 0 says that a pair is as likely of one speaker as of two. The threshold then follows from the
prior and the costs alone (`greensv.speaker.scoring.metrics.bayes_threshold`); a probability is
`sigmoid(llr + logit(prior))`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from greensv import __version__
from greensv.config.validation import validate
from greensv.errors import DataError
from greensv.speaker.scoring.sorted_scores import check_scores

Array = NDArray[np.float64]

FORMAT = "greensv-calibration"
FORMAT_VERSION = 1
SCORE = "score"
"""The name of the score among the weights."""

RIDGE = 1e-8
"""Weight of half the squared standardised weights beside the cost in nats: keeps separable scores from diverging."""

_ROWS_PER_BLOCK = 1 << 19
_MAX_STEPS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """llr = bias + weights["score"]·score + the weighted sum of the named qualities."""

    bias: float
    weights: Mapping[str, float]
    prior: float
    """The prior probability of a target pair at which it was fitted; it is exact there and good around it."""
    scoring: Mapping[str, Any] = field(default_factory=dict)
    """How the scores come about: `{"method": "cosine"}`, and what a normalisation needs. JSON values only."""
    trained_on: Mapping[str, Any] = field(default_factory=dict)
    """Free: trial list, counts, checkpoint. JSON values only."""
    greensv_version: str = __version__

    @property
    def qualities(self) -> tuple[str, ...]:
        """The qualities that `apply` needs."""
        return tuple(name for name in self.weights if name != SCORE)

    def apply(self, scores: ArrayLike, qualities: Mapping[str, ArrayLike] | None = None) -> Array:
        """Returns natural-log likelihood ratios.

        Args:
            scores: one per pair, made in the way of `scoring`.
            qualities: by name, one per pair; those that the calibration does not know are ignored.

        Raises:
            DataError: a quality is missing.
        """
        given = {SCORE: scores, **(qualities or {})}
        missing = [name for name in self.weights if name not in given]
        if missing:
            raise DataError(
                f"the calibration needs {', '.join(missing)} of each pair, found {', '.join(given)}; "
                "give the cohort it was fitted with, or fit one without"
            )
        llrs = np.full(np.shape(scores), self.bias, dtype=np.float64)
        for name, weight in self.weights.items():
            llrs += weight * np.asarray(given[name], dtype=np.float64)
        return llrs

    def save(self, path: Path) -> None:
        """Writes the calibration as JSON; the file is there whole or as it was before.

        Raises:
            CheckpointError: it cannot be written.
        """
        from greensv.speaker.checkpoint import write_whole

        record = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(self)}
        text = json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Reads a calibration.

        Raises:
            DataError: the file is missing, damaged, no calibration or of a newer format.
        """
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise DataError(f"no calibration {path}; write one with greensv evaluate --fit-calibration") from None
        except OSError as error:
            raise DataError(f"calibration {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise DataError(f"{path} is no calibration: no JSON ({error})") from error
        if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
            raise DataError(f'{path} is no calibration of greensv: it does not say "format": "{FORMAT}"')
        version = record.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise DataError(f"{path} is of calibration format {version}, greensv {__version__} reads {FORMAT_VERSION}")
        found, problems = validate(cls, record)
        if found is None or problems or SCORE not in found.weights:
            lines = "; ".join(str(problem) for problem in problems) or "no weight of the score"
            raise DataError(f"calibration {path} is damaged ({lines}); fit it again")
        return found


def probability(llrs: ArrayLike, *, prior: float) -> Array:
    """Returns the probability of a target pair, given natural-log likelihood ratios and its prior probability."""
    log_odds = np.asarray(llrs, dtype=np.float64) + math.log(prior) - math.log1p(-prior)
    return np.exp(-np.logaddexp(0, -log_odds))


def fit_calibration(
    scores: ArrayLike,
    is_target: ArrayLike,
    qualities: Mapping[str, ArrayLike] | None = None,
    *,
    prior: float = 0.5,
    scoring: Mapping[str, Any] | None = None,
    trained_on: Mapping[str, Any] | None = None,
) -> Calibration:
    """Returns the affine map with the least prior-weighted Cllr: logistic regression, found by Newton's method.

    The cost is prior·mean over targets of log(1 + e^−z) + (1 − prior)·mean over nontargets of log(1 + e^z), where z =
    llr + logit(prior) (Brümmer and du Preez 2006); a prior of 0.5 gives the Cllr itself.

    Args:
        scores: one per pair.
        is_target: whether the pair is of one speaker.
        qualities: further measures by name, one per pair.
        prior: the prior probability of a target pair to be best at.
        scoring: kept, see `Calibration`.
        trained_on: kept.

    Raises:
        DataError: a value is not finite, one class has no pair, the prior is not between 0 and 1, or higher scores turn
            out to speak against the same speaker.
    """
    if not 0 < prior < 1:
        raise DataError(f"the prior of a calibration is a probability between 0 and 1; found {prior}")
    values, targets = check_scores(scores, is_target)
    columns = {SCORE: values, **{name: np.asarray(column) for name, column in (qualities or {}).items()}}
    for name, column in columns.items():
        assert column.shape == values.shape, (name, column.shape)
        if not np.isfinite(column).all():
            raise DataError(f"{name} of pair {np.flatnonzero(~np.isfinite(column))[0] + 1} is not finite")
    bias, weights = _Regression(list(columns.values()), targets, prior=prior).solve()
    if weights[0] <= 0:
        raise DataError(
            "higher scores speak against the same speaker on these pairs: a calibration would turn them round; "
            "are the scores distances, or the labels reversed?"
        )
    return Calibration(
        bias=bias,
        weights=dict(zip(columns, weights, strict=True)),
        prior=prior,
        scoring=dict(scoring or {}),
        trained_on=dict(trained_on or {}),
    )


class _Regression:
    """Prior-weighted logistic regression on standardised columns, by damped Newton steps over blocks of rows."""

    def __init__(self, columns: list[NDArray[Any]], is_target: NDArray[np.bool_], *, prior: float) -> None:
        self._columns, self._is_target, self._prior = columns, is_target, prior
        self._offset = np.array([column.mean(dtype=np.float64) for column in columns])
        scale = np.array([column.std(dtype=np.float64) for column in columns])
        # A column that hardly varies but for rounding says nothing.
        self._scale = np.where(scale > 1e-9 * np.maximum(1, abs(self._offset)), scale, np.inf)

    def solve(self) -> tuple[float, list[float]]:
        """Returns bias and weights of the columns as they were given."""
        found = np.zeros(len(self._columns) + 1)
        cost, slope, curvature = self._look(found)
        for _ in range(_MAX_STEPS):
            step = np.linalg.solve(curvature, slope)
            decrease = float(slope @ step)
            if decrease < 1e-14:
                break
            size = 1.0
            while size > 1e-9:
                next_cost, next_slope, next_curvature = self._look(found - size * step)
                if next_cost <= cost - 1e-4 * size * decrease:
                    break
                size /= 2
            else:
                break  # nothing lower within the precision of the sum
            found = found - size * step
            cost, slope, curvature = next_cost, next_slope, next_curvature
        weights = found[:-1] / self._scale
        return float(found[-1] - weights @ self._offset), weights.tolist()

    def _look(self, found: Array) -> tuple[float, Array, Array]:
        """Returns the cost, its gradient and its Hessian, the bias last."""
        ridge = np.append(np.full(len(found) - 1, RIDGE), RIDGE * 1e-3)
        cost, slope, curvature = float(ridge @ found**2) / 2, ridge * found, np.diag(ridge)
        log_odds = math.log(self._prior) - math.log1p(-self._prior)
        num_target = int(self._is_target.sum())
        for start in range(0, len(self._is_target), _ROWS_PER_BLOCK):
            rows = slice(start, start + _ROWS_PER_BLOCK)
            is_target = self._is_target[rows]
            x = np.ones((len(is_target), len(found)))
            for number, column in enumerate(self._columns):
                x[:, number] = (column[rows] - self._offset[number]) / self._scale[number]
            weight = np.where(
                is_target, self._prior / num_target, (1 - self._prior) / (len(self._is_target) - num_target)
            )
            z = x @ found + log_odds
            posterior = np.exp(-np.logaddexp(0, -z))
            cost += float(weight @ np.logaddexp(0, np.where(is_target, -z, z)))
            slope = slope + x.T @ (weight * (posterior - is_target))
            curvature = curvature + (x.T * (weight * posterior * (1 - posterior))) @ x
        return cost, slope, curvature
