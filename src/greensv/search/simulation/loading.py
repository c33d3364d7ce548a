"""Search problems by name or from a user's file, with everything they answer checked."""

import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any, TypeVar

from greensv.errors import ConfigError, did_you_mean
from greensv.search.simulation.problem import Outcome, Problem
from greensv.search.simulation.problems import problem_named
from greensv.search.simulation.surrogate import Table1Surrogate
from greensv.speaker.space import Params, Space, check_point

Answer = TypeVar("Answer")
MODULE = "greensv_user_problem"


def load_problem(name: str, *, kappa: float | None = None) -> Problem:
    """Returns a problem: one that comes with greensv, or `FILE.py:NAME`, checked.

    Args:
        name: what the user wrote.
        kappa: of the Table-1 surrogate: how far larger networks start behind.

    Raises:
        ConfigError: there is none, it cannot be loaded, or its definition does not hold together.
    """
    if kappa is not None:
        if name != "table1":
            raise ConfigError(f"--kappa belongs to the problem table1; {name!r} has none")
        if not math.isfinite(kappa) or abs(kappa) > 1:
            raise ConfigError(f"--kappa is between -1 and 1 (0.02 easy, 0.2 misleading), found {kappa:g}")
        return Table1Surrogate(kappa)
    if ".py" not in name and ":" not in name:
        return problem_named(name)
    return CheckedProblem(_from_file(name), source=name)


def _from_file(name: str) -> Problem:
    file, colon, attribute = name.rpartition(":")
    path = Path(file)
    if not colon or not attribute.isidentifier():
        raise ConfigError(f"--problem {name!r} does not say which problem; write FILE.py:NAME")
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"--problem {name!r}: there is no Python file {file!r}; write FILE.py:NAME")
    module = _module(path)
    found = vars(module).get(attribute)
    if found is None:
        known = [k for k, v in vars(module).items() if _is_problem(v) and v is not Problem]
        there = ", ".join(known) or "none"
        raise ConfigError(f"{path} has no {attribute!r}{did_you_mean(attribute, known)} (problems there: {there})")
    if isinstance(found, Problem):
        return found
    if not _is_problem(found):
        raise ConfigError(
            f"{attribute} in {path} is no search problem but {type(found).__name__}: derive it from "
            "greensv.search.simulation.problem.Problem"
        )
    problem: Problem = _call(found, f"{attribute}() in {path}")
    return problem


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module  # dataclasses in the file look themselves up there
    _call(lambda: spec.loader.exec_module(module), f"{path}")  # type: ignore[union-attr]
    return module


def _is_problem(value: object) -> bool:
    return isinstance(value, Problem) or (isinstance(value, type) and issubclass(value, Problem))


def _call(function: Callable[[], Answer], what: str) -> Answer:
    """Calls a user's code; whatever it raises becomes an error that names the place."""
    try:
        return function()
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "" if trace is None else f" (line {trace.tb_lineno} of {Path(trace.tb_frame.f_code.co_filename).name})"
        raise ConfigError(f"{what} raised {type(error).__name__}: {error}{where}; mend the problem") from error


class CheckedProblem(Problem):
    """A user's problem whose every answer is checked: a NaN would pass for a bad network, an exception for a bug."""

    def __init__(self, problem: Problem, *, source: str) -> None:
        """Checks what can be checked without training.

        Raises:
            ConfigError: name, steps, space, seeds, reference or a prediction are not as `Problem` says.
        """
        self._problem, self._source = problem, source
        self._reference: tuple[float, float] | None = None
        self.name = str(getattr(problem, "name", source))
        steps = _call(lambda: [int(step) for step in problem.rung_steps], f"{source}: rung_steps")
        if not steps or steps[0] < 1 or any(b <= a for a, b in pairwise(steps)):
            raise ConfigError(f"{source}: rung_steps are whole numbers that rise from 1 or more, found {steps}")
        self.rung_steps = tuple(steps)
        self._space = dict(_call(problem.space, f"{source}: space()"))
        if not self._space:
            raise ConfigError(f"{source}: space() is empty; give at least one parameter")
        for params in self.seeds():
            check_point(params, self._space, name=f"point of {source} (in its seeds())")
        self.reference()

    def space(self) -> Space:
        """Returns the problem's space."""
        return self._space

    def predict_kwh(self, params: Params, *, from_step: int, to_step: int) -> float:
        """Returns its prediction, above 0."""
        found = _call(
            lambda: self._problem.predict_kwh(params, from_step=from_step, to_step=to_step),
            self._at("predict_kwh", params),
        )
        return self._positive(found, "predict_kwh", params)

    def predict_train_energy_kwh(self, params: Params) -> float:
        """Returns its prediction, above 0."""
        found = _call(
            lambda: self._problem.predict_train_energy_kwh(params), self._at("predict_train_energy_kwh", params)
        )
        return self._positive(found, "predict_train_energy_kwh", params)

    def train(self, params: Params, *, seed: int, from_step: int, to_step: int) -> Outcome:
        """Returns its outcome: energies and duration above 0, an EER from 0 to 1."""
        outcome = _call(
            lambda: self._problem.train(params, seed=seed, from_step=from_step, to_step=to_step),
            self._at("train", params),
        )
        if not isinstance(outcome, Outcome):
            raise ConfigError(f"{self._at('train', params)} returned {type(outcome).__name__}; it returns an Outcome")
        for field in ("energy_kwh", "duration_s", "train_energy_kwh"):
            self._positive(getattr(outcome, field), f"train: {field}", params)
        self._rate(outcome.eer, "train: eer", params)
        return outcome

    def seeds(self) -> Sequence[Params]:
        """Returns its seeds."""
        return [dict(params) for params in _call(self._problem.seeds, f"{self._source}: seeds()")]

    def truth(self, params: Params) -> tuple[float, float]:
        """Returns its truth."""
        if type(self._problem).truth is Problem.truth:
            return super().truth(params)  # by way of what is checked above
        eer, energy_kwh = _call(lambda: self._problem.truth(params), self._at("truth", params))
        return self._rate(eer, "truth", params), self._positive(energy_kwh, "truth", params)

    def reference(self) -> tuple[float, float]:
        """Returns its reference point."""
        if self._reference is None:
            if type(self._problem).reference is Problem.reference:
                self._reference = super().reference()
            else:
                eer, energy_kwh = _call(self._problem.reference, f"{self._source}: reference()")
                self._reference = self._rate(eer, "reference", {}), self._positive(energy_kwh, "reference", {})
        return self._reference

    def _at(self, method: str, params: Params) -> str:
        return f"{self._source}: {method}({dict(params) or ''})"

    def _positive(self, value: object, what: str, params: Params) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
            raise ConfigError(f"{self._at(what, params)} is a number above 0, found {value!r}; mend the problem")
        return float(value)

    def _rate(self, value: object, what: str, params: Params) -> float:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise ConfigError(
                f"{self._at(what, params)} is an EER, a fraction from 0 to 1, found {value!r}; mend the problem"
            )
        return float(value)
