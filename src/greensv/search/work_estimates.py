"""The work of many candidates at once: counting a deep network takes a second, and a sampler looks at hundreds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate, SearchSpace
from greensv.speaker.space import Choice, FloatRange, IntRange, Parameter

RIDGE = 1e-3
"""Of the regression, whose columns are scaled to about 1."""
MIN_COUNTED = 12
"""Networks of a backbone that are counted before others are estimated from them."""
COLUMNS = ("macs", "activations", "num_layers", "num_parameters")


@dataclass(slots=True)
class WorkEstimates:
    """Counts networks, and estimates the rest from those counted: ln of each column is quadratic in the parameters.

    Estimates serve to choose among candidates. What is going to be trained is counted.

    Attributes:
        space: of the study.
        count: returns a candidate's columns (`COLUMNS`), remembering what it has counted.
        is_counted: whether it remembers a candidate.
    """

    space: SearchSpace
    count: Callable[[Candidate], Mapping[str, float]]
    is_counted: Callable[[Candidate], bool]
    _counted: dict[str, list[Candidate]] = field(default_factory=dict, init=False)
    _fits: dict[str, tuple[int, NDArray[np.float64]]] = field(default_factory=dict, init=False)

    def of(self, candidates: Sequence[Candidate], *, is_exact: bool = False) -> list[Mapping[str, float]]:
        """Returns the columns of each candidate; `is_exact` counts them all."""
        return [self._one(candidate, is_exact=is_exact) for candidate in candidates]

    def _one(self, candidate: Candidate, *, is_exact: bool) -> Mapping[str, float]:
        known = self._counted.setdefault(candidate.backbone, [])
        if is_exact or self.is_counted(candidate) or len(known) < self._min_counted(candidate.backbone):
            if candidate not in known:
                known.append(candidate)
            return self.count(candidate)
        logs = self._features([candidate])[0] @ self._fit(candidate.backbone)
        return dict(zip(COLUMNS, np.exp(logs).tolist(), strict=True))

    def _min_counted(self, backbone: str) -> int:
        return MIN_COUNTED + 2 * len(self.space.spaces[backbone])

    def _fit(self, backbone: str) -> NDArray[np.float64]:
        known = self._counted[backbone]
        num, fit = self._fits.get(backbone, (0, np.zeros((0, 0), dtype=np.float64)))
        if num != len(known):
            x = self._features(known)
            y = np.log([[max(self.count(c)[column], 1.0) for column in COLUMNS] for c in known])
            penalty = RIDGE * np.eye(x.shape[1])
            penalty[0, 0] = 0.0
            fit = np.asarray(np.linalg.solve(x.T @ x + penalty, x.T @ y), dtype=np.float64)
            self._fits[backbone] = (len(known), fit)
        return fit

    def _features(self, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        space = self.space.spaces[candidates[0].backbone]
        rows = []
        for candidate in candidates:
            x = np.concatenate([_scaled(space[key], candidate.params[key]) for key in space])
            products = np.outer(x, x)[np.triu_indices(len(x))]
            rows.append(np.concatenate([[1.0], x, products]))
        return np.array(rows)


def _scaled(parameter: Parameter, value: Any) -> NDArray[np.float64]:
    """Returns a parameter within [-1, 1]; of a choice one column per option."""
    if isinstance(parameter, Choice):
        return np.array([1.0 if value == option else 0.0 for option in parameter.options])
    assert isinstance(parameter, IntRange | FloatRange)
    low, high, at = float(parameter.low), float(parameter.high), float(value)
    if low > 0 and high / low > 4:
        low, high, at = np.log([low, high, at])
    return np.array([0.0 if high == low else 2 * (at - low) / (high - low) - 1])
