"""What a search chooses among: a backbone and one point of its (narrowed) space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from greensv.config.load import Problem
from greensv.errors import ConfigError
from greensv.plugins import Plugins
from greensv.speaker.backbone import Backbone
from greensv.speaker.space import Choice, IntRange, Parameter, Params, Space, Value, narrow

if TYPE_CHECKING:
    import optuna

BACKBONE_PARAMETER = "backbone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A backbone by name, and its parameters."""

    backbone: str
    params: Params


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The spaces of all backbones of a study.

    With one backbone, its parameters are the trial's parameters. With several, the trial also chooses `backbone`, and
    each parameter carries its backbone's name: `resnet.depth`.
    """

    backbones: Mapping[str, Backbone]
    spaces: Mapping[str, Space]

    @cached_property
    def _names(self) -> list[str]:
        return list(self.spaces)

    def suggest(self, trial: "optuna.Trial") -> Candidate:
        """Returns the candidate that the study's sampler (or its queue) proposes for `trial`."""
        name = self._names[0]
        if len(self._names) > 1:
            name = trial.suggest_categorical(BACKBONE_PARAMETER, self._names)
        params = {key: _suggest(trial, self._key(name, key), p) for key, p in self.spaces[name].items()}
        return Candidate(backbone=name, params=params)

    def trial_params(self, candidate: Candidate) -> dict[str, Value]:
        """Returns the candidate as a trial's parameters, for Optuna's queue."""
        params: dict[str, Value] = {self._key(candidate.backbone, k): v for k, v in candidate.params.items()}
        return params if len(self._names) == 1 else {BACKBONE_PARAMETER: candidate.backbone, **params}

    def candidate(self, trial_params: Mapping[str, Any]) -> Candidate:
        """Returns the candidate of a finished trial's parameters."""
        name = trial_params.get(BACKBONE_PARAMETER, self._names[0]) if len(self._names) > 1 else self._names[0]
        return Candidate(backbone=name, params={k: trial_params[self._key(name, k)] for k in self.spaces[name]})

    def ends(self) -> list[Candidate]:
        """Returns the cheapest and the dearest candidate of each backbone; one where they coincide."""
        found: list[Candidate] = []
        for name, space in self.spaces.items():
            for params in self.backbones[name].ends(space):
                candidate = Candidate(backbone=name, params=dict(params))
                if candidate not in found:
                    found.append(candidate)
        return found

    def draw(self, random: np.random.Generator) -> Candidate:
        """Returns a random candidate, each parameter drawn from its own range."""
        name = self._names[int(random.integers(len(self._names)))]
        return Candidate(backbone=name, params={k: _draw(p, random) for k, p in self.spaces[name].items()})

    def summary(self, candidate: Candidate) -> dict[str, object]:
        """Returns what the backbone says of the candidate beside its parameters, such as blocks per stage."""
        return self.backbones[candidate.backbone].summary(candidate.params)

    def _key(self, backbone: str, parameter: str) -> str:
        return parameter if len(self._names) == 1 else f"{backbone}.{parameter}"


def build_space(narrowings: Mapping[str, Mapping[str, Any]], plugins: Plugins) -> SearchSpace:
    """Returns the study's search space.

    Raises:
        PluginError: a backbone is not installed.
        ConfigError: a narrowing reaches outside its backbone's space.
    """
    backbones: dict[str, Backbone] = {name: plugins.get("backbone", name) for name in narrowings}
    problems: list[Problem] = []
    spaces = {name: _narrowed(backbones[name], spec, problems) for name, spec in narrowings.items()}
    if problems:
        raise ConfigError("\n".join(str(problem) for problem in problems))
    return SearchSpace(backbones=backbones, spaces=spaces)


def space_problems(narrowings: Mapping[str, Any], plugins: Plugins) -> list[Problem]:
    """Returns every mistake in `[backbones.*]` tables that only the installed backbones know."""
    problems: list[Problem] = []
    for name, spec in narrowings.items():
        where = f"backbones.{name}"
        if name not in plugins.components["backbone"]:
            problems.append(Problem(where=where, what=plugins.unknown("backbone", name)))
        elif isinstance(spec, Mapping):
            _narrowed(plugins.get("backbone", name), spec, problems)
    return problems


def _narrowed(backbone: Backbone, spec: Mapping[str, Any], problems: list[Problem]) -> Space:
    full = dict(backbone.space())
    for key, value in spec.items():
        where = f"backbones.{backbone.name}.{key}"
        if key not in full:
            problems.append(Problem(where=where, what=f"unknown parameter (known: {', '.join(full)})"))
            continue
        try:
            full[key] = narrow(full[key], value)
        except ValueError as error:
            problems.append(Problem(where=where, what=str(error)))
    return full


def _suggest(trial: "optuna.Trial", key: str, parameter: Parameter) -> Value:
    if isinstance(parameter, Choice):
        choice: str = trial.suggest_categorical(key, parameter.options)
        return choice
    if isinstance(parameter, IntRange):
        return trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _draw(parameter: Parameter, random: np.random.Generator) -> Value:
    if isinstance(parameter, Choice):
        return str(random.choice(list(parameter.options)))
    if isinstance(parameter, IntRange):
        if not parameter.log:
            return int(random.integers(parameter.low, parameter.high + 1))
        drawn = np.exp(random.uniform(np.log(parameter.low - 0.5), np.log(parameter.high + 0.5)))
        return min(max(round(float(drawn)), parameter.low), parameter.high)
    if parameter.step is not None:
        num_steps = round((parameter.high - parameter.low) / parameter.step)
        return parameter.low + parameter.step * int(random.integers(num_steps + 1))
    if parameter.log:
        return float(np.exp(random.uniform(np.log(parameter.low), np.log(parameter.high))))
    return float(random.uniform(parameter.low, parameter.high))


def format_params(params: Mapping[str, Any], summary: Mapping[str, object]) -> str:
    """Returns a candidate on one short line: its blocks per stage and channels where the backbone says them."""
    blocks, channels = summary.get("blocks"), summary.get("channels")
    if isinstance(blocks, Sequence) and isinstance(channels, Sequence):
        kind = f" {params['block']}" if "block" in params else ""
        return f"[{','.join(map(str, blocks))}] × [{','.join(map(str, channels))}]{kind}"
    return " ".join(f"{k}={v:.3g}" if isinstance(v, float) else f"{k}={v}" for k, v in params.items())
