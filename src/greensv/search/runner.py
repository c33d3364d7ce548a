"""A whole search, start to end: open, prepare, probe, plan, then job after job inside the budget."""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from greensv.config import StudyConfig
from greensv.config.study import MAX_RUNGS
from greensv.energy.books.ledger import Ledger
from greensv.energy.grid.series import GridCarbon
from greensv.energy.grid.watch import CarbonWatch
from greensv.errors import BudgetError
from greensv.plugins import Plugins
from greensv.search.accounts import SEARCH
from greensv.search.artifacts import ArtifactStore
from greensv.search.calibration import Calibration
from greensv.search.carbon import open_carbon
from greensv.search.control import BudgetExhausted, Interrupted
from greensv.search.crew import assembled
from greensv.search.events import FrontKnown, JobOpened, Listener
from greensv.search.idling import learn_idle_power
from greensv.search.joining import check_data, shared_store
from greensv.search.metering import reap_dead
from greensv.search.queue import reconcile
from greensv.search.reference import reference_in_force
from greensv.search.rungs.book import RungBook
from greensv.search.session import Session, open_session
from greensv.search.study import OpenStudy, check_environment, create_or_continue
from greensv.search.training_window import noted_window
from greensv.search.trial_book import TrialBook, component_versions
from greensv.search.workbench import environment
from greensv.search.worker import Worker
from greensv.units import uj_from_kwh

if TYPE_CHECKING:
    from optuna.storages import RDBStorage


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """How a search ended, as far as this process has seen it."""

    study: OpenStudy
    ended_because: str
    was_interrupted: bool
    head_room_j: float
    carbon: GridCarbon


def run_search(  # noqa: PLR0913 (a command has so many options)
    config: StudyConfig,
    *,
    storage: "RDBStorage",
    ledger: Ledger,
    plugins: Plugins,
    budget_kwh: float,
    max_trials: int | None,
    artifacts: ArtifactStore,
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
        max_trials: propose no more when so many candidates have been begun in the study; None: the budget decides.
        artifacts: where trainings are kept on their way.
        listen: told what happens.
        finish: called at the end while energy is still metered, so that a report is charged too.

    Raises:
        StudyError: a study of that name has another configuration.
        BudgetError: the cap is below an earlier one, or cannot pay for a few trials.
        DataError, MeterError, ConfigError: the corpus, a meter or the device cannot be used.
        DataError, StudyError: the data, or the place of the trainings, are not those of the study's other workers.
        TeamBroken: a process that torchrun started beside this one has died.
    """
    study = open_study(config, storage=storage, ledger=ledger, plugins=plugins, budget_kwh=budget_kwh)
    return run_worker(
        study,
        config,
        ledger=ledger,
        plugins=plugins,
        max_trials=max_trials,
        artifacts=artifacts,
        listen=listen,
        finish=finish,
    )


def open_study(
    config: StudyConfig, *, storage: "RDBStorage", ledger: Ledger, plugins: Plugins, budget_kwh: float
) -> OpenStudy:
    """Creates or continues a study and opens its account; nothing is run. See `run_search`."""
    study = create_or_continue(config, storage, versions=component_versions(config, plugins))
    ledger.open_account(study.study_id, SEARCH, uj_from_kwh(budget_kwh))
    return study


def run_worker(
    study: OpenStudy,
    config: StudyConfig,
    *,
    ledger: Ledger,
    plugins: Plugins,
    max_trials: int | None,
    artifacts: ArtifactStore,
    listen: Listener,
    finish: "Callable[[SearchResult], None]",
) -> SearchResult:
    """Works on a study whose account is open, beside any other workers, until there is nothing more to do.

    Args:
        study: to work on.
        config: its configuration, where only the data's folder and the device may be this machine's own.
        ledger: our books in the study's database.
        plugins: the installed components.
        max_trials: as in `run_search`.
        artifacts: as in `run_search`.
        listen: told what happens.
        finish: as in `run_search`.

    Raises:
        As `run_search`.
    """
    with assembled(config) as crew:
        reap_dead(ledger, study.study_id)
        artifacts = shared_store(study, artifacts)
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
            because = _search(session, study, carbon=carbon, artifacts=artifacts, max_trials=max_trials)
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


def _search(
    session: Session,
    study: OpenStudy,
    *,
    carbon: CarbonWatch,
    artifacts: ArtifactStore,
    max_trials: int | None,
) -> str:
    """Works; returns why it ended."""
    records = study.records()
    session.listen(JobOpened(study=study.config.name, records=records, metering=session.metering, carbon=carbon))
    session.listen(FrontKnown(front=study.front()))
    factor, reference = _agree_on_environment(session, study)
    worker: Worker | None = None
    try:
        with session.interruptible():
            learn_idle_power(session)
            with noted_window(session.metering, "search"):
                bench = session.open_workbench()
                check_data(study, bench.corpus)
                book = TrialBook(
                    study=study,
                    bench=bench,
                    carbon=carbon,
                    objectives=study.objectives,
                    constraints=study.constraints,
                    reference=reference,
                    unit_factor=factor,
                )
                worker = Worker.open(book, artifacts=artifacts, max_trials=max_trials)
                reconcile(study, worker.rungs, session.listen)
                return worker.run()
    except Interrupted:
        return "interrupted; the same command continues"
    except BudgetExhausted as error:
        if not study.records():
            raise BudgetError(
                f"{error} before the first trial; raise it with --budget-kwh: the same command then continues"
            ) from error
        if worker is not None:
            worker.end_study(str(error))
        return str(error)


def _agree_on_environment(session: Session, study: OpenStudy) -> tuple[float, Calibration | None]:
    """Returns what a kWh here is on the hardware that the study began on, and the calibration in force here."""
    found = environment(session.config, session.metering.domains(), session.crew)
    reference = reference_in_force(session, found)
    begun = RungBook(session.metering.ledger, study.study_id, num_rungs=MAX_RUNGS).history()
    has_begun = any(run.is_reached or run.state == "running" for run in begun.all())
    factor = check_environment(study, found, has_begun=has_begun, reference=reference)
    return factor, reference
