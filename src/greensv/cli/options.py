"""Options that several commands share."""

import math
import tomllib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from greensv.errors import ConfigError

if TYPE_CHECKING:
    from greensv.search.exporter import Address

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


artifacts_option = click.option(
    "--artifacts",
    metavar="URL",
    help="Where trainings are kept on their way: a folder, or any store that fsspec knows, such as s3://bucket/path. "
    "Workers on several machines need one that all reach.  [default: beside the report]",
)


def metrics_options(function: F) -> F:
    """Adds --metrics-port and --metrics-host; the command asks for them with `metrics_address`."""
    port = click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        expose_value=False,
        callback=_keep,
        help="Serve Prometheus metrics there while it runs (0: any free port).",
    )
    host = click.option(
        "--metrics-host",
        default="127.0.0.1",
        show_default=True,
        metavar="HOST",
        expose_value=False,
        callback=_keep,
        help="Where --metrics-port listens; 0.0.0.0 for every network.",
    )
    return port(host(function))


def metrics_address(ctx: click.Context) -> "Address | None":
    """Returns where the command was told to serve its metrics; None: nowhere."""
    from greensv.search.exporter import Address

    port = ctx.meta[_meta_key("metrics_port")]
    return None if port is None else Address(host=ctx.meta[_meta_key("metrics_host")], port=port)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Keeps an option that the command's function does not take."""
    ctx.meta[_meta_key(str(param.name))] = value
    return value


def _meta_key(name: str) -> str:
    return f"greensv.{name}"


def json_option(function: F) -> F:
    """Adds --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")(function)


def also_meter_option(function: F) -> F:
    """Adds --also-meter; the command asks for it with `also_meters`."""
    return click.option(
        "--also-meter",
        "also_meters",
        multiple=True,
        metavar="NAME",
        expose_value=False,
        callback=_keep,
        help="Record this meter beside the others, uncharged (repeatable).",
    )(function)


def also_meters(ctx: click.Context) -> tuple[str, ...]:
    """Returns the meters that the command was told to record beside those that are charged."""
    names: tuple[str, ...] = ctx.meta[_meta_key("also_meters")]
    return names


def meter_option_option(function: F) -> F:
    """Adds --meter-option."""
    return click.option(
        "--meter-option",
        "settings",
        multiple=True,
        metavar="METER.KEY=VALUE",
        help="An option of a meter, as in [energy.options] of a study (repeatable).",
    )(function)


def meter_options(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns `METER.KEY=VALUE` settings as options by meter name; a value that is no TOML is text.

    Raises:
        ConfigError: a setting is of another form.
    """
    options: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        meter, dot, key = name.partition(".")
        if not (equals and dot and meter and key):
            raise ConfigError(f"--meter-option {setting!r} is not like estimate.num_cpus=4")
        try:
            options.setdefault(meter, {})[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options.setdefault(meter, {})[key] = value
    return options
