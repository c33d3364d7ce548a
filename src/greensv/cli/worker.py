"""`greensv worker`: one more process at work on a study that has been begun."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import (
    DEFAULT_STORAGE,
    artifacts_option,
    json_option,
    metrics_address,
    metrics_options,
)

if TYPE_CHECKING:
    from greensv.config import StudyConfig
    from greensv.plugins import Plugins
    from greensv.search.study import OpenStudy

STORAGE_VARIABLE = "GREENSV_STORAGE"
"""Environment variable: the database's URL, whose password is in no list of processes then."""


@click.command()
@click.option(
    "--storage",
    default=DEFAULT_STORAGE,
    show_default=True,
    show_envvar=True,
    envvar=STORAGE_VARIABLE,
    metavar="URL",
    help="Database of the study.",
)
@click.option("--study-name", metavar="NAME", help="The study; may be left out when there is only one.")
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), help="Where to train on this machine.")
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the dataset lies here.")
@click.option("--noise-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the noise lies here.")
@click.option("--rir-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the rooms lie here.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="End after N trials of the study.")
@artifacts_option
@json_option
@metrics_options
@click.pass_context
def worker(
    ctx: click.Context,
    /,
    *,
    storage: str,
    study_name: str | None,
    device: Any,
    max_trials: int | None,
    artifacts: str | None,
    as_json: bool,
    **folders: Path | None,
) -> int:
    """Join a study that `greensv search` or `greensv launch` has begun, from this or another machine.

    It takes candidates inside the study's budget until there is nothing more to do. Ctrl-C saves and ends it; another
    worker goes on with its candidate. Start one per GPU: CUDA_VISIBLE_DEVICES=1 greensv worker …
    """
    from greensv.search.crew import is_follower

    if is_follower():
        from greensv.plugins import load_plugins
        from greensv.search.following import follow

        return follow(load_plugins(third_party=ctx.obj["third_party"]))
    from rich.console import Console

    from greensv.cli.live import LiveView, PlainLog
    from greensv.cli.reports import remember_end, try_to_write_report
    from greensv.search.accounts import SEARCH
    from greensv.search.artifacts import ArtifactStore
    from greensv.search.exporter import exported
    from greensv.search.joining import check_versions, known_place
    from greensv.search.runner import SearchResult, run_worker
    from greensv.search.storage import open_storage, prepare_folder, storage_failures, study_folder
    from greensv.search.study import load

    plugins = installed_plugins(ctx)
    optuna_storage, ledger = open_storage(storage, create=False)
    with storage_failures(storage):
        study = load(study_name, optuna_storage)
        check_versions(study, plugins)
        ledger.statement(study.study_id, SEARCH)  # an error where nobody has named a budget yet
    config = _config_here(study, plugins, device=device, folders=folders)
    folder = prepare_folder(study_folder(storage, study.config.name))
    place = artifacts or known_place(study) or str((folder / "trainings").resolve())
    # With --json, standard output holds the result alone.
    out = Console(stderr=True, highlight=False) if as_json else console()
    view = LiveView(out, title=f"greensv worker {os.getpid()}") if out.is_terminal else PlainLog(out)

    def finish(result: SearchResult) -> None:
        remember_end(study, result.ended_because)
        try_to_write_report(study, ledger, folder, carbon=result.carbon)

    with view, storage_failures(storage), exported(view, metrics_address(ctx)) as listen:
        result = run_worker(
            study,
            config,
            ledger=ledger,
            plugins=plugins,
            max_trials=max_trials,
            artifacts=ArtifactStore(place),
            listen=listen,
            finish=finish,
        )
    out.print(f"This worker ended: {result.ended_because}.", markup=False)
    if as_json:
        echo_json(
            {
                "study": study.config.name,
                "ended_because": result.ended_because,
                "was_interrupted": result.was_interrupted,
                "head_room_j": result.head_room_j,
            }
        )
    return 130 if result.was_interrupted else 0


def _config_here(
    study: "OpenStudy", plugins: "Plugins", *, device: Any, folders: dict[str, Path | None]
) -> "StudyConfig":
    """Returns the study's configuration with this machine's device and folders, checked against what is installed.

    Raises:
        ConfigError: naming every mistake.
    """
    import json

    from greensv.cli.search import absolute_folder
    from greensv.config.load import to_json
    from greensv.search.configure import configure
    from greensv.search.joining import here

    roots = {key: absolute_folder(path, option=key) for key, path in folders.items() if path is not None}
    config = here(study.config, device=device, **roots)
    source = f"the configuration stored with study {study.config.name!r}"
    return configure(json.loads(to_json(config)), source=source, plugins=plugins)
