"""A table of learning curves as a search problem: trainings that were run once, replayed.

docs/benchmarks/learning-curves.md says how the table that comes with greensv was made, and what its columns are.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import ConfigError
from greensv.search.simulation.problem import Outcome, Problem
from greensv.speaker.space import IntRange, Params, Space
from greensv.units import kwh_from_j

Column = NDArray[np.float64]
Row = Mapping[str, str]
CURVES = ("eer", "eer_low", "eer_high", "energy_j", "scoring_j", "duration_s", "scoring_s", "full_recipe_j")
"""Columns of every row: what the development pairs show, what was used up to the rung, and the full recipe's energy."""
JUDGED = ("test_eer", "test_eer_low", "test_eer_high")
"""Columns of the last rung alone: EER of the test pairs and its interval over speakers."""
KEYS = ("architecture", "seed", "rung", "step")
ARCHITECTURE = "architecture"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """The columns of a table, of shape (architectures, seeds, rungs), the cheapest full recipe first."""

    columns: Mapping[str, Column]
    judged: Mapping[str, Column]
    """At the last rung, of shape (architectures, seeds)."""
    steps: tuple[int, ...]
    numbers: tuple[int, ...]
    """What each architecture is called in the table."""


class TableProblem(Problem):
    """Replays a table: proposals are its architectures, each trained with each of its seeds through all rungs.

    The one parameter counts the architectures from the cheapest full recipe to the dearest, so that a proposal made
    twice is known to be the same. Which of the table's seeds a training has depends on its own seed and its
    architecture. A method sees EERs of development pairs; what it returns is judged by the mean EER of the test pairs,
    of which those count as equal whose difference lies within the speakers' interval (see `tied`).
    """

    name = "learning-curves"

    def __init__(self, table: Path | Traversable) -> None:
        """Reads a table.

        Raises:
            ConfigError: it cannot be read, lacks a column, or has trainings that are not finished.
        """
        self._curves = read_curves(table)
        self.rung_steps: Sequence[int] = self._curves.steps
        columns, judged = self._curves.columns, self._curves.judged
        self._num_seeds = columns["eer"].shape[1]
        self._recipe_kwh = kwh_from_j(1.0) * columns["full_recipe_j"].mean(axis=1)
        self._true_eer = tied(judged["test_eer"].mean(axis=1), judged["test_eer_high"].mean(axis=1))

    def space(self) -> Space:
        """Returns the number of an architecture, by the energy of its full recipe."""
        last = len(self._curves.numbers) - 1
        return {ARCHITECTURE: IntRange(low=0, high=last, default=last // 2)}

    def predict_kwh(self, params: Params, *, from_step: int, to_step: int) -> float:
        """Returns the mean over the seeds: what a cost model that knows the network would say."""
        energies_j = [self._used("j", params, seed, from_step, to_step) for seed in range(self._num_seeds)]
        return kwh_from_j(float(np.mean(energies_j)))

    def predict_train_energy_kwh(self, params: Params) -> float:
        """Returns the energy of the full recipe, as measured at the last rung, mean over the seeds."""
        return float(self._recipe_kwh[int(params[ARCHITECTURE]), -1])

    def train(self, params: Params, *, seed: int, from_step: int, to_step: int) -> Outcome:
        """Replays a piece of one training, the scoring at its end included.

        Raises:
            ConfigError: the table has no such rung.
        """
        architecture = int(params[ARCHITECTURE])
        drawn = int(np.random.default_rng([seed, architecture]).integers(self._num_seeds))
        place = architecture, drawn, self._rung(to_step)
        return Outcome(
            energy_kwh=kwh_from_j(self._used("j", params, drawn, from_step, to_step)),
            duration_s=self._used("s", params, drawn, from_step, to_step),
            eer=float(self._curves.columns["eer"][place]),
            train_energy_kwh=kwh_from_j(float(self._curves.columns["full_recipe_j"][place])),
        )

    def truth(self, params: Params) -> tuple[float, float]:
        """Returns the EER of the test pairs, ties made equal, and the energy of the full recipe."""
        return float(self._true_eer[int(params[ARCHITECTURE])]), self.predict_train_energy_kwh(params)

    def _used(self, unit: str, params: Params, seed: int, from_step: int, to_step: int) -> float:
        """Returns the joules (`j`) or seconds (`s`) of training between two steps and of scoring at the second."""
        columns, architecture, rung = self._curves.columns, int(params[ARCHITECTURE]), self._rung(to_step)
        whole = columns["energy_j" if unit == "j" else "duration_s"][architecture, seed]
        # A training that was interrupted goes on from any step.
        before = np.interp(from_step, (0, *self.rung_steps), (0.0, *whole))
        return float(whole[rung] - before + columns[f"scoring_{unit}"][architecture, seed, rung])

    def _rung(self, step: int) -> int:
        if step not in self.rung_steps:
            rungs = ", ".join(map(str, self.rung_steps))
            raise ConfigError(f"the table has no trainings of {step} steps; its rungs: {rungs}")
        return self.rung_steps.index(step)


def learning_curves() -> TableProblem:
    """Returns the problem of the table that comes with greensv."""
    return TableProblem(files("greensv.search.simulation") / "learning-curves.csv")


def tied(eer: Column, high: Column) -> Column:
    """Returns error rates with those made equal that cannot be told apart.

    The lowest is tied with all up to the upper end of its interval, which take its value; then the lowest of the rest,
    and so on. Being tied is no equivalence (a and b, b and c, but not a and c): here the better one decides.

    Args:
        eer: one per architecture.
        high: the upper end of each one's 95 % interval.
    """
    result = eer.copy()
    left = np.argsort(eer, kind="stable")
    while len(left):
        best = left[0]
        is_tied = eer[left] <= high[best]
        result[left[is_tied]] = eer[best]
        left = left[~is_tied]
    return result


def read_curves(table: Path | Traversable) -> Curves:
    """Returns the curves of a table, one row per rung of each training.

    Raises:
        ConfigError: it cannot be read, lacks a column, or has trainings that are not finished.
    """
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the table of learning curves {table} cannot be read: {error}") from error
    if not rows:
        raise ConfigError(f"the table of learning curves {table} has no rows; benchmarks/learning_curves.py makes one")
    if missing := [name for name in (*KEYS, *CURVES, *JUDGED) if name not in rows[0]]:
        raise ConfigError(f"the table of learning curves {table} lacks columns: {', '.join(missing)}")
    try:
        return _curves(rows)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"the table of learning curves {table} has no finished training of every architecture, seed and rung "
            f"({type(error).__name__}: {error}); run benchmarks/learning_curves.py again, which trains what is missing"
        ) from error


def _curves(rows: Sequence[Row]) -> Curves:
    found = {(int(row["architecture"]), int(row["seed"]), int(row["rung"])): row for row in rows}
    numbers, seeds, rungs = (sorted(set(column)) for column in zip(*found, strict=True))

    def column(name: str) -> Column:
        return np.array([[[float(found[n, s, r][name]) for r in rungs] for s in seeds] for n in numbers])

    def judged(name: str) -> Column:
        return np.array([[float(found[n, s, rungs[-1]][name]) for s in seeds] for n in numbers])

    (steps,) = {tuple(int(found[n, s, r]["step"]) for r in rungs) for n in numbers for s in seeds}
    columns = {name: column(name) for name in CURVES}
    order = np.argsort(columns["full_recipe_j"][..., -1].mean(axis=1), kind="stable")
    return Curves(
        columns={name: values[order] for name, values in columns.items()},
        judged={name: judged(name)[order] for name in JUDGED},
        steps=steps,
        numbers=tuple(numbers[i] for i in order),
    )
