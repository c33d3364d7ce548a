"""What a search minimises, and what its networks must not exceed: `search.objectives` and `search.constraints`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from greensv.errors import ConfigError, did_you_mean
from greensv.trial_record import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One figure of a trial, minimised."""

    name: str
    """In study.toml."""
    field: str
    """Of the trial's record, and the metric's name in Optuna's dashboard."""
    words: str
    """For people, with its unit."""
    is_logarithmic: bool = True
    """Compared by ratios, not by differences."""
    needs_training: bool = False
    """Only a training shows it; the others are known, or predicted, before."""


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(name="eer", field="eer", words="EER", is_logarithmic=False, needs_training=True),
        Objective(name="train_energy", field="train_energy_kwh", words="energy of the full recipe, kWh"),
        Objective(name="embed_energy", field="embed_energy_j", words="energy of embedding, J per second of speech"),
        Objective(name="params", field="num_parameters", words="parameters"),
        Objective(name="latency", field="latency_s", words="time to embed 3 s of speech alone, s"),
    )
}
_SUFFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3, "u": 1e-6}
_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_CONSTRAINT = re.compile(rf"^\s*([a-z_]+)\s*(<=|<)\s*({_NUMBER})\s*([kMGmu]?)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A figure that must stay below a bound."""

    objective: Objective
    bound: float
    text: str

    def excess(self, value: float) -> float:
        """Returns by how much of the bound a value exceeds it; at most 0 where it is kept."""
        return value / self.bound - 1.0


def objectives_of(names: Sequence[str]) -> tuple[Objective, ...]:
    """Returns the objectives of a study, in its order.

    Raises:
        ConfigError: one is not known or comes twice, `eer` is missing, or there are fewer than two or more than three.
    """
    for name in names:
        if name not in OBJECTIVES:
            known = ", ".join(OBJECTIVES)
            raise ConfigError(f"search.objectives: unknown {name!r}{did_you_mean(name, OBJECTIVES)} (known: {known})")
    if len(set(names)) < len(names) or not 2 <= len(names) <= 3 or "eer" not in names:
        raise ConfigError(
            f"search.objectives: found {', '.join(names) or 'none'}; give two or three different ones, eer among them"
        )
    return tuple(OBJECTIVES[name] for name in names)


def constraints_of(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """Returns constraints such as `params < 5M` or `latency < 20m` (k, M, G, m and u are powers of a thousand).

    Raises:
        ConfigError: one cannot be read, is on a figure that is not known or that has another bound, or can never be
            kept.
    """
    found: dict[str, Constraint] = {}
    for text in texts:
        match = _CONSTRAINT.match(text)
        if match is None or match[1] not in OBJECTIVES or float(match[3]) <= 0:
            raise ConfigError(
                f"search.constraints: {text!r} cannot be read; write one of {', '.join(OBJECTIVES)}, then < and a "
                "number above 0, such as 'params < 5M'"
            )
        bound = float(match[3]) * _SUFFIXES[match[4]]
        if match[1] in found:
            raise ConfigError(f"search.constraints: {match[1]} has two bounds; keep the lower one")
        if match[1] == "params" and bound < 1:
            raise ConfigError(f"search.constraints: {text!r} allows no parameter: m is a thousandth, M a million")
        found[match[1]] = Constraint(objective=OBJECTIVES[match[1]], bound=bound, text=" ".join(text.split()))
    return tuple(found.values())


def values_of(record: TrialRecord, objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """Returns a record's figures in the objectives' order; None when one was not measured."""
    values = [getattr(record, objective.field) for objective in objectives]
    return None if any(value is None for value in values) else tuple(float(value) for value in values)


def broken_constraints(record: TrialRecord, constraints: Sequence[Constraint]) -> list[str]:
    """Returns the constraints that a record breaks, in words."""
    broken = []
    for constraint in constraints:
        value = getattr(record, constraint.objective.field)
        if value is not None and constraint.excess(float(value)) > 0:
            broken.append(constraint.text)
    return broken
