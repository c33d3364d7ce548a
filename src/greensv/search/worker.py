"""One worker of a search: takes job after job from the scheduler, trains it, and writes down what came of it."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self, cast

from sqlalchemy import Connection

from greensv.energy.books.budget import Lease, this_process
from greensv.errors import CheckpointError, GreensvError, StudyError, TeamBroken, TrainingError
from greensv.search.artifacts import ArtifactStore, MissingArtifactError
from greensv.search.candidate import format_params
from greensv.search.control import BudgetExhausted, Interrupted, TooDear
from greensv.search.cost import CostModel, Measured, priors
from greensv.search.cost.fitting import MemoryCheck
from greensv.search.cost.notebook import CostNotebook
from greensv.search.dashboard_curves import save_curves
from greensv.search.events import Noted, RungEnded, TrialStarted
from greensv.search.gate import BudgetGate
from greensv.search.jobs import Ended, Job
from greensv.search.measuring import check_team, first_line
from greensv.search.metering import CLOSING_S, Metering, reap_dead
from greensv.search.objectives import OBJECTIVES, values_of
from greensv.search.plan import make_plan, probe_space, step_speech_s
from greensv.search.queue import enqueue, reconcile
from greensv.search.rungs.book import RungBook
from greensv.search.rungs.costs import ModelCosts
from greensv.search.rungs.history import History, Run
from greensv.search.rungs.levels import rung_levels
from greensv.search.rungs.so_far import SoFar
from greensv.search.rungs.training import RungReached, RungTrainer, job_name
from greensv.search.sampling.named import make_sampler
from greensv.search.sampling.optuna_sampler import Situation
from greensv.search.sampling.seeding import first_candidates
from greensv.search.scheduler import Scheduler
from greensv.search.scheduling.green import GreenPolicy
from greensv.search.scheduling.policy import Outlook, Policy, Propose
from greensv.search.training_window import noted_window
from greensv.search.trial_book import TrialBook
from greensv.search.workbench import Workbench
from greensv.trial_record import TrialRecord
from greensv.units import format_energy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage

logger = logging.getLogger(__name__)

MEASURED = (OBJECTIVES["embed_energy"], OBJECTIVES["latency"])
"""What trained networks show, and the cost model predicts of others."""
CURVES_INTERVAL_S = 60.0
"""Seconds between two updates of the curves in the dashboard, which cost some commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountMoney:
    """The search's account, for the scheduler."""

    metering: Metering

    @property
    def cap_j(self) -> float:
        """The cap, in joules."""
        return self.metering.cap_j

    @property
    def left_j(self) -> float:
        """What can still be reserved, what ending in good order needs kept back."""
        return self.metering.left_j - CLOSING_S * self.metering.power_w

    def reserve(
        self, energy_j: float, *, trial_number: int, within: Callable[[Connection, Lease], bool]
    ) -> Lease | None:
        """Takes joules out of what is left; None when they do not fit, or `within` says no."""
        return self.metering.reserve(energy_j, purpose="training", trial_number=trial_number, within=within)


