"""A whole search, start to end: open, prepare, probe, plan, then candidate after candidate inside the budget."""

import dataclasses
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from greensv.config import StudyConfig
from greensv.energy.books.ledger import Ledger
from greensv.energy.grid.series import GridCarbon
from greensv.energy.grid.watch import CarbonWatch
from greensv.errors import BudgetError, GreensvError, TeamBroken, TrainingError
from greensv.plugins import Plugins
from greensv.search.accounts import SEARCH
from greensv.search.candidate import Candidate, format_params
from greensv.search.carbon import open_carbon
from greensv.search.choosing import choose
from greensv.search.control import BudgetExhausted, Interrupted, TooDear
from greensv.search.cost import CostModel, Measured, Prediction
from greensv.search.crew import assembled
from greensv.search.evaluator import evaluate
from greensv.search.events import FrontKnown, JobOpened, Listener, Noted, TrialStarted
from greensv.search.front import pareto_front
from greensv.search.gate import BudgetGate
from greensv.search.idling import learn_idle_power
from greensv.search.measuring import check_team, first_line
from greensv.search.metering import reap_dead
from greensv.search.plan import make_plan, predict_after_training_j, probe_space, step_speech_s
from greensv.search.queue import enqueue, reconcile, requeue, requeue_after_death
from greensv.search.reference import reference_in_force
from greensv.search.session import Session, open_session
from greensv.search.study import OpenStudy, check_environment, create_or_continue
from greensv.search.training_window import noted_window
from greensv.search.trial_book import TrialBook, component_versions
from greensv.search.workbench import Workbench, environment
from greensv.trial_record import TrialRecord
from greensv.units import format_energy, uj_from_kwh

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """How a search ended."""

    study: OpenStudy
    ended_because: str
    was_interrupted: bool
    head_room_j: float
    carbon: GridCarbon


def run_search(
    config: StudyConfig,
    *,
    storage: "RDBStorage",
    ledger: Ledger,
    plugins: Plugins,
    budget_kwh: float,
    max_trials: int | None,
    listen: Listener,
    finish: "Callable[[SearchResult], None]",
) -> SearchResult:
    """Runs or continues a search until its budget, its trials or the user's patience end.

    Args:
        config: the study; stored with it before anything runs.
        storage: Optuna's storage.
        ledger: our books in the same database.
        plugins: the installed components.
        budget_kwh: cap of the search account; a rerun may raise it.
        max_trials: end when so many trials have been run in the whole study; None: the budget decides.
        listen: told what happens.
        finish: called at the end while energy is still metered, so that a report is charged too.

    Raises:
        StudyError: a study of that name has another configuration.
        BudgetError: the cap is below an earlier one, or cannot pay for a few trials.
        DataError, MeterError, ConfigError: the corpus, a meter or the device cannot be used.
        TeamBroken: a process that torchrun started beside this one has died.
    """
    with assembled(config) as crew:
        study = create_or_continue(config, storage, versions=component_versions(config, plugins))
        ledger.open_account(study.study_id, SEARCH, uj_from_kwh(budget_kwh))
        reap_dead(ledger, study.study_id)
        reconcile(study, ledger, listen)
        carbon = open_carbon(config.energy, plugins=plugins, ledger=ledger, study_id=study.study_id)
        if study.records() and ledger.statement(study.study_id, SEARCH).left_uj <= 0:
            because = "the budget is used up; raise it with --budget-kwh"
            result = SearchResult(
                study=study,
                ended_because=because,
                was_interrupted=False,
                head_room_j=0.0,
                carbon=carbon.grid(SEARCH),
            )
            finish(result)
            return result
        with (
            open_session(
                config,
                plugins=plugins,
                ledger=ledger,
                study_id=study.study_id,
                account=SEARCH,
                crew=crew,
                listen=listen,
            ) as session,
            carbon,
        ):
            because = _search(session, study, carbon=carbon, max_trials=max_trials)
            carbon.refresh()
            session.metering.charger.flush()
            result = SearchResult(
                study=study,
                ended_because=because,
                was_interrupted=session.stop.is_set,
                head_room_j=session.metering.head_room_j,
                carbon=carbon.grid(SEARCH),
            )
            with session.metering.purpose("report"):
                finish(result)
            session.metering.tell(listen)
        # Again, with what the report itself has used.
        return dataclasses.replace(result, carbon=carbon.grid(SEARCH))


