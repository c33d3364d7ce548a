"""Search methods on the Table-1 surrogate: hypervolume against energy, Syne Tune's MO-ASHA among them.

    uv run --with syne-tune==0.16.0 python benchmarks/search_methods.py --results results.jsonl --jobs 2

Each search is a line in the file of results; what is there is not run again, so that the command can be stopped and
continued. `--only greensv,tpe` runs some methods, `--analyse` none: it prints the tables of what is there.

Methods that train everything to the end do the same whatever kappa is, since kappa changes short trainings alone: they
are run once. Syne Tune's decision object (`MOASHA.on_trial_result`) decides what goes on, as shipped, and with ranks
instead of its sorted indices as priorities (see `CorrectedPriority`); its proposals are random, as it makes them.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from watched import machine

from greensv.config.study import SearchConfig
from greensv.search.objectives import objectives_of
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.policy import Continue, Move, Outlook, Promote, Propose, Retire
from greensv.search.scheduling.ranking import scaled
from greensv.search.simulation.comparison import SeedResult, curve_kwh, run_all, run_one
from greensv.search.simulation.hypervolume import scale_of
from greensv.search.simulation.loading import load_problem
from greensv.search.simulation.methods import METHODS, Method
from greensv.search.simulation.simulate import Setting

KAPPAS = (0.02, 0.1, 0.2)
AT_KWH = (5.0, 10.0, 20.0, 50.0)
BUDGET_KWH = 50.0
DEFAULT = "tpe-default"


class SyneTunePolicy:
    """Syne Tune's decisions: after each rung a training goes on at once, or never."""

    def __init__(self, config: SearchConfig, make_priority: Callable[[], Any]) -> None:
        self._objectives = objectives_of(config.objectives)
        self._make_priority = make_priority
        self._moasha: Any = None
        self._goes_on: dict[RunKey, bool] = {}

    def next_move(self, history: History, outlook: Outlook, *, random: np.random.Generator) -> Move:
        """Returns what a free worker should do: go on with what Syne Tune lets go on, else begin a new candidate."""
        if waiting := history.in_state("waiting"):
            return Continue(run=waiting[0])
        for rung in range(history.top - 1, -1, -1):
            for run in history.reached(rung):
                if run.state != "done" or history.above(run) is not None:
                    continue
                (cost,) = outlook.costs.rung_costs(
                    [run.candidate], from_step=run.step, to_step=outlook.rung_steps[rung + 1]
                )
                if self._decision(run, outlook) and cost.upper_j <= outlook.left_j:
                    return Promote(run=run, rung=rung + 1)
                return Retire(runs=[run])
        return Propose(rung=0)

    def is_full_fidelity(self, history: History) -> bool:
        """Returns False: it stops at whatever rungs there are."""
        return False

    def _decision(self, run: Run, outlook: Outlook) -> bool:
        if run.key not in self._goes_on:
            self._goes_on[run.key] = self._asked(run, outlook.rung_steps)
        return self._goes_on[run.key]

    def _asked(self, run: Run, rung_steps: Sequence[int]) -> bool:
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        if self._moasha is None:
            self._moasha = MOASHA(
                config_space={},
                metrics=["eer", "log_kwh"],
                time_attr="step",
                multiobjective_priority=self._make_priority(),
                grace_period=rung_steps[0],
                max_t=rung_steps[-1],
                reduction_factor=3,
            )
        trial = Trial(trial_id=run.key.trial_number, config={}, creation_time=datetime.now(UTC))
        if run.key.rung == 0:
            self._moasha.on_trial_add(trial)
        # Per cent and ln kWh, so that its epsilon-net, which does not scale, sees both.
        eer, log_kwh = scaled(np.array([run.objectives]), self._objectives)[0]
        result = {"step": rung_steps[run.key.rung], "eer": 100 * eer, "log_kwh": log_kwh}
        return bool(self._moasha.on_trial_result(trial, result) == "CONTINUE")


def as_shipped(config: SearchConfig) -> SyneTunePolicy:
    """Returns Syne Tune's decisions with its own priorities."""
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    return SyneTunePolicy(config, NonDominatedPriority)


def corrected(config: SearchConfig) -> SyneTunePolicy:
    """Returns Syne Tune's decisions with ranks as priorities."""
    return SyneTunePolicy(config, corrected_priority)


def corrected_priority() -> Any:
    """Returns its non-dominated priority, a rank for each item: as shipped, it is the item that has each rank."""
    from syne_tune.optimizer.schedulers.multiobjective.multiobjective_priority import NonDominatedPriority

    class CorrectedPriority(NonDominatedPriority):
        def priority_unsafe(self, objectives: Any) -> Any:
            return np.argsort(super().priority_unsafe(objectives))

    return CorrectedPriority()


