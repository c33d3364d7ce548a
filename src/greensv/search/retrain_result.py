"""The result of one retraining: in its folder, and in the study `NAME/retrain`."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from greensv import __version__
from greensv.energy.books.schema import reading
from greensv.energy.devices.phase_book import phase_totals
from greensv.search.accounts import phases_as_json, windows_as_json
from greensv.search.evaluator import tell_skipped
from greensv.search.events import Noted
from greensv.search.retrain_job import RetrainJob
from greensv.search.skips import unreadable_sounds
from greensv.search.study import RETRAIN_SUFFIX, name_metrics
from greensv.search.trial_book import charged_uncertainty_kwh

if TYPE_CHECKING:
    from greensv.speaker.training.loop import Training

RESULT_FILE = "result.json"
SKIPPED_FILE = "skipped.tsv"
"""Files of the training data, of noise and of rooms that were left out or could not be read, and why."""


def stored_result(job: RetrainJob) -> dict[str, Any] | None:
    """Returns the result where the network is ready already; None where it is not."""
    path = job.folder / RESULT_FILE
    if not path.exists():
        return None
    job.bench.listen(Noted(text=f"{job.name} is retrained and scored already: {path}"))
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    _add_to_study(job, stored)
    return stored


def keep_result(
    job: RetrainJob,
    training: "Training",
    protocols: list[dict[str, Any]],
    *,
    earlier_meters: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Writes the result of a finished training and its scores, and returns it.

    Args:
        job: the retraining.
        training: all its steps done.
        protocols: the scores of each test protocol.
        earlier_meters: what measured parts of the training before it was interrupted, where that was something else.
    """
    from greensv.speaker.checkpoint import write_whole

    metering = job.bench.metering
    energy_kwh = metering.trial_energy_kwh(job.run_number)
    job.carbon.refresh()
    carbon = job.carbon.figure(account=metering.account, trial_number=job.run_number)
    result = {
        "study": job.study.config.name,
        "trial": job.record.number,
        **({} if job.seed is None else {"seed": job.seed}),
        "backbone": job.record.backbone,
        "params": dict(job.record.params),
        "num_parameters": job.record.num_parameters,
        "macs": job.record.macs,
        "num_steps": training.num_steps,
        **job.computed_by(training),
        "num_skipped": tell_skipped(job.bench, training, what=job.name),
        "predicted_train_energy_kwh": job.record.train_energy_kwh,
        "predicted_train_energy_uncertainty_kwh": job.record.train_energy_uncertainty_kwh,
        "charged_energy_kwh": energy_kwh,
        "charged_uncertainty_kwh": charged_uncertainty_kwh(metering, job.run_number),
        "carbon_g": carbon.carbon_g,
        "is_carbon_incomplete": not carbon.is_complete,
        "training_phases": _phases(job),
        "windows": _windows(job),
        "meters": metering.domains(),
        **({"earlier_meters": [dict(meters) for meters in earlier_meters]} if earlier_meters else {}),
        "protocols": protocols,
        "checkpoint": str(job.folder),
        "greensv": __version__,
    }
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    _write_skipped(job, training)
    write_whole(job.folder / RESULT_FILE, lambda file: file.write(text.encode()))
    _add_to_study(job, result)
    return result


def _phases(job: RetrainJob) -> dict[str, Any]:
    """Returns the energy of all its training by phase of a step, of runs that were interrupted, too."""
    metering = job.bench.metering
    with reading(metering.ledger.engine) as connection:
        found = phase_totals(connection, metering.study_id, metering.account, trial_number=job.run_number)
    return phases_as_json(found)


def _windows(job: RetrainJob) -> list[dict[str, Any]]:
    """Returns what each meter read in all its training, also beside the charges; PUE included."""
    metering = job.bench.metering
    found = windows_as_json(metering.ledger, metering.study_id, metering.account, pue=metering.pue)
    return found.get(job.run_number, [])


def _write_skipped(job: RetrainJob, training: "Training") -> None:
    """Names every file that was left out: too many for the result, which is kept in the database, too."""
    from greensv.speaker.checkpoint import write_whole

    left_out = (*job.bench.corpus.skipped, *unreadable_sounds(training))
    files = {file.path: file.reason for file in left_out} | dict(training.skipped)
    path = job.folder / SKIPPED_FILE
    if not files:
        path.unlink(missing_ok=True)
        return
    lines = "".join(f"{name}\t{' '.join(reason.split())}\n" for name, reason in sorted(files.items()))
    write_whole(path, lambda file: file.write(lines.encode()))


def _add_to_study(job: RetrainJob, result: dict[str, Any]) -> None:
    """Adds the result to the study `NAME/retrain`, once: a finished trial cannot be annotated any more."""
    import optuna

    storage = job.study.optuna._storage
    sibling = optuna.create_study(
        storage=storage,
        study_name=job.study.config.name + RETRAIN_SUFFIX,
        directions=["minimize", "minimize"],
        load_if_exists=True,
    )
    name_metrics(sibling, ["test_eer", "charged_energy_kwh"])
    tests = [protocol["eer"] for protocol in result["protocols"]]
    run = (result["trial"], result.get("seed"))
    done = [(t.user_attrs.get("trial"), t.user_attrs.get("seed")) for t in sibling.get_trials(deepcopy=False)]
    is_there = run in done
    if tests and not is_there:
        values = [float(sum(tests) / len(tests)), float(result["charged_energy_kwh"])]
        sibling.add_trial(optuna.trial.create_trial(values=values, user_attrs=result))
