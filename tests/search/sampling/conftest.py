"""A search whose trainings are a formula: history, outlook and costs as a scheduler would hand them over."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.cost import Prediction
from greensv.search.objectives import Objective, objectives_of
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.policy import Outlook
from greensv.search.simulation.surrogate import Table1Surrogate
from greensv.speaker.backbone import Backbone
from greensv.units import j_from_kwh

PROBLEM = Table1Surrogate(kappa=0.1)


class Formula(Backbone):
    """The surrogate's space as a backbone."""

    name = "formula"

    def space(self):
        return PROBLEM.space()

    def build(self, params, *, features):
        raise AssertionError("nothing is trained")

    def systems(self):
        return {f"system {number}": params for number, params in enumerate(PROBLEM.seeds())}


@dataclass
class Formulas:
    """What the formula costs, and how many parameters it is said to have."""

    objectives: Sequence[Objective]
    forbidden: set[int] = field(default_factory=set)
    """Values of `blocks1` that do not fit the device."""

    def rung_costs(self, candidates: Sequence[Candidate], *, from_step: int, to_step: int) -> list[Prediction]:
        joules = [j_from_kwh(PROBLEM.predict_kwh(c.params, from_step=from_step, to_step=to_step)) for c in candidates]
        return [Prediction(energy_j=j, upper_j=1.15 * j, duration_s=j / 300) for j in joules]

    def known_objectives(self, candidates: Sequence[Candidate]) -> np.ndarray:
        figures = {"eer": lambda _: np.nan, "train_energy": PROBLEM.predict_train_energy_kwh, "params": num_parameters}
        rows = [[figures[o.name](c.params) for o in self.objectives] for c in candidates]
        return np.array(rows, dtype=np.float64).reshape(len(candidates), len(self.objectives))

    def refusal(self, candidate: Candidate) -> str | None:
        return "needs more memory than there is" if candidate.params["blocks1"] in self.forbidden else None


def num_parameters(params) -> float:
    return 1e5 * 4.0 ** params["width_log2"] * sum(v for k, v in params.items() if k != "width_log2")


@dataclass
class Race:
    """A search in memory, one candidate after another."""

    objectives: tuple[Objective, ...] = objectives_of(("eer", "train_energy"))
    history: History = field(default_factory=lambda: History(num_rungs=len(PROBLEM.rung_steps)))
    left_kwh: float = 50.0
    space: SearchSpace = field(
        default_factory=lambda: SearchSpace(backbones={"formula": Formula()}, spaces={"formula": PROBLEM.space()})
    )

    def __post_init__(self) -> None:
        self.costs = Formulas(self.objectives)
        self.num_trials = 0

    @property
    def outlook(self) -> Outlook:
        left_j = j_from_kwh(self.left_kwh)
        return Outlook(rung_steps=PROBLEM.rung_steps, cap_j=j_from_kwh(50.0), left_j=left_j, costs=self.costs)

    def train(self, candidate: Candidate, *, to_rung: int) -> None:
        """Puts a candidate's runs to a rung and those below it into the history."""
        for rung in range(to_rung + 1):
            step = PROBLEM.rung_steps[rung]
            outcome = PROBLEM.train(candidate.params, seed=self.num_trials, from_step=0, to_step=step)
            figures = {
                "eer": outcome.eer,
                "train_energy": outcome.train_energy_kwh,
                "params": num_parameters(candidate.params),
            }
            self.put(candidate, rung=rung, state="done", objectives=tuple(figures[o.name] for o in self.objectives))
        self.num_trials += 1

    def begin(self, candidate: Candidate, *, state="running") -> None:
        """Puts a candidate into the history that has shown nothing yet."""
        self.put(candidate, rung=0, state=state, objectives=None)
        self.num_trials += 1

    def put(self, candidate: Candidate, *, rung: int, state, objectives: tuple[float, ...] | None) -> None:
        key = RunKey(trial_number=self.num_trials, rung=rung)
        step = 0 if objectives is None else PROBLEM.rung_steps[rung]
        self.history.put(Run(key=key, state=state, candidate=candidate, step=step, objectives=objectives))

    def systems(self) -> list[Candidate]:
        """Returns the published systems."""
        return [Candidate(backbone="formula", params=params) for params in PROBLEM.seeds()]

    def train_some(self, num: int, *, seed: int = 0) -> None:
        """Trains the published systems to the top, and random candidates to lower rungs."""
        for system in self.systems():
            self.train(system, to_rung=3)
        random = np.random.default_rng(seed)
        for number in range(num):
            self.train(self.space.draw(random), to_rung=0 if number % 3 else 1)


@pytest.fixture
def race() -> Race:
    return Race()


@pytest.fixture
def race_of_three() -> Race:
    return Race(objectives=objectives_of(("eer", "train_energy", "params")))