def syne_tune(name: str, words: str, make_policy: Callable[[SearchConfig], SyneTunePolicy]) -> Method:
    """Returns a method whose policy is Syne Tune's."""
    search = SearchConfig(scheduler="rungs", sampler="random", repeat_share=0.0)
    return Method(name=name, search=search, words=words, make_policy=make_policy)


ALL = {
    **METHODS,
    "syne-tune": syne_tune("syne-tune", "Syne Tune's MO-ASHA as shipped", as_shipped),
    "syne-tune-corrected": syne_tune("syne-tune-corrected", "the same, its ranking corrected", corrected),
}


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default=",".join(ALL))
    parser.add_argument("--kappas", default=",".join(map(str, KAPPAS)))
    parser.add_argument("--analyse", action="store_true")
    arguments = parser.parse_args()
    if not arguments.analyse:
        for kappa in map(float, arguments.kappas.split(",")):
            run_missing(arguments, kappa)
    analyse(arguments)


def run_missing(arguments: argparse.Namespace, kappa: float) -> None:
    """Runs what the file of results lacks on one problem, and adds a line for each search."""
    known = {(r["kappa"], r["method"], r["seed"]) for r in read(arguments.results)}
    names = [name for name in arguments.only.split(",") if is_run_with(name, kappa)]
    wanted = [
        (ALL[name], seed) for seed in range(arguments.seeds) for name in names if (kappa, name, seed) not in known
    ]
    if not wanted:
        return
    load = partial(load_problem, "table1", kappa=kappa)
    setting = Setting(budget_kwh=BUDGET_KWH)
    run = partial(run_one, load, setting=setting, scale=scale_of(load()), at_kwh=AT_KWH)
    began_s = time.monotonic()
    with arguments.results.open("a", encoding="utf-8") as file:
        for number, result in enumerate(run_all(run, wanted, num_jobs=arguments.jobs), start=1):
            file.write(json.dumps({"kappa": kappa, **asdict(result)}) + "\n")
            file.flush()
            print(f"kappa {kappa}: {number} of {len(wanted)}, {time.monotonic() - began_s:.0f} s", flush=True)


def is_run_with(name: str, kappa: float) -> bool:
    """Whether a method has runs of its own with this kappa: whole trainings are alike with all of them."""
    return ALL[name].search.scheduler == "rungs" or kappa == 0.1


def read(path: Path) -> list[dict[str, Any]]:
    """Returns the results so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def analyse(arguments: argparse.Namespace) -> None:
    """Prints one table for each kappa."""
    found = read(arguments.results)
    print(f"\n{machine()}; budget {BUDGET_KWH:g} kWh, means ± standard deviations between seeds")
    for kappa in KAPPAS:
        results = {
            name: [
                SeedResult(**{k: v for k, v in r.items() if k != "kappa"})
                for r in found
                if r["method"] == name and r["kappa"] == (kappa if is_run_with(name, kappa) else 0.1)
            ][: arguments.seeds]
            for name in ALL
        }
        print(f"\nkappa = {kappa:g}\n\n| method | seeds | {' | '.join(f'{at:g} kWh' for at in AT_KWH)} | passes |")
        print("| --- | ---: |" + " ---: |" * (len(AT_KWH) + 1))
        level = mean_curve(results[DEFAULT])[-1] if results[DEFAULT] else None
        for name, of_method in results.items():
            if of_method:
                print(row(name, of_method, level))


def row(name: str, results: Sequence[SeedResult], level: float | None) -> str:
    """Returns a row: fractions at the checkpoints, and where the mean passes what Optuna's default has at the end."""
    fractions = np.array([result.fractions for result in results])
    cells = [f"{column.mean():.3f} ± {column.std(ddof=1) if len(column) > 1 else 0:.3f}" for column in fractions.T]
    is_there = mean_curve(results) >= (np.inf if level is None else level)
    passes = f"{curve_kwh(BUDGET_KWH)[int(np.argmax(is_there))]:.2f} kWh" if is_there.any() else "–"
    return f"| {ALL[name].words} (`{name}`) | {len(results)} | {' | '.join(cells)} | {passes} |"


def mean_curve(results: Sequence[SeedResult]) -> np.ndarray:
    """Returns the mean over seeds of the hypervolume fraction at `curve_kwh`."""
    return np.array([result.curve for result in results]).mean(axis=0)


if __name__ == "__main__":
    main()
