"""Gives a worker its next job and writes down what came of it: policy, sampler, money and Optuna brought together.

All state lies in the database, so any number of workers may each have a scheduler of their own. A real search and a
simulated one (`greensv.search.simulation`) drive the same one.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from greensv.energy.books.ledger import Ledger
from greensv.search.artifacts import training_name
from greensv.search.candidate import Candidate, SearchSpace
from greensv.search.jobs import SAVED_AS, SEED, Ended, Job, Money, Trials
from greensv.search.queue import CONTINUES_ATTRIBUTE, QUEUED_ATTRIBUTE, enqueue, holder_attributes, mark_held
from greensv.search.rungs.book import RungBook
from greensv.search.rungs.history import History, Run, RunKey
from greensv.search.scheduling.policy import (
    Continue,
    Costs,
    Finish,
    Move,
    Outlook,
    Policy,
    Promote,
    Propose,
    Repeat,
    Retire,
)
from greensv.search.study import OpenStudy, derive_seed
from greensv.units import format_energy

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

MAX_REFUSALS = 8
"""Candidates in a row that may be refused before a search gives up: queued ones may all be too dear."""
MAX_RACES = 64
"""Moves in a row that other workers may be faster at."""
NUM_SMALLER_DRAWS = 64
"""Random candidates looked at for one that fits what is left of the budget."""
WHOLE_MARGIN = 1.15
"""The policy grants a new candidate so many times what its whole short training is expected to use."""
RESERVE_MARGIN = 1.1
"""A run is not begun unless what is left covers its expected cost so many times."""


@dataclass(slots=True, kw_only=True)
class Scheduler:
    """One worker's scheduler."""

    study: OpenStudy
    space: SearchSpace
    book: RungBook
    ledger: Ledger
    money: Money
    policy: Policy
    costs: Costs
    rung_steps: Sequence[int]
    make_sampler: "Callable[[int, History, Outlook, Propose], BaseSampler]"
    trials: Trials
    max_trials: int | None = None
    _refusals: int = field(default=0, init=False)

    def begin(self) -> Job | Ended:
        """Returns what this worker should do next, reserved and claimed; or why there is nothing.

        Raises:
            StudyError: the database cannot be used.
        """
        self._refusals = 0
        for attempt in range(MAX_RACES):
            history = self.book.history()
            move = self._next_move(history, attempt)
            if isinstance(move, Finish):
                num_trials = history.num_trials
                is_draining = self.max_trials is not None and num_trials >= self.max_trials
                return Ended(because=f"{num_trials} trials were run" if is_draining else move.because)
            if isinstance(move, Retire):
                self._retire(move.runs, reason="promoted no more: others are better at less energy")
                continue
            job = self._take(move, history)
            if job is not None:
                return job
            if self._refusals >= MAX_REFUSALS:
                return Ended(because="what is left of the budget pays for no other candidate")
        return Ended(because="other workers took everything that was left to do")

    def reached(self, job: Job, objectives: Sequence[float], measured: Mapping[str, Any]) -> tuple[Run, bool]:
        """Writes down that a job has reached its rung, and settles its lease, in one transaction.

        Returns:
            The run as it stands now, and whether it was still this worker's: False when its lease had been reaped, so
            that others go on from what was saved last.
        """
        run = dataclasses.replace(
            job.run,
            state="done",
            step=job.to_step,
            objectives=tuple(float(v) for v in objectives),
            data={**job.run.data, **measured},
        )
        settled = self.ledger.settle(job.lease, within=self.book.reaching(run))
        return run, not settled.is_reaped

    def failed(self, job: Job, reason: str) -> bool:
        """Writes down that a job cannot be finished by anybody; returns whether it was still this worker's."""
        run = dataclasses.replace(job.run, state="failed", data={**job.run.data, "reason": reason})
        return not self.ledger.settle(job.lease, within=self.book.reaching(run)).is_reaped

    def left(self, job: Job, *, is_death: bool = False) -> bool:
        """Leaves a job to others, from its last saved step; returns whether it was still this worker's."""
        settled = self.ledger.settle(job.lease, within=self.book.leaving(job.run, is_death=is_death))
        return not settled.is_reaped

    def is_over(self) -> bool:
        """Whether as many candidates as were asked for have been begun, and none is on its way."""
        from optuna.trial import TrialState

        if self.max_trials is None or self.book.history().num_trials < self.max_trials:
            return False
        history = self.book.history()
        if self.paused(history) or history.in_state("waiting"):
            return False  # a larger budget may take them up
        return not self.study.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    def retire_all(self, *, reason: str) -> None:
        """Ends the trials that wait below the top; their runs stay in the book, so that a larger budget goes on."""
        history = self.book.history()
        for run in (*self.paused(history), *history.in_state("waiting")):
            history = self.book.history()  # another worker may have begun something meanwhile
            if history.in_state("running"):
                return
            if run.key.repetition == 0:
                self.trials.retired(run, reason)

    def paused(self, history: History) -> list[Run]:
        """Returns the runs that have reached a rung below the top and have not been promoted."""
        return [
            run
            for rung in range(history.top)
            for run in history.reached(rung)
            if run.state == "done" and history.above(run) is None
        ]

    def outlook(self, history: History) -> Outlook:
        """Returns what the policy decides upon beside the history."""
        return Outlook(
            rung_steps=self.rung_steps,
            cap_j=self.money.cap_j,
            left_j=self.money.left_j,
            costs=self.costs,
            is_draining=self.max_trials is not None and history.num_trials >= self.max_trials,
        )

    def _next_move(self, history: History, attempt: int) -> Move:
        seed = [self.study.config.seed, history.num_runs, attempt]
        return self.policy.next_move(history, self.outlook(history), random=np.random.default_rng(seed))

    def _take(self, move: Propose | Promote | Continue | Repeat, history: History) -> Job | None:
        match move:
            case Propose():
                return self._propose(move, history)
            case Promote():
                below = self._revived(move.run)
                key = dataclasses.replace(below.key, rung=move.rung)
                run = self._begun(key, below.candidate, step=below.step, must_finish=below.must_finish, after=below)
                return self._claim(run, after=below)
            case Continue():
                left = self._revived(move.run)
                run = dataclasses.replace(left, state="running", attempts=left.attempts + 1)
                return self._claim(run, after=self._below(run, history), is_left=True)
            case Repeat():
                key = dataclasses.replace(move.run.key, repetition=move.repetition)
                return self._claim(self._begun(key, move.run.candidate, step=0), after=None)

    def _begun(
        self, key: RunKey, candidate: Candidate, *, step: int, must_finish: bool = False, after: Run | None = None
    ) -> Run:
        """Returns a run that is about to be claimed. A training keeps its seed and its file under whatever number."""
        data = {SAVED_AS: training_name(key.trial_number, key.repetition), SEED: self._seed(key)}
        if after is not None:
            data = {name: after.data[name] for name in data}
        return Run(
            key=key,
            state="running",
            candidate=candidate,
            step=step,
            must_finish=must_finish,
            data=data,
        )

    def _below(self, run: Run, history: History) -> Run | None:
        """Returns the latest run of the same training that has reached a rung; None on the way to its first."""
        for rung in range(run.key.rung - 1, -1, -1):
            below = history.get(dataclasses.replace(run.key, rung=rung))
            if below is not None:
                return below
        return None

    def _claim(self, run: Run, *, after: Run | None, is_left: bool = False) -> Job | None:
        """Reserves the upper bound of a job's energy, or what is left where that still covers the expectation."""
        to_step = self.rung_steps[run.key.rung]
        (expected,) = self.costs.rung_costs([run.candidate], from_step=run.step, to_step=to_step)
        wanted_j = min(expected.upper_j, self.money.left_j)
        if wanted_j < RESERVE_MARGIN * expected.energy_j:
            self._refusals += 1
            return None
        lease = self.money.reserve(
            wanted_j, trial_number=run.key.trial_number, within=self.book.claiming(run, after=after, is_left=is_left)
        )
        if lease is None:
            return None
        return Job(
            run=run,
            after=after,
            candidate=run.candidate,
            seed=run.data[SEED],
            from_step=run.step,
            to_step=to_step,
            is_top=run.key.rung == len(self.rung_steps) - 1,
            expected=expected,
            lease=lease,
        )

    def _seed(self, key: RunKey) -> int:
        if key.repetition == 0:
            return derive_seed(self.study.config.seed, key.trial_number)
        sequence = np.random.SeedSequence([self.study.config.seed, key.trial_number, key.repetition])
        return int(sequence.generate_state(1)[0])

    def _propose(self, move: Propose, history: History) -> Job | None:
        """Asks Optuna for a new trial. One that cannot be trained or paid for is refused, and a smaller one queued."""
        from greensv.search.sampling.optuna_sampler import GreenSampler

        study = self.study.optuna
        number = len(study.get_trials(deepcopy=False))
        sampler = self.make_sampler(number, history, self.outlook(history), move)
        if isinstance(sampler, GreenSampler) and self._num_waiting() == 0 and sampler.proposal() is None:
            # Nothing that has not been tried is allowed, or can be paid for.
            self._refusals = MAX_REFUSALS
            return None
        study.sampler = sampler
        trial = study.ask()
        if trial.number != number:  # another worker was faster: with its seed, this one would propose the same
            study.sampler = self.make_sampler(trial.number, history, self.outlook(history), move)
        mark_held(trial)
        candidate = self.space.suggest(trial)
        reason = (
            self._queued_twice(trial, candidate, history)
            or self.costs.refusal(candidate)
            or self._too_dear(candidate, move)
        )
        if reason is None:
            run = self._begun(
                RunKey(trial_number=trial.number, rung=move.rung), candidate, step=0, must_finish=move.must_finish
            )
            job = self._claim(run, after=None)
            if job is not None:
                return job
            (expected,) = self.costs.rung_costs([candidate], from_step=0, to_step=self.rung_steps[move.rung])
            reason = f"{format_energy(expected.upper_j)} does not fit what is left of the budget"
        else:
            self._refusals += 1
        self.trials.refused(trial, candidate, reason)
        if self._refusals < MAX_REFUSALS and self._num_waiting() == 0:
            smaller = self._draw_affordable(move, number)
            if smaller is None:
                self._refusals = MAX_REFUSALS
            else:
                enqueue(study, self.space, [smaller], reason="fits what is left of the budget")
        return None

    def _queued_twice(self, trial: "optuna.Trial", candidate: Candidate, history: History) -> str | None:
        """Says that what several workers have queued at once is trained already; None if not."""
        queued_as = trial.user_attrs.get(QUEUED_ATTRIBUTE)
        if queued_as is None or " again: " in queued_as:
            return None
        same = next((run for run in history.all() if run.candidate == candidate), None)
        return None if same is None else f"queued twice: trial {same.key.trial_number} trains the same network"

    def _too_dear(self, candidate: Candidate, move: Propose) -> str | None:
        """Says that a candidate's whole short training would use more than the policy grants one; None if not."""
        (whole,) = self.costs.rung_costs([candidate], from_step=0, to_step=self.rung_steps[-1])
        if WHOLE_MARGIN * whole.energy_j <= move.within_j:
            return None
        if move.within_j >= self.money.left_j:
            return f"{format_energy(whole.energy_j)} does not fit what is left of the budget"
        return f"{format_energy(whole.energy_j)} for a whole short training is more than one candidate may use now"

    def _num_waiting(self) -> int:
        from optuna.trial import TrialState

        return len(self.study.optuna.get_trials(deepcopy=False, states=[TrialState.WAITING]))

    def _draw_affordable(self, move: Propose, number: int) -> Candidate | None:
        """Returns a random candidate that fits what is left and has not been run; None when none is found."""
        random = np.random.default_rng([self.study.config.seed, number])
        drawn = [self.space.draw(random) for _ in range(NUM_SMALLER_DRAWS)]
        costs = self.costs.rung_costs(drawn, from_step=0, to_step=self.rung_steps[-1])
        tried = {_identity(self.space, run.candidate) for run in self.book.history().all()}
        left_j = min(self.money.left_j, move.within_j)
        for candidate, expected in zip(drawn, costs, strict=True):
            fits = expected.energy_j * 1.25 < left_j
            if fits and self.costs.refusal(candidate) is None and _identity(self.space, candidate) not in tried:
                return candidate
        return None

    def _retire(self, runs: Sequence[Run], *, reason: str) -> None:
        for run in runs:
            if self.book.retire(run):
                self.trials.retired(run, reason)

    def _revived(self, run: Run) -> Run:
        """Returns the run under a trial that Optuna lets go on: one ended with an earlier budget gets a new number."""
        import optuna

        study, storage = self.study.optuna, self.study.optuna._storage
        trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, run.key.trial_number)
        frozen = storage.get_trial(trial_id)
        if not frozen.state.is_finished() or run.key.repetition:
            return run
        revived = optuna.trial.create_trial(
            state=optuna.trial.TrialState.RUNNING,
            params=frozen.params,
            distributions=frozen.distributions,
            user_attrs={**frozen.user_attrs, **holder_attributes(), CONTINUES_ATTRIBUTE: frozen.number},
        )
        number = storage.get_trial(storage.create_new_trial(study._study_id, template_trial=revived)).number
        if not self.book.rename(frozen.number, number):
            study.tell(number, state=optuna.trial.TrialState.FAIL)  # another worker was faster; its claim decides
            return run
        return dataclasses.replace(run, key=dataclasses.replace(run.key, trial_number=number))


def _identity(space: SearchSpace, candidate: Candidate) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(space.trial_params(candidate).items()))
