"""Search methods compared on one problem: how much of the best front each has, at each energy spent, over seeds."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from greensv.search.simulation.hypervolume import NUM_POINTS, Scale, scale_of
from greensv.search.simulation.methods import Method
from greensv.search.simulation.problem import Problem
from greensv.search.simulation.simulate import Setting, simulate

NUM_CURVE_POINTS = 200
"""Of a curve of hypervolume against energy, evenly spaced up to the budget."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """What one method did with one seed."""

    method: str
    seed: int
    fractions: tuple[float, ...]
    """Hypervolume fractions at the checkpoints."""
    curve: tuple[float, ...]
    spent_kwh: float
    num_trials: int
    num_runs: int
    num_deaths: int
    front_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All results on one problem."""

    problem: str
    setting: Setting
    scale: Scale
    at_kwh: tuple[float, ...]
    """The checkpoints."""
    methods: tuple[Method, ...]
    results: tuple[SeedResult, ...]
    """By method, then by seed."""

    @property
    def curve_kwh(self) -> NDArray[np.float64]:
        """The energies of the curves' points."""
        return curve_kwh(self.setting.budget_kwh)

    def of(self, method: str) -> list[SeedResult]:
        """Returns a method's results, by seed."""
        return [result for result in self.results if result.method == method]

    def fractions(self, method: str) -> NDArray[np.float64]:
        """Returns its hypervolume fractions, (seeds, checkpoints)."""
        return np.array([result.fractions for result in self.of(method)], dtype=np.float64)

    def curves(self, method: str) -> NDArray[np.float64]:
        """Returns its curves, (seeds, points)."""
        return np.array([result.curve for result in self.of(method)], dtype=np.float64)

    def passes_kwh(self, method: str, *, level: float) -> float | None:
        """Returns the energy from which on its mean curve is at least at a level; None: never."""
        is_there = self.curves(method).mean(axis=0) >= level
        return float(self.curve_kwh[int(np.argmax(is_there))]) if is_there.any() else None

    def as_json(self) -> dict[str, Any]:
        """Returns everything but the curves as plain values; energies in kWh, fractions of the best hypervolume."""
        return {
            "problem": self.problem,
            "budget_kwh": self.setting.budget_kwh,
            "num_workers": self.setting.num_workers,
            "num_seeds": len({result.seed for result in self.results}),
            "reference": {"eer": self.scale.reference[0], "train_energy_kwh": self.scale.reference[1]},
            "best_hypervolume": self.scale.best,
            "methods": {method.name: self._method_as_json(method) for method in self.methods},
        }

    def _method_as_json(self, method: Method) -> dict[str, Any]:
        results, fractions = self.of(method.name), self.fractions(method.name)
        return {
            "scheduler": method.search.scheduler,
            "sampler": method.search.sampler,
            "hypervolume_fraction": [
                {
                    "energy_kwh": at,
                    "mean": float(column.mean()),
                    "deviation": deviation(column),
                    "by_seed": column.tolist(),
                }
                for at, column in zip(self.at_kwh, fractions.T, strict=True)
            ],
            "mean_spent_kwh": float(np.mean([r.spent_kwh for r in results])),
            "mean_num_trials": float(np.mean([r.num_trials for r in results])),
            "mean_num_runs": float(np.mean([r.num_runs for r in results])),
            "mean_front_size": float(np.mean([r.front_size for r in results])),
            "num_deaths": sum(r.num_deaths for r in results),
        }


def curve_kwh(budget_kwh: float) -> NDArray[np.float64]:
    """Returns the energies at which curves are sampled."""
    return budget_kwh * np.arange(1, NUM_CURVE_POINTS + 1) / NUM_CURVE_POINTS


def deviation(values: NDArray[np.float64]) -> float | None:
    """Returns the standard deviation between seeds (n - 1); None of a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def compare(
    load: Callable[[], Problem],
    methods: Sequence[Method],
    setting: Setting,
    *,
    num_seeds: int,
    at_kwh: Sequence[float],
    num_jobs: int = 1,
    num_points: int = NUM_POINTS,
    advance: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Runs each method with each seed.

    Args:
        load: makes the problem, in every process anew; it must be picklable where there are several jobs.
        methods: to compare.
        setting: what all are given alike.
        num_seeds: seeds 0, 1, …
        at_kwh: checkpoints of energy spent.
        num_jobs: processes; with one, this process does all.
        num_points: random points by which the best front is estimated.
        advance: told the method after each run.

    Raises:
        ConfigError: the problem cannot be loaded or answers what it must not.
        StudyError: the database cannot be used.
    """
    problem = load()
    scale = scale_of(problem, num_points=num_points)
    run = partial(run_one, load, setting=setting, scale=scale, at_kwh=tuple(at_kwh))
    wanted = [(method, seed) for seed in range(num_seeds) for method in methods]
    found: list[SeedResult] = []
    for result in run_all(run, wanted, num_jobs=num_jobs):
        found.append(result)
        advance(result.method)
    order = {method.name: place for place, method in enumerate(methods)}
    return Comparison(
        problem=problem.name,
        setting=setting,
        scale=scale,
        at_kwh=tuple(at_kwh),
        methods=tuple(methods),
        results=tuple(sorted(found, key=lambda result: (order[result.method], result.seed))),
    )


def run_one(
    load: Callable[[], Problem], method: Method, seed: int, *, setting: Setting, scale: Scale, at_kwh: Sequence[float]
) -> SeedResult:
    """Runs one method with one seed and scores it."""
    problem = load()
    trace = simulate(problem, method, setting, seed=seed)
    return SeedResult(
        method=method.name,
        seed=seed,
        fractions=tuple(trace.fraction(at, problem=problem, scale=scale) for at in at_kwh),
        curve=tuple(trace.fraction(at, problem=problem, scale=scale) for at in curve_kwh(setting.budget_kwh).tolist()),
        spent_kwh=trace.spent_kwh + trace.overrun_kwh,
        num_trials=trace.num_trials,
        num_runs=trace.num_runs,
        num_deaths=trace.num_deaths,
        front_size=len(trace.returned(setting.budget_kwh)),
    )


def run_all(
    run: Callable[[Method, int], SeedResult], wanted: Sequence[tuple[Method, int]], *, num_jobs: int
) -> Iterator[SeedResult]:
    """Yields the results of runs as they end: in this process with one job, else in so many of their own."""
    if num_jobs == 1:
        for method, seed in wanted:
            yield run(method, seed)
        return
    # Spawned, not forked: a fork would copy the locks of a database driver's threads.
    with _one_thread_each(), ProcessPoolExecutor(num_jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run, method, seed) for method, seed in wanted]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes begun meanwhile compute in one thread each: small matrices in many threads wait for one another."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
