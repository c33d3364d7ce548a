"""`greensv pareto`, `trials` and `budget`: what a study holds."""

from typing import TYPE_CHECKING

import click

from greensv.cli.console import console, echo_csv, echo_json
from greensv.cli.options import json_option, study_options

if TYPE_CHECKING:
    from greensv.search.study import OpenStudy


@click.command()
@study_options
@json_option
def pareto(*, storage: str, study_name: str | None, as_json: bool) -> None:
    """Show the Pareto set of a study: EER on the development pairs against the energy of the full training."""
    from greensv.report.tables import trials_table
    from greensv.search.front import knee
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    optuna_storage, _ = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    front = study.front()
    best = knee(front, study.objectives).number if front else None
    if as_json:
        for record in front:
            echo_json({**record.as_json(), "is_knee": record.number == best})
        return
    if not front:
        console().print(f"Study {study.config.name!r} has no completed trial yet; run `greensv search` again.")
        return
    console().print(trials_table(front, title=f"Pareto set of {study.config.name!r}", knee=best))


@click.command()
@study_options
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: one line per trial, nested values as JSON.")
@click.option("--repeats", "of_repeats", is_flag=True, help="Show networks that were run repeatedly, and paired tests.")
def trials(*, storage: str, study_name: str | None, as_json: bool, as_csv: bool, of_repeats: bool) -> None:
    """List all trials of a study, also those that failed, were refused or interrupted."""
    from greensv.report.tables import reasons, trials_table
    from greensv.search.accounts import SEARCH, telemetry_as_json, windows_as_json
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    if of_repeats and as_csv:
        raise click.UsageError("--repeats has no CSV; use --json")
    optuna_storage, ledger = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    records = study.records()
    if of_repeats:
        _show_repeats(study, as_json=as_json)
        return
    if as_json or as_csv:
        telemetry = telemetry_as_json(ledger, study.study_id, SEARCH)
        windows = windows_as_json(ledger, study.study_id, SEARCH, pue=study.config.energy.pue)
        rows = [
            {
                **record.as_json(),
                "telemetry": telemetry.get(record.number, {}),
                "windows": windows.get(record.number, []),
            }
            for record in records
        ]
        if as_csv:
            echo_csv(rows)
            return
        for row in rows:
            echo_json(row)
    else:
        console().print(trials_table(records, title=f"Trials of {study.config.name!r}"))
        for line in reasons(records):
            console().print(line, markup=False)


def _show_repeats(study: "OpenStudy", *, as_json: bool) -> None:
    from greensv.report import repetitions
    from greensv.report.runs import retrained_runs, trial_runs

    trials, retrained = study.records(), study.retrained()
    if as_json:
        runs = {
            "trials": trial_runs(trials),
            "retrained": retrained_runs(retrained, trials),
        }
        echo_json({recipe: repetitions.as_json(some) for recipe, some in runs.items()})
        return
    parts = repetitions.repetitions_of(trials, retrained)
    if not parts:
        console().print(f"No network of study {study.config.name!r} was run twice with the same recipe.")
    for part in parts:
        console().print(repetitions.repeated_table(part.lines, title=part.title))
        for line in part.tests:
            console().print(line, markup=False, soft_wrap=True)


@click.command()
@study_options
@json_option
def budget(*, storage: str, study_name: str | None, as_json: bool) -> None:
    """Show what a study may spend and has spent, by purpose. Retraining has an account of its own."""
    from greensv.report.carbon_tables import carbon_words
    from greensv.report.tables import budget_table
    from greensv.search.accounts import RETRAIN, SEARCH, account_as_json
    from greensv.search.carbon import stored_carbon
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    optuna_storage, ledger = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    search = account_as_json(ledger, study.study_id, "search")
    retraining = account_as_json(ledger, study.study_id, "retrain")
    carbon = {
        name: stored_carbon(study.config.energy, ledger, study.study_id, name)
        for name, account in ((SEARCH, search), (RETRAIN, retraining))
        if account is not None
    }
    if as_json:
        for name, account in ((SEARCH, search), (RETRAIN, retraining)):
            if account is not None:
                account["carbon_g"] = carbon[name].figure.carbon_g
                account["is_carbon_incomplete"] = not carbon[name].figure.is_complete
        echo_json({"study": study.config.name, **(search or {}), "retrain": retraining})
        return
    for title, name, account in (("Search", SEARCH, search), ("Retraining", RETRAIN, retraining)):
        if account is not None:
            console().print(budget_table(account, title=f"{title} of {study.config.name!r}"))
            console().print(f"Carbon: {carbon_words(carbon[name])}.\n", markup=False)
    if search is None:
        console().print(f"Study {study.config.name!r} has no account yet; run `greensv search`.")
