"""`greensv launch`: begins a search, and several workers on it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, installed_plugins
from greensv.cli.options import also_meters
from greensv.cli.search import search
from greensv.cli.worker import STORAGE_VARIABLE
from greensv.errors import ConfigError, StudyError

if TYPE_CHECKING:
    from greensv.config import StudyConfig
    from greensv.energy.books.ledger import Ledger
    from greensv.launch.local import Ended
    from greensv.search.study import OpenStudy

NOT_OF_A_LAUNCH = ("metrics_port", "metrics_host")
"""Options of a search that are one process's own."""


def options_of_a_search(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the argument and the options of `greensv search`."""
    params = [param for param in search.params if param.name not in NOT_OF_A_LAUNCH]
    function.__click_params__ = [*reversed(params), *getattr(function, "__click_params__", [])]  # type: ignore[attr-defined]
    return function


@click.command()
@click.option(
    "--backend",
    type=click.Choice(["local", "slurm"]),
    default="local",
    show_default=True,
    help="Processes on this machine, or jobs of a cluster.",
)
@click.option(
    "--workers",
    "num_workers",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="How many.  [default: local: one per GPU, or one on the CPU; slurm: 1]",
)
@click.option("--slurm-partition", metavar="NAME", help="Partition of the jobs.")
@click.option(
    "--slurm-option",
    "slurm_settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of sbatch by its long name, such as gpus-per-node=1, mem=32G or time=12:00:00 (repeatable).",
)
@options_of_a_search
@click.pass_context
def launch(  # noqa: PLR0913 (each is an option)
    ctx: click.Context,
    /,
    *,
    backend: str,
    num_workers: int | None,
    slurm_partition: str | None,
    slurm_settings: Sequence[str],
    study: Path | None,
    budget_kwh: float,
    storage: str,
    max_trials: int | None,
    artifacts: str | None,
    **flags: Any,
) -> int:
    """Begin or continue a search with several workers that share its budget.

    local: waits for them, passes Ctrl-C on to them, and shows the result; their logs are in the study's folder. slurm:
    submits a job array and returns; it needs a database that the nodes reach, and folders that they share.
    """
    from greensv.cli.search import study_data
    from greensv.search.configure import configure
    from greensv.search.joining import check_versions
    from greensv.search.runner import open_study
    from greensv.search.storage import open_storage, prepare_folder, storage_failures, study_folder

    options = _slurm_options(backend, storage, slurm_partition, slurm_settings)
    plugins = installed_plugins(ctx)
    source = str(study) if study else "the embedded quickstart study with the given options"
    config = configure(study_data(study, {**flags, "also_meters": also_meters(ctx)}), source=source, plugins=plugins)
    optuna_storage, ledger = open_storage(storage, create=True)
    folder = prepare_folder(study_folder(storage, config.name))
    with storage_failures(storage):
        opened = open_study(config, storage=optuna_storage, ledger=ledger, plugins=plugins, budget_kwh=budget_kwh)
        check_versions(opened, plugins)
    arguments = [
        *([] if ctx.obj["third_party"] else ["--no-plugins"]),
        *("worker", "--study-name", config.name),
        *(["--max-trials", str(max_trials)] if max_trials else []),
        *(["--artifacts", artifacts] if artifacts else []),
    ]
    environment = {STORAGE_VARIABLE: storage}
    if options is not None:
        _submit(config, arguments, num_workers or 1, environment=environment, options=options, folder=folder)
        return 0
    return _run_here(
        opened, ledger, arguments, num_workers, environment=environment, storage=storage, folder=folder.resolve()
    )


def _slurm_options(backend: str, storage: str, partition: str | None, settings: Sequence[str]) -> dict[str, str] | None:
    """Returns the options of sbatch; None for workers on this machine.

    Raises:
        ConfigError: an option cannot be used, or the database is a file.
    """
    from greensv.launch.slurm import slurm_options

    if backend == "local":
        if partition or settings:
            raise click.UsageError("--slurm-partition and --slurm-option are for --backend slurm")
        return None
    if storage.startswith("sqlite"):
        raise ConfigError(
            "workers on several machines cannot share an SQLite file: network file systems do not keep its locks, and "
            "it would be damaged; give --storage postgresql+psycopg://USER@HOST/DATABASE (see docs/how-to/cluster.md)"
        )
    return {**({"partition": partition} if partition else {}), **slurm_options(settings)}


def _run_here(
    opened: "OpenStudy",
    ledger: "Ledger",
    arguments: Sequence[str],
    num_workers: int | None,
    *,
    environment: dict[str, str],
    storage: str,
    folder: Path,
) -> int:
    """Runs workers on this machine to their end, and shows the result."""
    import os

    from greensv.launch.local import GPUS_VARIABLE, cpu_places, gpu_places, run_local
    from greensv.speaker.device import resolve_device

    out = console()
    if resolve_device(opened.config.device).type == "cuda":
        import torch

        places = gpu_places(torch.cuda.device_count(), num_workers, visible=os.environ.get(GPUS_VARIABLE))
    else:
        places = cpu_places(len(os.sched_getaffinity(0)), num_workers)
    ended = run_local(
        [*arguments, "--json"],
        places,
        environment=environment,
        folder=folder / "workers",
        tell=lambda line: out.print(line, soft_wrap=True, markup=False),
    )
    _show(opened, ledger, ended, storage=storage, folder=folder)
    failed = [worker for worker in ended if worker.exit_code not in (0, 130)]
    if failed:
        raise StudyError("\n".join(f"worker {worker.number} {worker.words}" for worker in failed))
    return 130 if any(worker.exit_code == 130 for worker in ended) else 0


def _show(opened: "OpenStudy", ledger: "Ledger", ended: "Sequence[Ended]", *, storage: str, folder: Path) -> None:
    from greensv.cli.search import show_result
    from greensv.search.accounts import SEARCH
    from greensv.search.carbon import stored_carbon
    from greensv.search.runner import SearchResult

    reasons = dict.fromkeys(str(worker.result["ended_because"]) for worker in ended if worker.result)
    report = folder / "report.html"
    result = SearchResult(
        study=opened,
        ended_because="; ".join(reasons) or "its workers failed",
        was_interrupted=any(worker.exit_code == 130 for worker in ended),
        head_room_j=sum(float(worker.result.get("head_room_j", 0.0)) for worker in ended),
        carbon=stored_carbon(opened.config.energy, ledger, opened.study_id, SEARCH),
    )
    show_result(result, ledger, storage=storage, report=report if report.exists() else None)


def _submit(
    config: "StudyConfig",
    arguments: Sequence[str],
    num_workers: int,
    *,
    environment: dict[str, str],
    options: dict[str, str],
    folder: Path,
) -> None:
    from greensv.launch.slurm import submit

    out = console()
    if config.device == "cuda" and not any(key.startswith("gpu") or key == "gres" for key in options):
        options = {**options, "gpus_per_node": "1"}
    jobs = submit(
        arguments,
        num_workers,
        environment=environment,
        options=options,
        folder=folder.resolve() / "workers",
        name=f"greensv-{config.name}",
    )
    lines = (
        f"Submitted {num_workers} worker{'s' if num_workers > 1 else ''}: SLURM job {', '.join(jobs.job_ids)}",
        f"Watch: squeue -j {jobs.array_id}, greensv trials --study-name {config.name}, tail -f {jobs.logs[0]}",
        f"End:   scancel {jobs.array_id} (each saves its training; launch again to go on)",
    )
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)
