"""Search spaces: named parameters with ranges, as a backbone declares them and a study narrows them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from greensv.errors import ConfigError, did_you_mean

Value = int | float | str
Params = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntRange:
    """Whole numbers from `low` to `high`, both included; `log` samples their logarithm uniformly."""

    low: int
    high: int
    default: int
    log: bool = False

    def problem(self, value: object) -> str | None:
        """Says why `value` is not in the range; None when it is."""
        if isinstance(value, bool) or not isinstance(value, int):
            return f"{value!r} is not a whole number"
        if not self.low <= value <= self.high:
            return f"{value} is outside {self.low} to {self.high}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatRange:
    """Real numbers from `low` to `high`, both included, in steps of `step` from `low` where given."""

    low: float
    high: float
    default: float
    step: float | None = None
    log: bool = False

    def problem(self, value: object) -> str | None:
        """Says why `value` is not in the range; None when it is."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{value!r} is not a number"
        if not self.low <= value <= self.high:
            return f"{value} is outside {self.low} to {self.high}"
        if self.step is not None:
            steps = (value - self.low) / self.step
            if abs(steps - round(steps)) > 1e-9:
                return f"{value} is not {self.low} plus a multiple of {self.step}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of `options`, listed from the cheapest to the dearest."""

    options: tuple[str, ...]
    default: str

    def problem(self, value: object) -> str | None:
        """Says why `value` is not among the options; None when it is."""
        return None if value in self.options else f"{value!r} is not one of {', '.join(self.options)}"


Parameter = IntRange | FloatRange | Choice
Space = Mapping[str, Parameter]


def narrow(parameter: Parameter, spec: Any) -> Parameter:
    """Returns `parameter` restricted to `spec`: a fixed value, `[low, high]`, or a list of options.

    Raises:
        ValueError: `spec` reaches outside the parameter, saying how.
    """
    if isinstance(parameter, Choice):
        options = tuple(spec) if isinstance(spec, list | tuple) else (spec,)
        for option in options:
            if problem := parameter.problem(option):
                raise ValueError(problem)
        if not options:
            raise ValueError("an empty list leaves nothing to choose from")
        return Choice(options=options, default=parameter.default if parameter.default in options else options[0])
    bounds = spec if isinstance(spec, list | tuple) else (spec, spec)
    if len(bounds) != 2:
        raise ValueError(f"{spec!r} is neither a value nor [low, high]")
    for bound in bounds:
        if problem := parameter.problem(bound):
            raise ValueError(problem)
    low, high = bounds
    if low > high:
        raise ValueError(f"[{low}, {high}] is empty: the first is larger than the second")
    return replace(parameter, low=low, high=high, default=min(max(parameter.default, low), high))


def check_point(params: Params, space: Space, *, name: str) -> None:
    """Checks that `params` is a point of `space`; `name` is the backbone's, for the message.

    Raises:
        ConfigError: a parameter is unknown, missing or outside the space; names all of them.
    """
    problems = [f"unknown parameter {key!r}{did_you_mean(key, space)}" for key in params if key not in space]
    for key, parameter in space.items():
        problem = parameter.problem(params[key]) if key in params else "missing"
        if problem:
            problems.append(f"{key}: {problem}")
    if problems:
        raise ConfigError(f"these parameters make no {name}: {'; '.join(problems)} (parameters: {', '.join(space)})")


def defaults(space: Space) -> dict[str, Value]:
    """Returns each parameter's default."""
    return {name: parameter.default for name, parameter in space.items()}


def lowest(space: Space) -> dict[str, Value]:
    """Returns the low end of each parameter; the first option of a choice."""
    return {n: p.options[0] if isinstance(p, Choice) else p.low for n, p in space.items()}


def highest(space: Space) -> dict[str, Value]:
    """Returns the high end of each parameter; the last option of a choice."""
    return {n: p.options[-1] if isinstance(p, Choice) else p.high for n, p in space.items()}
