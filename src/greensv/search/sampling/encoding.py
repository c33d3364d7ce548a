"""Candidates as rows of numbers between 0 and 1, for regression."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from greensv.search.candidate import Candidate, SearchSpace
from greensv.speaker.space import Choice, Parameter, Value

ELSEWHERE = 0.5
"""What a number is in the row of a candidate whose backbone does not have it."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The columns of a search space.

    A number takes one column, from 0 at its low end to 1 at its high end, by its logarithm where the space draws it so.
    A choice takes one column per option, a choice of two a single one. What is fixed takes none. With several
    backbones, each has its own columns, and which backbone it is takes columns as a choice does.
    """

    space: SearchSpace

    @cached_property
    def num_columns(self) -> int:
        """Columns of a row."""
        return len(self._backbone_columns(next(iter(self.space.spaces)))) + sum(
            _width(p) for space in self.space.spaces.values() for p in space.values()
        )

    def rows(self, candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        """Returns the candidates as rows, (candidates, columns)."""
        if not candidates:
            return np.zeros((0, self.num_columns))
        return np.array([self._row(candidate) for candidate in candidates], dtype=np.float64)

    def _row(self, candidate: Candidate) -> list[float]:
        row = self._backbone_columns(candidate.backbone)
        for name, space in self.space.spaces.items():
            for key, parameter in space.items():
                if name == candidate.backbone:
                    row += _columns(parameter, candidate.params[key])
                else:
                    row += [0.0 if isinstance(parameter, Choice) else ELSEWHERE] * _width(parameter)
        return row

    def _backbone_columns(self, name: str) -> list[float]:
        names = list(self.space.spaces)
        return _one_hot(names.index(name), len(names))


def candidate_key(candidate: Candidate) -> tuple[object, ...]:
    """Returns what tells whether two candidates are the same; numbers are alike to twelve digits."""
    values = [(k, float(f"{v:.12g}") if isinstance(v, float) else v) for k, v in sorted(candidate.params.items())]
    return (candidate.backbone, *values)


def _width(parameter: Parameter) -> int:
    if isinstance(parameter, Choice):
        return len(_one_hot(0, len(parameter.options)))
    return int(parameter.low < parameter.high)


def _columns(parameter: Parameter, value: Value) -> list[float]:
    if isinstance(parameter, Choice):
        return _one_hot(parameter.options.index(str(value)), len(parameter.options))
    if parameter.low == parameter.high:
        return []
    low, high, number = float(parameter.low), float(parameter.high), float(value)
    if parameter.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    return [(number - low) / (high - low)]


def _one_hot(index: int, num: int) -> list[float]:
    if num <= 2:
        return [float(index)] if num == 2 else []
    return [float(i == index) for i in range(num)]
