"""Trains networks a search found with the full recipe, inside a budget of its own, and scores the test pairs once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from greensv.energy.baseline.idle import this_host
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import reading
from greensv.energy.books.tables import leases
from greensv.errors import StudyError, TrainingError
from greensv.plugins import Plugins
from greensv.search.accounts import RETRAIN, SEARCH
from greensv.search.carbon import open_carbon
from greensv.search.control import BudgetExhausted, Interrupted, TooDear
from greensv.search.crew import assembled
from greensv.search.events import FrontKnown, JobOpened, Listener, Noted, RetrainingEnded, RetrainingStarted
from greensv.search.idling import learn_idle_power
from greensv.search.measuring import check_team, first_line
from greensv.search.metering import reap_dead
from greensv.search.retrain_job import RetrainJob
from greensv.search.retrain_run import run_job
from greensv.search.retrain_state import changed_corrections
from greensv.search.session import Session, open_session
from greensv.search.study import ENVIRONMENT_ATTRIBUTE, OpenStudy
from greensv.trial_record import TrialRecord
from greensv.units import uj_from_kwh

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainResult:
    """How retraining ended: one record per network that is ready, and why it stopped."""

    results: Sequence[dict[str, Any]]
    ended_because: str
    is_complete: bool
    was_interrupted: bool


def run_retrain(  # noqa: PLR0913 (the last two are seldom given)
    study: OpenStudy,
    records: Sequence[TrialRecord],
    *,
    ledger: Ledger,
    plugins: Plugins,
    budget_kwh: float,
    folder: Path,
    listen: Listener,
    seeds: Sequence[int] = (),
    finish: Callable[[], object] | None = None,
) -> RetrainResult:
    """Trains each trial's network with the full recipe, resuming what was begun, and scores the test pairs at its end.

    Args:
        study: the search's study.
        records: its trials to retrain, in order.
        ledger: our books.
        plugins: the installed components.
        budget_kwh: cap of the retrain account, which is apart from the search's; a rerun may raise it.
        folder: of the study; each network gets `trial-NNNN` in it.
        listen: told what happens.
        seeds: train each network once with each of these, in folders `trial-NNNN-seed-S`; none: with the trial's own.
        finish: called at the end while energy is still metered, so that a report is charged too.

    Raises:
        BudgetError: the cap is below an earlier one.
        StudyError: a saved training is of another recipe, or the meters' corrections are not the search's.
        TeamBroken: a process that torchrun started beside this one has died.
    """
    config = study.config
    with assembled(config) as crew:
        ledger.open_account(study.study_id, RETRAIN, uj_from_kwh(budget_kwh))
        reap_dead(ledger, study.study_id)
        carbon = open_carbon(config.energy, plugins=plugins, ledger=ledger, study_id=study.study_id)
        results: list[dict[str, Any]] = []
        with (
            open_session(
                config,
                plugins=plugins,
                ledger=ledger,
                study_id=study.study_id,
                account=RETRAIN,
                crew=crew,
                listen=listen,
            ) as session,
            carbon,
        ):
            is_complete = False
            check_gains(session, study)
            found = study.records()
            listen(JobOpened(study=config.name, records=found, metering=session.metering, carbon=carbon))
            listen(FrontKnown(front=study.front()))
            try:
                with session.interruptible():
                    learn_idle_power(session)
                    bench = session.open_workbench(is_full=True)
                    jobs = [
                        RetrainJob(
                            study=study,
                            bench=bench,
                            record=record,
                            folder=folder / _folder_name(record, seed),
                            carbon=carbon,
                            seed=seed,
                        )
                        for seed in (seeds or (None,))
                        for record in records
                    ]
                    is_complete = _run_all(jobs, results, listen)
                because = f"all {len(jobs)} networks are trained and scored"
                if not is_complete:
                    because = "not every network could be trained"
            except (BudgetExhausted, TooDear) as error:
                because = f"{error}; the training so far is saved, raise --budget-kwh to continue it"
            except Interrupted:
                because = "interrupted; the same command continues from the last saved step"
            if finish is not None:
                session.metering.charger.flush()
                with session.metering.purpose("report"):
                    finish()
            session.metering.tell(listen)
    return RetrainResult(
        results=results, ended_because=because, is_complete=is_complete, was_interrupted=session.stop.is_set
    )


def check_gains(session: Session, study: OpenStudy) -> None:
    """Refuses to retrain where the search was run, with the same meters, under other corrections of their scale.

    A retraining may be on another machine, whose meters have corrections of their own.

    Raises:
        StudyError: naming each domain and both corrections.
    """
    stored = study.optuna.user_attrs.get(ENVIRONMENT_ATTRIBUTE, {})
    before = {key.removeprefix("meter of "): words for key, words in stored.items()}
    changes = changed_corrections(before, session.metering.domains(), when="in the search")
    if changes and this_host() in _search_hosts(session.metering.ledger, study.study_id):
        listing = "\n".join(changes)
        raise StudyError(
            f"study {study.config.name!r} was measured under other corrections of the same meters:\n{listing}\n"
            "Its energies would not compare. Put the corrections of the search in force again (`greensv calibrate "
            "--forget-gains` removes all), or start a new study with --study-name."
        )


def _search_hosts(ledger: Ledger, study_id: str) -> set[str]:
    """Returns the machines that worked on the search: a lease's holder is one, and its PID namespace."""
    wanted = select(leases.c.host).where(leases.c.study_id == study_id, leases.c.account == SEARCH).distinct()
    with reading(ledger.engine) as connection:
        return {host.rpartition("/")[0] for host in connection.execute(wanted).scalars() if host}


def _folder_name(record: TrialRecord, seed: int | None) -> str:
    return f"trial-{record.number:04d}" + ("" if seed is None else f"-seed-{seed}")


def _run_all(jobs: Sequence[RetrainJob], results: list[dict[str, Any]], listen: Listener) -> bool:
    """Adds a result for each job that ends well; returns whether all did."""
    for job in jobs:
        listen(RetrainingStarted(number=job.record.number))
        try:
            results.append(run_job(job))
        except TrainingError as error:
            listen(Noted(text=f"{job.name} is left out: {error}"))
        except (RuntimeError, MemoryError) as error:
            # Out of memory, most often; the next network may be smaller.
            logger.warning("%s could not be retrained", job.name, exc_info=error)
            listen(Noted(text=f"{job.name} is left out: it could not be trained: {first_line(error)}"))
            check_team(job.bench, error)
        finally:
            listen(RetrainingEnded(number=job.record.number))
    return len(results) == len(jobs)


def choose_trials(
    records: Sequence[TrialRecord], front: Sequence[TrialRecord], *, trial: int | None, knee: TrialRecord | None
) -> list[TrialRecord]:
    """Returns the trials to retrain: one by number, the knee, or (with neither) the whole front.

    Raises:
        StudyError: there is no such completed trial, or no front yet.
    """
    if trial is not None:
        found = [record for record in records if record.number == trial]
        complete = ", ".join(str(r.number) for r in records if r.state == "complete") or "none"
        if not found:
            raise StudyError(f"there is no trial {trial}; completed trials: {complete}")
        if found[0].state != "complete":
            raise StudyError(f"trial {trial} is {found[0].state} and cannot be retrained; completed trials: {complete}")
        return found
    if not front:
        raise StudyError(
            "the study has no completed trial yet, so there is nothing to retrain; run `greensv search` first"
        )
    return [knee] if knee is not None else list(front)
