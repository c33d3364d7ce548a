"""`greensv search`: the main job."""

from pathlib import Path
from typing import Any

import click

from greensv.cli.console import console, installed_plugins
from greensv.cli.options import (
    DEFAULT_STORAGE,
    also_meter_option,
    also_meters,
    artifacts_option,
    budget_option,
    metrics_address,
    metrics_options,
)
from greensv.errors import ConfigError


@click.command()
@click.argument("study", required=False, type=click.Path(path_type=Path), metavar="[STUDY.toml]")
@budget_option("Energy the whole search may use, everything included. A rerun may raise it.")
@click.option(
    "--storage", default=DEFAULT_STORAGE, show_default=True, metavar="URL", help="Database of studies and ledger."
)
@click.option("--study-name", metavar="NAME", help="Name of the study instead of the file's.")
@click.option("--dataset", metavar="NAME", help="Dataset instead of the file's.")
@click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Where the dataset lies.")
@click.option("--noise-root", type=click.Path(path_type=Path), metavar="DIR", help="Noise to add, such as MUSAN.")
@click.option("--rir-root", type=click.Path(path_type=Path), metavar="DIR", help="Rooms, such as RIRS_NOISES.")
@click.option("--backbone", "backbones", multiple=True, metavar="NAME", help="Search this backbone only (repeatable).")
@click.option("--meter", "meters", multiple=True, metavar="NAME", help="Measure with this meter (repeatable).")
@also_meter_option
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), help="Where to train.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the whole study.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="End after N trials of the study.")
@artifacts_option
@metrics_options
@click.pass_context
def search(
    ctx: click.Context,
    /,
    *,
    study: Path | None,
    budget_kwh: float,
    storage: str,
    max_trials: int | None,
    artifacts: str | None,
    **flags: Any,
) -> int:
    """Search for speaker-verification networks that are accurate and cheap, inside an energy budget.

    Without STUDY.toml the embedded quickstart runs: narrow networks on synthesised speech. Ctrl-C ends cleanly; the
    same command continues the study and its ledger.
    """
    from greensv.search.crew import is_follower

    if is_follower():
        from greensv.plugins import load_plugins
        from greensv.search.following import follow

        return follow(load_plugins(third_party=ctx.obj["third_party"]))
    from greensv.cli.live import LiveView, PlainLog
    from greensv.cli.reports import remember_end, try_to_write_report
    from greensv.search.artifacts import ArtifactStore
    from greensv.search.configure import configure
    from greensv.search.exporter import exported
    from greensv.search.runner import SearchResult, run_search
    from greensv.search.storage import open_storage, prepare_folder, storage_failures, study_folder

    plugins = installed_plugins(ctx)
    source = str(study) if study else "the embedded quickstart study with the given options"
    config = configure(study_data(study, {**flags, "also_meters": also_meters(ctx)}), source=source, plugins=plugins)
    optuna_storage, ledger = open_storage(storage, create=True)
    folder = prepare_folder(study_folder(storage, config.name))
    out = console()
    view = LiveView(out) if out.is_terminal else PlainLog(out)
    reports: list[Path | None] = []

    def finish(result: SearchResult) -> None:
        remember_end(result.study, result.ended_because)
        reports.append(try_to_write_report(result.study, ledger, folder, carbon=result.carbon))

    with view, storage_failures(storage), exported(view, metrics_address(ctx)) as listen:
        result = run_search(
            config,
            storage=optuna_storage,
            ledger=ledger,
            plugins=plugins,
            budget_kwh=budget_kwh,
            max_trials=max_trials,
            artifacts=ArtifactStore(artifacts or str((folder / "trainings").resolve())),
            listen=listen,
            finish=finish,
        )
    show_result(result, ledger, storage=storage, report=reports[0] if reports else None)
    return 130 if result.was_interrupted else 0


