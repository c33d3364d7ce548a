"""Options that several commands share."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

MAX_BUDGET_KWH = 1e9
DEFAULT_STORAGE = "sqlite:///runs/greensv.db"


def check_budget(ctx: click.Context, param: click.Parameter, value: float) -> float:
    """Refuses a budget that is no positive number of kWh."""
    if value > MAX_BUDGET_KWH:
        raise click.BadParameter(f"{value:g} kWh is more than any power station makes in a year; the unit is kWh")
    if not math.isfinite(value) or value <= 0:
        raise click.BadParameter(f"a budget is more than 0 kWh, found {value:g}; for a first try: --budget-kwh 0.002")
    return value


def budget_option(help_text: str) -> Callable[[F], F]:
    """Returns the required --budget-kwh option."""
    return click.option("--budget-kwh", type=float, required=True, callback=check_budget, metavar="KWH", help=help_text)


def study_options(function: F) -> F:
    """Adds --storage and --study-name."""
    storage = click.option(
        "--storage", default=DEFAULT_STORAGE, show_default=True, metavar="URL", help="Database of studies and ledger."
    )
    name = click.option("--study-name", metavar="NAME", help="The study; may be left out when there is only one.")
    return storage(name(function))


def json_option(function: F) -> F:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")(function)
