"""`greensv describe`: what a named system, or any network of an installed backbone, costs before it runs."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from greensv.cli.console import console, echo_json, installed_plugins
from greensv.cli.options import json_option
from greensv.errors import ConfigError, did_you_mean
from greensv.speaker.space import FloatRange, IntRange, Parameter, Params, Value, defaults

if TYPE_CHECKING:
    from greensv.plugins import Plugins
    from greensv.speaker.backbone import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A network to describe, by the name it was asked for or the one it was published under."""

    name: str
    backbone: "Backbone"
    params: Params


@click.command()
@click.argument("systems", nargs=-1, metavar="SYSTEM…")
@click.option("--list", "as_list", is_flag=True, help="List the named systems and the backbones, and stop.")
@json_option
@click.pass_context
def describe(ctx: click.Context, *, systems: tuple[str, ...], as_list: bool, as_json: bool) -> None:
    """Parameters and MACs of networks, counted without running them.

    A SYSTEM is a named system (ResNet-50-D, in any case), a backbone (resnet: its defaults), or a backbone with
    parameters: resnet:depth=8,width_log2=-3,block=basic-2.

    Parameters are counted with and without a head for 5,994 speakers, MACs and activations for 350 frames of as many
    features as the backbone's systems read where they were published.
    """
    plugins = installed_plugins(ctx)
    if as_list:
        for system in named_systems(plugins):
            click.echo(f"{system.name}\t{system.backbone.name}")
        return
    if not systems:
        names = ", ".join(system.name for system in named_systems(plugins))
        backbones = ", ".join(backbone.name for backbone in plugins.all("backbone"))
        raise click.UsageError(f"name a system ({names}) or a backbone ({backbones}), or use --list")
    # All are looked up before the first is counted: a misspelt name costs no waiting.
    found = [find_system(text, plugins) for text in systems]
    records = (record_of(system) for system in found)
    if as_json:
        for record in records:
            echo_json(record)
    else:
        _print_table(list(records))


def named_systems(plugins: "Plugins") -> Iterator[System]:
    """Yields the named systems of all installed backbones."""
    for backbone in plugins.all("backbone"):
        for name, params in backbone.systems().items():
            yield System(name=name, backbone=backbone, params=params)


def find_system(text: str, plugins: "Plugins") -> System:
    """Returns the system that `text` names or describes.

    Raises:
        ConfigError: nothing of that name is installed, two backbones have it, or its parameters make no network.
        PluginError: no backbone of that name is installed.
    """
    matching = [system for system in named_systems(plugins) if system.name.casefold() == text.casefold()]
    if len(matching) > 1:
        owners = " and ".join(repr(system.backbone.name) for system in matching)
        raise ConfigError(f"{text!r} is a system of {owners}; describe one by its parameters: BACKBONE:name=value,…")
    if matching:
        return matching[0]
    name, has_params, rest = text.partition(":")
    if not has_params and name not in plugins.components["backbone"]:
        raise ConfigError(_unknown_system(text, plugins))
    backbone: Backbone = plugins.get("backbone", name)
    return System(name=text, backbone=backbone, params={**defaults(backbone.space()), **_parsed(rest, backbone)})


def record_of(system: System) -> dict[str, Any]:
    """Returns what `--json` prints of a system: its size, its stages where the backbone tells them, its parameters."""
    from greensv.speaker.complexity import describe_network

    features = system.backbone.published_features
    complexity = describe_network(lambda: system.backbone.build(system.params, features=features), features=features)
    summary = dict(system.backbone.summary(system.params))
    return {
        "system": system.name,
        "backbone": system.backbone.name,
        "num_parameters": complexity.num_parameters,
        "num_parameters_with_head": complexity.num_parameters_with_head,
        "macs": complexity.macs,
        "activations": complexity.activations,
        "num_features": features.num_features,
        "stages": _stages(summary.pop("blocks", None), summary.pop("channels", None)),
        "summary": summary,
        "params": dict(system.params),
    }


def _parsed(text: str, backbone: "Backbone") -> dict[str, Value]:
    """Returns the parameters of `name=value,name=value`, each checked against the backbone's space."""
    space = backbone.space()
    params: dict[str, Value] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if name not in space:
            known = ", ".join(space)
            raise ConfigError(f"{backbone.name} has no parameter {name!r}{did_you_mean(name, space)} (known: {known})")
        if not equals:
            raise ConfigError(f"{backbone.name}: {name} has no value; write {name}={space[name].default}")
        if name in params:
            raise ConfigError(f"{backbone.name}: {name} is given twice; leave one out")
        params[name] = _value(value, space[name])
        if problem := space[name].problem(params[name]):
            raise ConfigError(f"{backbone.name}: {name}: {problem}")
    return params


def _value(text: str, parameter: Parameter) -> Value:
    """Returns the text as the parameter's type, or as it is where it is none: the parameter then says what is wrong."""
    try:
        match parameter:
            case IntRange():
                return int(text)
            case FloatRange():
                return float(text)
            case _:
                return text
    except ValueError:
        return text


def _unknown_system(text: str, plugins: "Plugins") -> str:
    backbones = [backbone.name for backbone in plugins.all("backbone")]
    known = {name.casefold(): name for name in (*(s.name for s in named_systems(plugins)), *backbones)}
    close = difflib.get_close_matches(text.casefold(), list(known), n=1, cutoff=0.5)
    suggestion = f"; did you mean {known[close[0]]!r}?" if close else ""
    return (
        f"no system named {text!r}{suggestion} (`greensv describe --list` lists them; any other network: "
        f"BACKBONE:name=value,… of the backbones {', '.join(backbones)})"
    )


def _stages(blocks: object, channels: object) -> list[dict[str, object]]:
    if not isinstance(blocks, Sequence) or not isinstance(channels, Sequence) or len(blocks) != len(channels):
        return []
    return [{"blocks": b, "channels": c} for b, c in zip(blocks, channels, strict=True)]


def _print_table(records: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    table = Table()
    for heading in ("system", "backbone", "stages (blocks × channels)"):
        table.add_column(heading, overflow="fold")
    # A number that lost its last digits would be another one.
    for heading in ("parameters", "with head", "GMACs", "activations\n(M)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        table.add_row(
            # A system's name may hold brackets, which rich takes for markup.
            record["system"].replace("[", r"\["),
            record["backbone"],
            " ".join(f"{stage['blocks']}×{stage['channels']}" for stage in record["stages"]),
            f"{record['num_parameters']:,}",
            f"{record['num_parameters_with_head']:,}",
            f"{record['macs'] / 1e9:,.3f}",
            f"{record['activations'] / 1e6:,.2f}",
        )
    console().print(table)
    numbers = " or ".join(str(number) for number in sorted({record["num_features"] for record in records}))
    console().print(f"with head: 5,994 speakers; MACs and activations: 350 frames (3.5 s) of {numbers} features")
