"""`greensv bench search`: search methods compared on simulated problems."""

import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console
from greensv.cli.options import MAX_BUDGET_KWH
from greensv.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from greensv.search.simulation.comparison import Comparison

DEFAULT_SHARES = (0.1, 0.2, 0.4, 1.0)
BASELINE = "tpe-default"
"""Optuna's default, which others are compared with."""


@click.group()
def bench() -> None:
    """Compare search methods without a GPU."""


@bench.command()
@click.option("--problem", default="table1", show_default=True, metavar="NAME|FILE.py:NAME", help="What is searched.")
@click.option("--kappa", type=float, metavar="K", help="Of table1: how far short trainings mislead (0.02 to 0.2).")
@click.option(
    "--methods", metavar="NAMES", help="Separated by commas.  [default: greensv,random,nsga2,tpe-default,tpe,gp]"
)
@click.option("--budget-kwh", type=float, default=50.0, show_default=True, metavar="KWH", help="Of each search.")
@click.option("--at", "at", metavar="KWH,KWH", help="Checkpoints.  [default: 10, 20, 40 and 100 % of the budget]")
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True, help="Searches of each method.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Logical workers of each.")
@click.option("--deaths", type=click.FloatRange(0, 0.9), default=0.0, help="Probability that a worker dies in a job.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes of this machine.")
@click.option("--storage", metavar="URL", help="Database of the trials too, such as postgresql+psycopg://…")
@click.option("--json", "json_file", metavar="FILE|-", help="Write the figures there, or to standard output.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw hypervolume against energy.")
def search(**options: Any) -> None:
    """Compare search methods on a simulated problem: hypervolume of the front against energy spent.

    The scheduler, the samplers and the ledger are those of `greensv search`; training alone is simulated, and time
    passes at once. Every method is given the problem's known systems first.
    """
    if "numpy" not in sys.modules:
        # Small matrices in many threads wait for one another; the libraries look when they are loaded.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    from greensv.search.simulation.figure import check_figure_path, write_figure
    from greensv.search.simulation.loading import load_problem
    from greensv.search.simulation.methods import DEFAULT_METHODS, methods_named
    from greensv.search.simulation.simulate import Setting

    budget_kwh = options["budget_kwh"]
    if not 0 < budget_kwh <= MAX_BUDGET_KWH:
        raise ConfigError(f"--budget-kwh is above 0, found {budget_kwh:g}")
    names = options["methods"]
    methods = methods_named(DEFAULT_METHODS if names is None else [n.strip() for n in names.split(",") if n.strip()])
    at_kwh = _checkpoints(options["at"], budget_kwh)
    if options["plot"] is not None:
        check_figure_path(options["plot"])
    json_file = options["json_file"]
    if json_file not in (None, "-") and not Path(json_file).parent.is_dir():
        raise ConfigError(f"--json cannot write {json_file}: the folder {Path(json_file).parent} is missing")
    load = partial(load_problem, options["problem"], kappa=options["kappa"])
    load()  # whatever is wrong with it is said before the bar appears
    setting = Setting(
        budget_kwh=budget_kwh, num_workers=options["workers"], death=options["deaths"], storage=options["storage"]
    )
    comparison = _compared(load, methods, setting, options, at_kwh)
    if json_file is not None:
        _write_json(json_file, comparison)
    if json_file != "-":
        _show(comparison)
    if options["plot"] is not None:
        write_figure(options["plot"], comparison)


def _checkpoints(text: str | None, budget_kwh: float) -> tuple[float, ...]:
    if text is None:
        return tuple(share * budget_kwh for share in DEFAULT_SHARES)
    try:
        at_kwh = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        raise ConfigError(f"--at {text!r} is not like 5,10,20,50") from None
    if not all(math.isfinite(at) and 0 < at <= budget_kwh for at in at_kwh):
        raise ConfigError(f"--at {text!r}: checkpoints are above 0 and at most the budget of {budget_kwh:g} kWh")
    return at_kwh


def _compared(load: Any, methods: Any, setting: Any, options: dict[str, Any], at_kwh: tuple[float, ...]) -> Any:
    from contextlib import nullcontext

    from rich.console import Console
    from rich.progress import Progress

    from greensv.search.simulation.comparison import compare
    from greensv.search.storage import open_storage, storage_failures

    if setting.storage is not None:
        storage, _ = open_storage(setting.storage, create=True)  # says what is wrong with it
        storage.remove_session()
        storage.engine.dispose()
    out = Console(stderr=True)
    with (
        Progress(console=out, disable=not out.is_terminal, transient=True) as progress,
        nullcontext() if setting.storage is None else storage_failures(setting.storage),
    ):
        task = progress.add_task("simulating", total=len(methods) * options["seeds"])
        return compare(
            load,
            methods,
            setting,
            num_seeds=options["seeds"],
            at_kwh=at_kwh,
            num_jobs=options["jobs"],
            advance=lambda method: progress.update(task, advance=1, description=method),
        )


def _write_json(file: str, comparison: "Comparison") -> None:
    text = json.dumps(comparison.as_json(), allow_nan=False)
    if file == "-":
        click.echo(text)
        return
    try:
        Path(file).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json cannot write {file}: {error.strerror}") from error


def _show(comparison: "Comparison") -> None:
    out = console()
    out.print(_table(comparison))
    out.print(
        "Hypervolume of the networks found, by their true error and energy, as a fraction of the best; mean ± standard "
        "deviation between seeds."
    )
    names = [method.name for method in comparison.methods]
    if BASELINE in names:
        level = float(comparison.curves(BASELINE).mean(axis=0)[-1])
        for name in names:
            at_kwh = comparison.passes_kwh(name, level=level)
            if name != BASELINE and at_kwh is not None:
                out.print(f"{name} reaches at {at_kwh:.3g} kWh what Optuna's default reaches at the end.")


def _table(comparison: "Comparison") -> "Table":
    from rich import box
    from rich.table import Table

    from greensv.search.simulation.comparison import deviation

    num_seeds = len(comparison.of(comparison.methods[0].name))
    workers = comparison.setting.num_workers
    title = f"{comparison.problem}: {num_seeds} seed{'s' if num_seeds > 1 else ''}"
    title += f", {workers} workers" if workers > 1 else ""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for at in comparison.at_kwh:
        table.add_column(f"{at:.3g} kWh", justify="right", no_wrap=True)
    table.add_column("trials", justify="right")
    for method in comparison.methods:
        fractions, results = comparison.fractions(method.name), comparison.of(method.name)
        cells = []
        for column in fractions.T:
            spread = deviation(column)
            cells.append(f"{column.mean():.3f}" + ("" if spread is None else f" ±{spread:.3f}".replace("0.", ".")))
        num_trials = sum(result.num_trials for result in results) / len(results)
        table.add_row(method.name, *cells, f"{num_trials:.0f}")
    return table
