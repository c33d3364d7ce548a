"""From a study to its report: the one place that knows both."""

from pathlib import Path

import click

from greensv import __version__
from greensv.energy.books.ledger import Ledger
from greensv.energy.books.schema import reading
from greensv.energy.devices.telemetry_book import telemetry_summaries
from greensv.energy.grid.series import GridCarbon
from greensv.report.study_report import StudyReport, write_report
from greensv.search.accounts import RETRAIN, SEARCH, account_as_json, windows_as_json
from greensv.search.carbon import stored_carbon
from greensv.search.front import knee
from greensv.search.reference import CALIBRATION_ATTRIBUTE
from greensv.search.retrain_job import run_name
from greensv.search.study import OpenStudy

ENDED_ATTRIBUTE = "greensv:ended"
"""User attribute of a study: why its search ended, and with how many trials."""


def remember_end(study: OpenStudy, because: str) -> None:
    """Keeps why a search ended, for every later report of it."""
    study.optuna.set_user_attr(ENDED_ATTRIBUTE, {"because": because, "num_trials": len(study.records())})


def try_to_write_report(
    study: OpenStudy, ledger: Ledger, folder: Path, *, carbon: GridCarbon | None = None
) -> Path | None:
    """Writes the study's `report.html` and returns its path; None, with a warning, where it cannot be written.

    Args:
        study: what to report on.
        ledger: its books.
        folder: of the study.
        carbon: of the search account; None: by the factors that are stored.
    """
    carbon = carbon or stored_carbon(study.config.energy, ledger, study.study_id, SEARCH)
    report = study_report(study, ledger, carbon=carbon)
    try:
        return write_report(report, folder / "report.html")
    except OSError as error:
        click.echo(f"warning: the report cannot be written: {error}", err=True)
        return None


def study_report(study: OpenStudy, ledger: Ledger, *, carbon: GridCarbon) -> StudyReport:
    """Returns what the HTML report of a study is made of: its search, and what was retrained."""
    records = study.records()
    front = study.front()
    account = account_as_json(ledger, study.study_id, SEARCH)
    assert account is not None
    retrain_account = account_as_json(ledger, study.study_id, RETRAIN)
    with reading(ledger.engine) as connection:
        summaries = telemetry_summaries(connection, study.study_id, SEARCH)
        retrain_summaries = telemetry_summaries(connection, study.study_id, RETRAIN)
    energy = study.config.energy
    windows, retrain_windows = (
        windows_as_json(ledger, study.study_id, name, pue=energy.pue) for name in (SEARCH, RETRAIN)
    )
    run_numbers = {*retrain_windows, *(summary.trial_number for summary in retrain_summaries)}
    return StudyReport(
        name=study.config.name,
        trials=records,
        front=front,
        knee=knee(front, study.objectives).number if front else None,
        account=account,
        carbon=carbon,
        provenance=_provenance(study),
        ended_because=_ended_because(study),
        telemetry=summaries,
        windows=windows,
        retrained=study.retrained(),
        retrain_account=retrain_account,
        retrain_carbon=stored_carbon(energy, ledger, study.study_id, RETRAIN) if retrain_account else None,
        retrain_telemetry=retrain_summaries,
        retrain_windows=retrain_windows,
        run_names={number: run_name(number) for number in run_numbers},
    )


def _ended_because(study: OpenStudy) -> str:
    """Returns why the search ended; "" where it went on since, as in a process that was killed."""
    kept = study.optuna.user_attrs.get(ENDED_ATTRIBUTE)
    return str(kept["because"]) if kept and kept["num_trials"] == len(study.records()) else ""


def _provenance(study: OpenStudy) -> dict[str, str]:
    records, config = study.records(), study.config
    measured = {what: meter for record in records for what, meter in record.meters.items()}
    versions = {what: version for record in records for what, version in record.versions.items()}
    return {
        "greensv": __version__,
        **versions,
        **{f"meter of {domain}": meter for domain, meter in measured.items()},
        **_reference(study),
        "devices": ", ".join(sorted({record.device for record in records if record.device})) or "–",
        "PUE": f"{config.energy.pue:g}",
        "seed": str(config.seed),
        "study id": study.study_id,
    }


def _reference(study: OpenStudy) -> dict[str, str]:
    """Returns what a reference unit is here, by the latest calibration that was in force in the study."""
    kept = study.optuna.user_attrs.get(CALIBRATION_ATTRIBUTE)
    if kept is None:
        return {}
    unit = f"{kept['joules_per_unit']:.4g} ± {kept['uncertainty_j']:.2g} J"
    return {"reference unit": f"{kept['workload']}: {unit}, PUE not included, calibrated {kept['measured_at']}"}