def study_data(study: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Returns the tables of the study file, or of the embedded quickstart, with the command line's flags laid over."""
    from importlib.resources import as_file, files

    from greensv.config.load import merge, read_toml

    if study is None:
        with as_file(files("greensv.search") / "quickstart.toml") as path:
            data = read_toml(path)
    else:
        data = read_toml(study)
    folders = {
        key: absolute_folder(flags[key], option=key)
        for key in ("data_root", "noise_root", "rir_root")
        if flags.get(key)
    }
    sounds = {key: folder for key, folder in folders.items() if key != "data_root"}
    if flags["dataset"] and isinstance(data.get("dataset"), dict) and data["dataset"].get("name") != flags["dataset"]:
        data["dataset"] = {}  # the file's root and options are another dataset's
    if flags["backbones"]:
        narrowings = data.get("backbones")
        narrowings = narrowings if isinstance(narrowings, dict) else {}
        data["backbones"] = {name: narrowings.get(name, {}) for name in flags["backbones"]}
    return merge(
        data,
        {
            "name": flags["study_name"],
            "seed": flags["seed"],
            "device": flags["device"],
            "dataset": {"name": flags["dataset"], "root": folders.get("data_root")},
            "recipe": {"augmentation": sounds} if sounds else None,
            "energy": {
                "meters": list(flags["meters"]) or None,
                "also_meters": list(flags.get("also_meters", ())) or None,
            },
        },
    )


def absolute_folder(path: Path, *, option: str = "data_root") -> str:
    """Returns a folder given on the command line, with the option that Python calls `option`, as an absolute path.

    Raises:
        ConfigError: its home folder is nobody's, or it is a loop of links.
    """
    try:
        return str(path.expanduser().resolve())
    except (OSError, RuntimeError, ValueError) as error:
        flag = "--" + option.replace("_", "-")
        raise ConfigError(f"{flag} {path} cannot be used: {error}; give the path of a folder") from error


def show_result(result: Any, ledger: Any, *, storage: str, report: Path | None) -> None:
    """Prints the front, what retraining it will use, the carbon and the next command."""
    from greensv.report.carbon_tables import carbon_words, notes
    from greensv.report.tables import budget_table, kwh, trials_table
    from greensv.search.accounts import account_as_json
    from greensv.search.front import knee
    from greensv.search.storage import hide_password
    from greensv.units import format_energy

    out = console()
    name = result.study.config.name
    out.print(f"\nThe search ended: {result.ended_because}.", markup=False)
    records = result.study.records()
    front = result.study.front()
    account = account_as_json(ledger, result.study.study_id, "search")
    assert account is not None
    out.print(budget_table(account, title=f"Budget of {name!r}"))
    if not front:
        out.print("No trial was completed, so there is no front yet.")
    else:
        best = knee(front, result.study.objectives)
        out.print(
            trials_table(
                front, title=f"Pareto set of {name!r}: {len(front)} of {len(records)} trials", knee=best.number
            )
        )
        bill_kwh = sum(trial.train_energy_kwh or 0.0 for trial in front)
        out.print(
            f"Retraining the whole front in full will use about {kwh(bill_kwh)}, the knee (trial {best.number}) "
            f"{kwh(best.train_energy_kwh)}; training only, its evaluation comes on top."
        )
    out.print(f"Carbon of this search: {carbon_words(result.carbon)}.", markup=False)
    for note in notes([result.carbon]):
        out.print(f"  {note}", markup=False)
    out.print(
        f"True energy exceeds the cap by {format_energy(result.head_room_j)} at most "
        "(peak power × (metering interval + step))."
    )
    if report is not None:
        out.print(f"Report: {report}", soft_wrap=True, markup=False)
    where = "" if storage == DEFAULT_STORAGE else f" --storage {hide_password(storage)}"
    if front:
        knee_kwh = 1.5 * (knee(front, result.study.objectives).train_energy_kwh or 0.0)
        out.print(
            f"Next: greensv retrain --knee --budget-kwh {knee_kwh:.2g} --study-name {name}{where}",
            soft_wrap=True,
            markup=False,
        )
