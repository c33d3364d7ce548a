"""The one rich console of the command line, and the loading of plugins for a command."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from greensv.plugins import Plugins


def console() -> "Console":
    """Returns the console for what a command prints for people, on standard output."""
    from rich.console import Console

    return Console(highlight=False)


def installed_plugins(ctx: click.Context) -> "Plugins":
    """Loads the plugins as the global options ask, and says on standard error what did not load."""
    from greensv.plugins import load_plugins

    return _told(load_plugins(third_party=ctx.obj["third_party"]))


def named_meters(ctx: click.Context, names: Iterable[str]) -> "Plugins":
    """Loads the meters that are named, and no more than is needed for them, and says what did not load."""
    from greensv.plugins import load_meters

    return _told(load_meters(names, third_party=ctx.obj["third_party"]))


def _told(plugins: "Plugins") -> "Plugins":
    for problem in plugins.problems:
        click.echo(f"{click.style('warning:', fg='yellow')} {problem}", err=True)
    return plugins


def echo_json(record: Mapping[str, Any]) -> None:
    """Prints one object on one line."""
    click.echo(json.dumps(record, allow_nan=False))


def echo_csv(records: Sequence[Mapping[str, Any]]) -> None:
    """Prints records with the same keys as CSV with a heading; a mapping or list becomes JSON, None nothing."""
    if not records:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: json.dumps(v) if isinstance(v, Mapping | list | tuple) else v for k, v in record.items()})
    click.echo(text.getvalue(), nl=False)