@dataclass(slots=True, kw_only=True)
class Worker:
    """A worker at work."""

    book: TrialBook
    rungs: RungBook
    policy: Policy
    scheduler: Scheduler
    trainer: RungTrainer
    model: CostModel
    costs: ModelCosts
    notebook: CostNotebook
    _shown_at_s: float = field(default_factory=time.monotonic, init=False)
    _known_parts: set[tuple[int, int, int]] = field(default_factory=set, init=False)

    @classmethod
    def open(cls, book: TrialBook, *, artifacts: ArtifactStore, max_trials: int | None) -> Self:
        """Returns a worker on this process's workbench; nothing has run yet."""
        bench, study = book.bench, book.study
        config = bench.config
        num_steps = config.search.num_epochs * (len(bench.corpus.train) // config.recipe.batch_size)
        levels = rung_levels(num_steps, config.search)
        holder = this_process()
        ledger = bench.metering.ledger
        rungs = RungBook(ledger, study.study_id, num_rungs=len(levels), worker=f"{holder.host} {holder.pid}")
        model = CostModel(prior=priors.of_device(bench.device))
        notebook = CostNotebook.of(bench)
        notebook.teach(model)
        costs = ModelCosts(
            bench=bench,
            model=model,
            objectives=book.objectives,
            constraints=book.constraints,
            unit_factor=book.unit_factor,
            memory=MemoryCheck.of(bench),
        )
        policy = GreenPolicy(config.search)
        scheduler = Scheduler(
            study=study,
            space=bench.space,
            book=rungs,
            ledger=ledger,
            money=AccountMoney(metering=bench.metering),
            policy=policy,
            costs=costs,
            rung_steps=levels,
            make_sampler=partial(_make_sampler, book, policy),
            trials=book,
            max_trials=max_trials,
        )
        return cls(
            book=book,
            rungs=rungs,
            policy=policy,
            scheduler=scheduler,
            trainer=RungTrainer(bench, rungs, artifacts, unit_factor=book.unit_factor),
            model=model,
            costs=costs,
            notebook=notebook,
        )

    @property
    def bench(self) -> Workbench:
        """What the trainings share."""
        return self.book.bench

    def run(self) -> str:
        """Takes jobs until something ends the search; returns what did.

        Raises:
            Interrupted, BudgetExhausted: by the user, by the account's end; the training at work is saved.
            GreensvError: the data, a meter or the database fails.
        """
        if self.scheduler.is_over():
            return f"all {self.scheduler.max_trials} trials had been run"
        self._learn(self.rungs.history())
        self._plan()
        self._queue_first()
        while True:
            self.bench.stop.check()
            self.bench.metering.check()
            with self.bench.metering.purpose("preparation"):
                reap_dead(self.bench.metering.ledger, self.book.study.study_id)
                self._learn(self.rungs.history())
                job = self.scheduler.begin()
            if isinstance(job, Ended):
                self.end_study(job.because)
                return job.because
            self._do(job)
            self._show_curves()

    def end_study(self, because: str) -> None:
        """Ends the trials that are on their way below the top, unless other workers are still at work."""
        if not self.rungs.history().in_state("running"):
            reconcile(self.book.study, self.rungs, self.bench.listen)
            self.scheduler.retire_all(reason=f"on its way when the search ended: {because}")
        self._show_curves(interval_s=0.0)

    def _show_curves(self, *, interval_s: float = CURVES_INTERVAL_S) -> None:
        """Brings the dashboard's figure up to date, not too often."""
        now = time.monotonic()
        if now - self._shown_at_s >= interval_s:
            self._shown_at_s = now
            study = self.book.study
            save_curves(study.optuna, study.records(), study.front())

    def _plan(self) -> None:
        bench = self.bench
        is_first = not self.model.measured
        if is_first:
            bench.listen(Noted(text="probing the ends of the search space on real batches"))
            probe_space(bench, self.model, seed=bench.config.seed)
        plan = make_plan(bench, self.model, seed=bench.config.seed)
        for line in plan.lines(self.scheduler.max_trials):
            bench.listen(Noted(text=line))
        levels = self.scheduler.rung_steps
        if len(levels) > 1:
            steps = ", ".join(f"{step:,}" for step in levels)
            bench.listen(Noted(text=f"trainings are compared after {steps} steps; only promising ones go on"))
        room = format_energy(bench.metering.head_room_j)
        bench.listen(
            Noted(
                text=f"the charge never exceeds the cap; true energy by {room} at most "
                "(peak power × (metering interval + step))"
            )
        )
        if is_first:
            plan.check()

    def _queue_first(self) -> None:
        """Queues what goes first, once in a study: what is there already is not queued again."""
        study, space = self.book.study, self.bench.space
        start = first_candidates(
            self.bench.config.search,
            space,
            self.costs,
            num_steps=self.scheduler.rung_steps[-1],
            study_name=study.config.name,
            storage=cast("RDBStorage", study.optuna._storage),
        )
        for note in start.notes:
            self.bench.listen(Noted(text=note))
        for first in start.first:
            enqueue(study.optuna, space, [first.candidate], reason=first.reason)

    def _do(self, job: Job) -> None:
        """Trains a job and writes down how it ended."""
        bench = self.bench
        is_trial = job.run.key.repetition == 0
        record = self.book.started(job.trial_number, job.candidate, seed=job.seed)
        if is_trial:
            self.book.begun(record)
        self._announce(job, record)
        afterwards_j = self.costs.after_training_j(job.candidate, from_step=job.from_step)
        gate = BudgetGate(bench.metering, job.lease, afterwards_j=afterwards_j)
        try:
            with (
                bench.metering.charger.hold(job.lease),
                noted_window(bench.metering, "trial", trial_number=job.trial_number),
                self._learning_memory(job),
            ):
                reached = self.trainer.run(job, gate)
        except (Interrupted, KeyboardInterrupt):
            self._leave(job, record, reason="interrupted")
            raise Interrupted from None
        except TooDear as error:
            work = bench.work(job.candidate).per_second
            self._add(work, error.joules_per_step, error.seconds_per_step)
            # Left to others it would be begun again: predictions say that it fits, and only the training knew better.
            self._fail(job, record, reason=str(error))
        except BudgetExhausted as error:
            self._leave(job, record, reason=str(error))
            raise
        except TrainingError as error:
            self._fail(job, record, reason=str(error))
        except TeamBroken:
            self._leave(job, record, reason="a process of its team died", is_death=True)
            raise
        except MissingArtifactError as error:
            self._fail(job, record, reason=str(error))
        except GreensvError as error:
            # The data, a meter or the ledger: it concerns the whole search, and the candidate deserves another try.
            with contextlib.suppress(StudyError):  # a database that is gone will find the job when its lease is reaped
                # A checkpoint that cannot be used would end every rerun: so it counts as an attempt.
                self._leave(job, record, reason=str(error), is_death=isinstance(error, CheckpointError))
            raise
        except Exception as error:
            logger.warning("%s could not be trained", job_name(job), exc_info=error)
            self._fail(job, record, reason=f"could not be trained: {first_line(error)}")
            check_team(bench, error)
        except BaseException:
            self.scheduler.left(job)
            raise
        else:
            self._reach(job, self.book.at_rung(record, reached), reached)

    def _reach(self, job: Job, record: TrialRecord, reached: RungReached) -> None:
        if job.from_step == 0:
            self._keep_cost(job, reached)
        is_trial = job.run.key.repetition == 0
        values = values_of(record, self.book.objectives)
        if values is None:
            missing = [o.name for o in self.book.objectives if getattr(record, o.field) is None]
            reason = f"the meters could not tell its {', '.join(missing)}: their counters change too rarely"
            self._fail(job, record, reason=reason)
            return
        shown = {o.name: float(getattr(record, o.field)) for o in MEASURED if getattr(record, o.field) is not None}
        self.costs.learn(job.candidate, shown)
        if is_trial:
            self.book.note(record)
            if job.is_top:
                self.book.note_constraints(record)
        measured = {**reached.so_far.as_json(), "hardware": self._hardware}
        _, is_ours = self.scheduler.reached(job, values, measured)
        if not is_ours:
            self.bench.listen(
                Noted(text=f"{job_name(job)}: its lease was closed by another worker, which goes on with it")
            )
            return
        if not job.is_top:
            self.bench.listen(RungEnded(record=record, rung=job.run.key.rung, num_rungs=len(self.scheduler.rung_steps)))
            self.bench.metering.tell(self.bench.listen)
            return
        self.trainer.forget(job)
        if is_trial:
            self.book.end(dataclasses.replace(record, state="complete"))
        else:
            self.book.repeated(dataclasses.replace(record, state="complete"), job.run.key.repetition)

    def _learning_memory(self, job: Job) -> AbstractContextManager[None]:
        """Has the memory that this training takes correct what is reckoned of others."""
        crop_s = self.bench.config.recipe.phases[0].crop_s
        memory = self.costs.memory
        return nullcontext() if memory is None else memory.learning(job.candidate, crop_s=crop_s)

    def _leave(self, job: Job, record: TrialRecord, *, reason: str, is_death: bool = False) -> None:
        """Leaves a job to whoever goes on with it, this command perhaps."""
        if self.scheduler.left(job, is_death=is_death) and job.run.key.repetition == 0:
            self.book.note(self.book.charged(record, reason=reason, was_interrupted=True))
        self.bench.listen(Noted(text=f"{job_name(job)} is left at its last saved step: {reason}"))

    def _fail(self, job: Job, record: TrialRecord, *, reason: str) -> None:
        if self.scheduler.failed(job, reason) and job.run.key.repetition == 0:
            self.trainer.forget(job)
            self.book.end(dataclasses.replace(self.book.charged(record, reason=reason), state="failed"))

    @property
    def _hardware(self) -> str:
        """What joules per step depend on beside the network and the study: points of other hardware teach nothing."""
        return f"{self.bench.device_words}; {'; '.join(f'{k} {v}' for k, v in self.bench.metering.domains().items())}"

    def _learn(self, history: History) -> None:
        """Lets the cost model know what this and other workers have measured on the same hardware."""
        newest: dict[int, Run] = {}
        for run in history.all():
            if run.is_reached and run.data.get("hardware") == self._hardware:
                known = newest.get(run.key.trial_number)
                if known is None or known.key.rung < run.key.rung:
                    newest[run.key.trial_number] = run
        for run in newest.values():
            part = (run.key.trial_number, run.key.repetition, run.key.rung)
            if part not in self._known_parts:
                self._known_parts.add(part)
                latest = SoFar.from_json(run.data).part
                if latest is not None:
                    self._add(self.bench.work(run.candidate).per_second, *latest)

    def _keep_cost(self, job: Job, reached: RungReached) -> None:
        """Keeps what a network's first rung has shown, and what had been predicted of it, for later studies."""
        so_far = reached.so_far
        joules, seconds = so_far.part or (0.0, 0.0)
        if joules <= 0 or seconds <= 0:
            return
        work, speech_s = self.bench.work(job.candidate).per_second, step_speech_s(self.bench)
        measured = Measured(work=work, joules=joules / speech_s, seconds=seconds / speech_s)
        predicted = self.model.predict(work, speech_s=1.0) if self.model.num_measured else None
        self.notebook.keep(measured, num_steps=so_far.steady_steps, predicted=predicted)

    def _add(self, work: Any, joules_per_step: float, seconds_per_step: float | None) -> None:
        if seconds_per_step:
            speech_s = step_speech_s(self.bench)
            self.model.add(Measured(work=work, joules=joules_per_step / speech_s, seconds=seconds_per_step / speech_s))

    def _announce(self, job: Job, record: TrialRecord) -> None:
        candidate = job.candidate
        summary: Mapping[str, object] = self.bench.space.summary(candidate)
        rung = job.run.key.rung
        levels = self.scheduler.rung_steps
        self.bench.listen(
            TrialStarted(
                number=record.number,
                candidate=f"{candidate.backbone} {format_params(candidate.params, summary)}",
                num_parameters=record.num_parameters or 0,
                macs=record.macs or 0,
                expected_j=job.expected.energy_j,
                expected_s=job.expected.duration_s,
                part=f"rung {rung + 1} of {len(levels)}" if len(levels) > 1 else "",
                repetition=job.run.key.repetition,
            )
        )


def _make_sampler(
    book: TrialBook, policy: Policy, trial_number: int, history: History, outlook: Outlook, move: Propose
) -> "BaseSampler":
    situation = Situation(
        history=history,
        outlook=dataclasses.replace(outlook, left_j=min(outlook.left_j, move.within_j)),
        space=book.bench.space,
        objectives=book.objectives,
        rung=move.rung,
        constraints=book.constraints,
    )
    return make_sampler(
        book.bench.config,
        trial_number=trial_number,
        num_backbones=len(book.bench.space.backbones),
        situation=situation,
        is_full_fidelity=policy.is_full_fidelity(history),
    )
