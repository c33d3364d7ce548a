"""A search of a problem in memory: candidates are trained by the problem, everything else is the real policy."""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.cost import Prediction
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.policy import Continue, Finish, Move, Outlook, Policy, Promote, Propose, Repeat, Retire
from greensv.search.simulation.problem import Problem
from greensv.units import j_from_kwh

MAX_REFUSALS = 8


@dataclass(frozen=True)
class ProblemCosts:
    """What a problem says of costs."""

    problem: Problem

    def rung_costs(self, candidates: Sequence[Candidate], *, from_step: int, to_step: int) -> list[Prediction]:
        found = [
            j_from_kwh(self.problem.predict_kwh(c.params, from_step=from_step, to_step=to_step)) for c in candidates
        ]
        return [Prediction(energy_j=j, upper_j=1.15 * j, duration_s=j / 300) for j in found]

    def known_objectives(self, candidates: Sequence[Candidate]) -> np.ndarray:
        return np.array([[np.nan, self.problem.predict_train_energy_kwh(c.params)] for c in candidates])

    def refusal(self, candidate: Candidate) -> str | None:
        return None


@dataclass
class MemorySearch:
    """Workers that ask a policy and train, in simulated time; money is reserved before and settled after."""

    problem: Problem
    policy: Policy
    budget_kwh: float
    seed: int = 0
    num_workers: int = 1
    max_trials: int = 10**9
    queue: list[Candidate] = field(default_factory=list)
    objectives_of: Callable[[Candidate, object], tuple[float, ...]] = lambda _, outcome: (
        outcome.eer,
        outcome.train_energy_kwh,
    )
    fails: Callable[[Run], bool] = lambda run: False
    dies: Callable[[Run], bool] = lambda run: False

    def __post_init__(self) -> None:
        self.history = History(num_rungs=len(self.problem.rung_steps))
        self.moves: list[Move] = []
        self.spent_j = 0.0
        self.reserved_j = 0.0
        self.num_refused = 0
        self._space = SearchSpace(backbones={}, spaces={"surrogate": self.problem.space()})
        self._random = np.random.default_rng(self.seed)
        self._costs = ProblemCosts(self.problem)
        self._running: list[tuple[float, int, Run, float]] = []
        self._now_s = 0.0

    def outlook(self) -> Outlook:
        cap_j = j_from_kwh(self.budget_kwh)
        return Outlook(
            rung_steps=self.problem.rung_steps,
            cap_j=cap_j,
            left_j=cap_j - self.spent_j - self.reserved_j,
            costs=self._costs,
            is_draining=len({run.key.trial_number for run in self.history.all()}) >= self.max_trials,
        )

    def run(self) -> "MemorySearch":
        while True:
            while len(self._running) < self.num_workers and self._begin():
                pass
            if not self._running:
                return self
            self._end()

    def count(self) -> Counter[str]:
        return Counter(type(move).__name__ for move in self.moves)

    def _begin(self) -> bool:
        outlook = self.outlook()
        move = self.policy.next_move(self.history, outlook, random=self._random)
        self.moves.append(move)
        if isinstance(move, Finish):
            return False
        if isinstance(move, Retire):
            for run in move.runs:
                assert self.history.get(run.key).state == "done"
                self.history.put(replace(run, state="retired"))
            return True
        run = self._taken(move)
        if run is None:
            self.num_refused += 1
            return self.num_refused < MAX_REFUSALS
        reserved_j = 1.15 * self._cost_j(run, to_step=self.problem.rung_steps[run.key.rung])
        assert reserved_j <= outlook.left_j, f"{move} does not fit what is left"
        assert self.history.get(run.key) is None or isinstance(move, Continue)
        self.history.put(run)
        self.reserved_j += reserved_j
        heapq.heappush(self._running, (self._now_s + reserved_j / 300, len(self.moves), run, reserved_j))
        return True

    def _taken(self, move: Propose | Promote | Continue | Repeat) -> Run | None:
        if isinstance(move, Continue):
            return replace(move.run, state="running", attempts=move.run.attempts + 1)
        if isinstance(move, Promote):
            key = replace(move.run.key, rung=move.rung)
            return replace(move.run, key=key, state="running", objectives=None)
        if isinstance(move, Repeat):
            key = replace(move.run.key, repetition=move.repetition)
            return replace(move.run, key=key, state="running", objectives=None, step=0)
        candidate = self.queue.pop(0) if self.queue else self._tilted()
        number = len({run.key.trial_number for run in self.history.all()})
        key = RunKey(trial_number=number, rung=move.rung)
        run = Run(key=key, state="running", candidate=candidate, step=0, must_finish=move.must_finish)
        return run if 1.15 * self._cost_j(run, to_step=self.problem.rung_steps[-1]) <= move.within_j else None

    def _tilted(self) -> Candidate:
        pool = [self._space.draw(self._random) for _ in range(16)]
        weights = np.array([1 / self.problem.predict_train_energy_kwh(c.params) for c in pool])
        return pool[int(self._random.choice(len(pool), p=weights / weights.sum()))]

    def _cost_j(self, run: Run, *, to_step: int) -> float:
        return j_from_kwh(self.problem.predict_kwh(run.candidate.params, from_step=run.step, to_step=to_step))

    def _end(self) -> None:
        self._now_s, _, run, reserved_j = heapq.heappop(self._running)
        self.reserved_j -= reserved_j
        to_step = self.problem.rung_steps[run.key.rung]
        if run.attempts == 1 and self.dies(run):
            middle = (run.step + to_step) // 2
            self.spent_j += self._cost_j(run, to_step=middle)
            self.history.put(replace(run, state="waiting", step=middle))
            return
        seed = 1000 * self.seed + 10 * run.key.trial_number + run.key.repetition
        outcome = self.problem.train(run.candidate.params, seed=seed, from_step=run.step, to_step=to_step)
        self.spent_j += j_from_kwh(outcome.energy_kwh)
        if self.fails(run):
            self.history.put(replace(run, state="failed"))
            return
        values = self.objectives_of(run.candidate, outcome)
        self.history.put(replace(run, state="done", step=to_step, objectives=values))


def seeds_of(problem: Problem) -> list[Candidate]:
    return [Candidate(backbone="surrogate", params=params) for params in problem.seeds()]
