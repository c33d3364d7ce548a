"""`greensv pareto`, `trials` and `budget`: what a study holds."""

import click

from greensv.cli.console import console, echo_csv, echo_json
from greensv.cli.options import json_option, study_options


@click.command()
@study_options
@json_option
def pareto(*, storage: str, study_name: str | None, as_json: bool) -> None:
    """Show the Pareto set of a study: EER on the development pairs against the energy of the full training."""
    from greensv.report.tables import trials_table
    from greensv.search.front import knee, pareto_front
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    optuna_storage, _ = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    front = pareto_front(study.records())
    best = knee(front).number if front else None
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
def trials(*, storage: str, study_name: str | None, as_json: bool, as_csv: bool) -> None:
    """List all trials of a study, also those that failed, were refused or interrupted."""
    from greensv.report.tables import reasons, trials_table
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    optuna_storage, _ = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    records = study.records()
    if as_json:
        for record in records:
            echo_json(record.as_json())
    elif as_csv:
        echo_csv([record.as_json() for record in records])
    else:
        console().print(trials_table(records, title=f"Trials of {study.config.name!r}"))
        for line in reasons(records):
            console().print(line, markup=False)


@click.command()
@study_options
@json_option
def budget(*, storage: str, study_name: str | None, as_json: bool) -> None:
    """Show what a study may spend and has spent, by purpose. Retraining has an account of its own."""
    from greensv.report.tables import budget_table
    from greensv.search.accounts import account_as_json
    from greensv.search.storage import open_storage
    from greensv.search.study import load

    optuna_storage, ledger = open_storage(storage, create=False)
    study = load(study_name, optuna_storage)
    search = account_as_json(ledger, study.study_id, "search")
    retraining = account_as_json(ledger, study.study_id, "retrain")
    if as_json:
        echo_json({"study": study.config.name, **(search or {}), "retrain": retraining})
        return
    for title, account in (("Search", search), ("Retraining", retraining)):
        if account is not None:
            console().print(budget_table(account, title=f"{title} of {study.config.name!r}"))
    if search is None:
        console().print(f"Study {study.config.name!r} has no account yet; run `greensv search`.")