def _search(session: Session, study: OpenStudy, *, carbon: CarbonWatch, max_trials: int | None) -> str:
    """Runs trials; returns why it ended."""
    records = study.records()
    session.listen(JobOpened(study=study.config.name, records=records, metering=session.metering, carbon=carbon))
    session.listen(FrontKnown(front=pareto_front(records)))
    found = environment(session.config, session.metering.domains(), session.crew)
    check_environment(study, found)
    reference = reference_in_force(session, study, found)
    try:
        with session.interruptible():
            learn_idle_power(session)
            with noted_window(session.metering, "search"):
                book = TrialBook(study=study, bench=session.open_workbench(), carbon=carbon, reference=reference)
                return _Search(book=book, max_trials=max_trials).run()
    except Interrupted:
        return "interrupted; the same command continues"
    except BudgetExhausted as error:
        if not study.records():
            raise BudgetError(
                f"{error} before the first trial; raise it with --budget-kwh: the same command then continues"
            ) from error
        return str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """The loop over candidates."""

    book: TrialBook
    max_trials: int | None
    model: CostModel = dataclasses.field(default_factory=CostModel)

    @property
    def bench(self) -> Workbench:
        """What the trainings share."""
        return self.book.bench

    def run(self) -> str:
        """Runs trials until something ends the search; returns what did."""
        config = self.bench.config
        if self._num_run() >= (self.max_trials or np.inf):
            return f"all {self.max_trials} trials had been run"
        self._learn_from_finished()
        self._plan()
        if config.search.start_with_ends:
            enqueue(self.book.study.optuna, self.bench.space, self.bench.space.ends(), reason="end of the space")
        while self._num_run() < (self.max_trials or np.inf):
            self.bench.stop.check()
            self.bench.metering.check()
            if not self._next_trial():
                return "what is left of the budget pays for no other candidate"
        return f"{self.max_trials} trials were run"

    def _num_run(self) -> int:
        """Trials that used their chance: completed, or failed of themselves (not interrupted or refused)."""
        return sum(record.state in ("complete", "failed") for record in self.book.study.records())

    def _learn_from_finished(self) -> None:
        """Lets the cost model know what earlier runs of this study measured."""
        for record in self.book.study.records():
            if record.state == "complete" and record.joules_per_step and record.duration_s and record.num_steps:
                self._learn(self.bench.space.candidate(record.params), record.joules_per_step, record.seconds_per_step)

    def _learn(self, candidate: Candidate, joules_per_step: float, seconds_per_step: float | None) -> None:
        if not seconds_per_step:
            return
        speech_s = step_speech_s(self.bench)
        work = self.bench.work(candidate).per_second
        self.model.add(Measured(work=work, joules=joules_per_step / speech_s, seconds=seconds_per_step / speech_s))

    def _plan(self) -> None:
        bench = self.bench
        is_first = not self.model.measured
        if is_first:
            bench.listen(Noted(text="probing the ends of the search space on real batches"))
            probe_space(bench, self.model, seed=bench.config.seed)
        plan = make_plan(bench, self.model, seed=bench.config.seed)
        for line in plan.lines(self.max_trials):
            bench.listen(Noted(text=line))
        room = format_energy(bench.metering.head_room_j)
        bench.listen(
            Noted(
                text=f"the charge never exceeds the cap; true energy by {room} at most "
                "(peak power × (metering interval + step))"
            )
        )
        if is_first:
            plan.check()

    def _next_trial(self) -> bool:
        """Asks for a candidate that the budget can pay, runs it and tells; False when there is none."""
        bench, study = self.bench, self.book.study.optuna
        with bench.metering.purpose("preparation"):
            chosen = choose(self.book, self.model)
            if chosen is None:
                return False
        trial, candidate = chosen.trial, chosen.candidate
        record = self.book.started(trial, candidate)
        try:
            with bench.metering.holding(chosen.lease):
                started_s = time.monotonic()
                self._announce(record, candidate, chosen.expected)
                afterwards_j = predict_after_training_j(bench, self.model, candidate)
                gate = BudgetGate(bench.metering, chosen.lease, afterwards_j=afterwards_j)
                with noted_window(bench.metering, "trial", trial_number=trial.number):
                    evaluation = evaluate(bench, candidate, trial_number=trial.number, seed=record.seed or 0, gate=gate)
                duration_s = time.monotonic() - started_s
        except (Interrupted, KeyboardInterrupt):
            self.book.end(trial, self.book.charged(record, reason="interrupted", was_interrupted=True))
            requeue(study, trial, reason="interrupted")
            raise Interrupted from None
        except BudgetExhausted as error:
            self.book.end(trial, self.book.charged(record, reason=str(error), was_interrupted=True))
            requeue(study, trial, reason="the budget ended")
            raise
        except (TooDear, TrainingError) as error:
            if isinstance(error, TooDear):
                self._learn(candidate, error.joules_per_step, error.seconds_per_step)
            self.book.end(trial, self.book.charged(record, reason=str(error)))
            return True
        except (RuntimeError, MemoryError) as error:
            # Out of memory, or a mistake in a backbone: this candidate's trouble, not the search's.
            logger.warning("trial %d could not be trained", trial.number, exc_info=error)
            self.book.end(trial, self.book.charged(record, reason=f"could not be trained: {first_line(error)}"))
            check_team(bench, error)
            return True
        except TeamBroken as error:
            self.book.end(trial, self.book.charged(record, reason=str(error), was_interrupted=True))
            requeue_after_death(study, trial, reason="a process of its team died")
            raise
        except GreensvError as error:
            # The data, a meter or the ledger: it concerns the whole search, and the candidate deserves another try.
            self.book.end(trial, self.book.charged(record, reason=str(error), was_interrupted=True))
            requeue(study, trial, reason="could not be run")
            raise
        self._learn(candidate, evaluation.joules_per_step, evaluation.seconds_per_step)
        self.book.end(trial, self.book.completed(record, evaluation, duration_s))
        return True

    def _announce(self, record: TrialRecord, candidate: Candidate, expected: Prediction) -> None:
        summary = self.bench.space.summary(candidate)
        self.bench.listen(
            TrialStarted(
                number=record.number,
                candidate=f"{candidate.backbone} {format_params(candidate.params, summary)}",
                num_parameters=record.num_parameters or 0,
                macs=record.macs or 0,
                expected_j=expected.energy_j,
                expected_s=expected.duration_s,
            )
        )
