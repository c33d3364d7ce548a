"""`greensv plugins` and `greensv meters`: what is installed, and what it can measure here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import also_meter_option, also_meters, json_option, meter_option_option, meter_options
from greensv.errors import MeterError

if TYPE_CHECKING:
    from rich.table import Table

    from greensv.energy.meter import Availability, Meter, Role
    from greensv.energy.metering.selection import Choice
    from greensv.plugins import Plugins

NEVER_COUNTED = (
    "Counted by none of these: mainboard, fans, storage, network, and the losses of the power supply. "
    "`pue` in [energy] multiplies every charge by a factor for what they add."
)
NO_OPTIONS: Mapping[str, Mapping[str, Any]] = {}
ROLES: "Mapping[Role, str]" = {
    "charged": "charged",
    "part": "a part of the whole, tells where its joules go; not added",
    "beside": "shown beside, not added",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """An installed meter, and what it says about this machine."""

    meter: "Meter"
    about: "Availability"


@click.command()
@json_option
@click.pass_context
def plugins(ctx: click.Context, *, as_json: bool) -> None:
    """List every component and who provides it; for a meter also why it is unavailable here."""
    from greensv.plugins import load_plugins

    installed = load_plugins(third_party=ctx.obj["third_party"])
    records = list(component_records(installed))
    if as_json:
        for record in [*records, *({"kind": "problem", "message": problem} for problem in installed.problems)]:
            echo_json(record)
        return
    table = _table("kind", "name", "distribution", "version", "unavailable because")
    for record in records:
        table.add_row(*(str(record[key] or "") for key in ("kind", "name", "distribution", "version", "reason")))
    screen = console()
    screen.print(table)
    for problem in installed.problems:
        screen.print(f"problem: {problem}", style="yellow", markup=False)


@click.command()
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="The device that would compute."
)
@click.option("--meter", "names", multiple=True, metavar="NAME", help="Try this meter instead of auto (repeatable).")
@also_meter_option
@meter_option_option
@json_option
@click.pass_context
def meters(
    ctx: click.Context,
    /,
    *,
    device: Literal["auto", "cpu", "cuda"],
    names: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """What energy this machine can measure, domain by domain and how well, and what to do about what is missing.

    Then what the meter `auto`, the default, would choose here, or what those named would measure, and what is charged
    of it. Measured beats estimated: an estimate is a power model times the CPU time used.
    """
    from greensv.energy.metering.selection import AUTO, choose_meters

    installed = installed_plugins(ctx)
    also, gpu_uuids, own_options = also_meters(ctx), _gpu_uuids(device), meter_options(settings)
    probed = probe_all(installed, gpu_uuids, own_options)
    error: MeterError | None = None
    choices: tuple[Choice, ...] = ()
    try:
        choices = choose_meters(
            installed.all("meter"), names or (AUTO,), also=also, gpu_uuids=gpu_uuids, options=own_options
        )
    except MeterError as failure:
        error = failure
    if as_json:
        for record in meter_records(probed, choices, is_auto=not names):
            echo_json(record)
    else:
        _print_probed(probed)
    if error is not None and (names or also):
        raise error
    if not as_json:
        _print_choices(choices, str(error or ""), " and ".join((*(names or (AUTO,)), *also)))
        _print_gains()
    elif error is not None:
        click.echo(f"{click.style('warning:', fg='yellow')} auto can choose nothing here: {error}", err=True)


def component_records(installed: "Plugins") -> Iterable[dict[str, Any]]:
    """Yields one JSON-able record per component; `reason` says why a meter is unavailable, and is None otherwise."""
    reasons = {p.meter.name: p.about.reason for p in probe_all(installed, ()) if not p.about.is_available}
    for kind, components in installed.components.items():
        for name, component in sorted(components.items()):
            yield {
                "kind": kind,
                "name": name,
                "distribution": component.provider.distribution,
                "version": component.provider.version,
                "plugin": component.provider.plugin,
                "reason": reasons.get(name) if kind == "meter" else None,
            }


def meter_records(
    probed: Iterable[Probed], choices: Iterable["Choice"], *, is_auto: bool = True
) -> Iterable[dict[str, Any]]:
    """Yields one JSON-able record per installed meter.

    `roles` says of each domain that would be measured what its joules are for; `auto_domains` are those that `auto`
    would take, where that was asked.
    """
    chosen = {c.meter.name: {str(d): role for d, role in c.roles.items()} for c in choices if c.is_chosen}
    for item in probed:
        about = item.about
        yield {
            "meter": item.meter.name,
            "quality": item.meter.quality,
            "is_available": about.is_available,
            "domains": [str(domain) for domain in about.domains],
            "resolution_s": about.resolution_s if about.is_available else None,
            "gain_uncertainty": about.gain_uncertainty if about.is_available else None,
            "reason": about.reason,
            "remedy": about.remedy,
            "notes": list(about.notes),
            "auto_domains": list(chosen.get(item.meter.name, ())) if is_auto else [],
            "roles": chosen.get(item.meter.name, {}),
        }


def probe_all(
    installed: "Plugins", gpu_uuids: Sequence[str], options: Mapping[str, Mapping[str, Any]] = NO_OPTIONS
) -> list[Probed]:
    """Returns what every installed meter, with its default options or those given, says about this machine.

    Raises:
        ConfigError: options that cannot be used.
    """
    from greensv.energy.meter import MeterRequest
    from greensv.energy.metering.selection import meter_requests, probe_meter

    by_name = {meter.name: meter for meter in installed.all("meter")}
    requests = meter_requests(by_name, MeterRequest(gpu_uuids=tuple(gpu_uuids)), options)
    return [Probed(meter=meter, about=probe_meter(meter, requests[name])) for name, meter in by_name.items()]


def _gpu_uuids(device: Literal["auto", "cpu", "cuda"]) -> tuple[str, ...]:
    if device == "cpu":
        return ()
    from greensv.speaker.device import gpu_uuids, resolve_device

    return gpu_uuids(resolve_device(device))


def _print_probed(probed: Iterable[Probed]) -> None:
    screen = console()
    table = _table("meter", "domains", "quality", "changes every", "scale known to")
    missing = []
    for item in probed:
        about = item.about
        if about.is_available:
            domains = "\n".join(map(str, about.domains))
            spread = f"±{about.gain_uncertainty:.0%}"
            table.add_row(item.meter.name, domains, item.meter.quality, f"{about.resolution_s * 1000:g} ms", spread)
        else:
            missing.append(item)
    screen.print(table)
    for item in probed:
        for note in item.about.notes:
            screen.print(f"{item.meter.name}: {note}", markup=False, style="dim")
    for item in missing:
        screen.print(f"\n{item.meter.name} is unavailable: {item.about.reason}", markup=False)
        if item.about.remedy:
            screen.print(f"  → {item.about.remedy}", markup=False)


def _print_choices(choices: Sequence["Choice"], problem: str, who: str) -> None:
    screen = console()
    screen.print("\nHere `auto` chooses:" if who == "auto" else f"\nWith {who}:", style="bold", markup=False)
    if problem:
        screen.print(f"  nothing: {problem}", style="yellow", markup=False)
        return
    chosen = [choice for choice in choices if choice.is_chosen]
    for choice in chosen:
        for role, words in ROLES.items():
            if domains := ", ".join(map(str, choice.domains(role))):
                what = choice.why if who == "auto" else words
                screen.print(f"  {choice.meter.name} for {domains} ({what})", markup=False)
    if estimated := [str(d) for c in chosen if c.meter.quality == "estimated" for d in c.domains("charged")]:
        text = f"Not measured but estimated, perhaps off by half: {', '.join(estimated)}."
        screen.print(text, style="yellow", markup=False)
    if not any(domain.kind in ("node", "host") for choice in chosen for domain in choice.domains("charged")):
        screen.print(NEVER_COUNTED, style="dim", markup=False)


def _print_gains() -> None:
    from greensv.energy.baseline.gains import load_gains

    for gain in load_gains().values():
        text = (
            f"{gain.meter}'s {gain.domain} is multiplied by {gain.factor:.4g} ± {100 * gain.uncertainty:.2g} %, found "
            f"by `greensv calibrate --against {gain.against}` on {gain.measured_at[:10]}"
        )
        console().print(text, markup=False)


def _table(*columns: str) -> "Table":
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
