"""Random candidates that have not been run: anywhere in the space, or near others."""

import itertools
import math
from collections.abc import Iterator, Sequence, Set

import numpy as np

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.sampling.encoding import candidate_key
from greensv.speaker.space import Choice, FloatRange, IntRange, Parameter, Value

SMALL = 1_024
"""Spaces of no more points are listed, and drawn from without putting back."""
MAX_LISTED = 20_000
"""Spaces of no more points are listed when drawing finds nothing new in them."""
MAX_MISSES = 100
"""Draws in a row that find nothing new before drawing ends."""
STEP = 0.15
"""Standard deviation of a step to a neighbour, as a share of the parameter's range."""

Key = tuple[object, ...]


def draw_new(
    space: SearchSpace, random: np.random.Generator, *, num: int, seen: Set[Key], near: Sequence[Candidate] = ()
) -> list[Candidate]:
    """Returns up to `num` different candidates that are not among those seen; none when all have been.

    Args:
        space: to draw from.
        random: generator.
        num: how many are wanted.
        seen: keys of what has been run.
        near: candidates whose neighbours are wanted; none: from the whole space.
    """
    size = math.inf if near else _num_points(space)
    found: dict[Key, Candidate] = {}
    num_misses = 0 if size > SMALL else MAX_MISSES
    while len(found) < num and num_misses < MAX_MISSES:
        drawn = _neighbour(near[int(random.integers(len(near)))], space, random) if near else space.draw(random)
        key = candidate_key(drawn)
        num_misses = num_misses + 1 if key in seen or key in found else 0
        if key not in seen:
            found.setdefault(key, drawn)
    if not found and size <= MAX_LISTED:
        new = [c for c in _all(space) if candidate_key(c) not in seen]
        return [new[i] for i in random.permutation(len(new))[:num]]
    return list(found.values())


def _neighbour(candidate: Candidate, space: SearchSpace, random: np.random.Generator) -> Candidate:
    """One or more parameters changed: a step for a number, another option for a choice."""
    parameters = {k: p for k, p in space.spaces[candidate.backbone].items() if not _is_fixed(p)}
    if not parameters:
        return candidate
    names = list(parameters)
    changed = random.random(len(names)) < 1.5 / len(names)
    changed[int(random.integers(len(names)))] = True
    params = dict(candidate.params)
    for name, is_changed in zip(names, changed, strict=True):
        if is_changed:
            params[name] = _stepped(parameters[name], params[name], random)
    return Candidate(backbone=candidate.backbone, params=params)


def _is_fixed(parameter: Parameter) -> bool:
    return len(parameter.options) == 1 if isinstance(parameter, Choice) else parameter.low == parameter.high


def _stepped(parameter: Parameter, value: Value, random: np.random.Generator) -> Value:
    if isinstance(parameter, Choice):
        return str(random.choice([option for option in parameter.options if option != value]))
    low, high, number = float(parameter.low), float(parameter.high), float(value)
    if parameter.log:
        low, high, number = math.log(low), math.log(high), math.log(number)
    stepped = number + STEP * (high - low) * float(random.standard_normal())
    stepped = min(max(stepped, low), high)
    stepped = math.exp(stepped) if parameter.log else stepped
    stepped = min(max(stepped, parameter.low), parameter.high)
    if isinstance(parameter, IntRange):
        if round(stepped) != value:
            return round(stepped)
        down = value == parameter.high or (value != parameter.low and random.random() < 0.5)
        return int(value) + (-1 if down else 1)
    if parameter.step is not None:
        return parameter.low + parameter.step * round((stepped - parameter.low) / parameter.step)
    return stepped


def _num_points(space: SearchSpace) -> float:
    """Returns how many candidates there are; infinity where a parameter is continuous."""
    return math.fsum(math.prod(_num_values(p) for p in parameters.values()) for parameters in space.spaces.values())


def _num_values(parameter: Parameter) -> float:
    if isinstance(parameter, FloatRange) and parameter.step is None and not _is_fixed(parameter):
        return math.inf
    return len(_values(parameter))


def _all(space: SearchSpace) -> Iterator[Candidate]:
    """Yields every candidate of a finite space."""
    for name, parameters in space.spaces.items():
        for values in itertools.product(*(_values(p) for p in parameters.values())):
            yield Candidate(backbone=name, params=dict(zip(parameters, values, strict=True)))


def _values(parameter: Parameter) -> Sequence[Value]:
    if isinstance(parameter, Choice):
        return parameter.options
    if isinstance(parameter, IntRange):
        return range(parameter.low, parameter.high + 1)
    if parameter.step is None:
        return (parameter.low,)
    num_steps = round((parameter.high - parameter.low) / parameter.step)
    return [parameter.low + parameter.step * i for i in range(num_steps + 1)]
