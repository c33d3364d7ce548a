"""Trains networks a search found with the full recipe, inside a budget of its own, and scores the test pairs once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greensv.energy.ledger import Ledger
from greensv.errors import GreensvError, StudyError, TrainingError
from greensv.plugins import Plugins
from greensv.search.accounts import RETRAIN
from greensv.search.control import BudgetExhausted, Interrupted, StopRequest, TooDear, stop_on_signals
from greensv.search.events import Listener, Noted
from greensv.search.metering import announce_meters, open_metering, reap_dead
from greensv.search.retrain_job import RetrainJob
from greensv.search.study import OpenStudy
from greensv.search.workbench import open_workbench
from greensv.trial_record import TrialRecord
from greensv.units import uj_from_kwh

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainResult:
    """How retraining ended: one record per network that is ready, and why it stopped."""

    results: Sequence[dict[str, Any]]
    ended_because: str
    is_complete: bool
    was_interrupted: bool


def run_retrain(
    study: OpenStudy,
    records: Sequence[TrialRecord],
    *,
    ledger: Ledger,
    plugins: Plugins,
    budget_kwh: float,
    folder: Path,
    listen: Listener,
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

    Raises:
        BudgetError: the cap is below an earlier one.
        StudyError: a saved training is of another recipe.
    """
    from greensv.speaker.device import gpu_uuids, resolve_device

    config = study.config
    device = resolve_device(config.device)
    ledger.open_account(study.study_id, RETRAIN, uj_from_kwh(budget_kwh))
    reap_dead(ledger, study.study_id)
    source = plugins.get("carbon source", config.energy.carbon_source)
    factor = source.factor(config.energy.region, datetime.now(UTC))
    stop = StopRequest()
    results: list[dict[str, Any]] = []
    because, is_complete = f"all {len(records)} networks are trained and scored", True
    with (
        stop_on_signals(stop),
        open_metering(
            config.energy,
            plugins=plugins,
            ledger=ledger,
            study_id=study.study_id,
            account=RETRAIN,
            gpu_uuids=gpu_uuids(device),
        ) as metering,
    ):
        announce_meters(metering, listen)
        try:
            bench = open_workbench(config, plugins, metering=metering, stop=stop, listen=listen, device=device)
            for record in records:
                job = RetrainJob(
                    study=study, bench=bench, record=record, folder=folder / f"trial-{record.number:04d}", factor=factor
                )
                try:
                    results.append(job.run())
                except TrainingError as error:
                    listen(Noted(text=f"trial {record.number} is left out: {error}"))
                    because, is_complete = "not every network could be trained", False
        except (BudgetExhausted, TooDear) as error:
            because, is_complete = f"{error}; the training so far is saved, raise --budget-kwh to continue it", False
        except (Interrupted, GreensvError):
            if not stop.is_set:
                raise
            because, is_complete = "interrupted; the same command continues from the last saved step", False
        metering.tell(listen)
    return RetrainResult(results=results, ended_because=because, is_complete=is_complete, was_interrupted=stop.is_set)


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
