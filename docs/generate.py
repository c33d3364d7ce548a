"""Writes docs/reference/cli.md and docs/reference/configuration.md from the code: `uv run python docs/generate.py`.

tests/docs/test_reference.py fails where the committed pages differ from what this gives.
"""

import ast
import copy
import dataclasses
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from annotated_types import Ge, Gt, Le, Lt, MinLen

from greensv.cli.main import COMMANDS, cli
from greensv.config import StudyConfig
from greensv.plugins import Component, Kind, load_plugins
from greensv.speaker.space import Choice, FloatRange, IntRange, Parameter

FOLDER = Path(__file__).parent / "reference"
DISTRIBUTIONS = (
    "greensv",
    "greensv-campplus",
    "greensv-codecarbon",
    "greensv-espeak",
    "greensv-template",
    "greensv-zeus",
)
"""Whose components the reference describes: what else is installed must not change it."""
HELP_WIDTH = 100
GENERATED = "<!-- Written by docs/generate.py from the code; change that, and run `uv run python docs/generate.py`. -->"

CLI_INTRODUCTION = """
`greensv COMMAND --help` prints what stands here. Options of `greensv` itself go before the command:
`greensv --no-plugins meters`.

A command ends with exit code 0; with 1 after an error that you can mend, printed without a traceback; with 2 after a
mistake in the command line; with 130 after Ctrl-C, when what was done is saved.

| environment variable | effect |
| --- | --- |
| `GREENSV_LOAD_PLUGINS` | Loads only these plugins or distributions (separated by commas) beside the built-in ones |
| `XDG_CACHE_HOME` | `greensv` below it keeps what datasets have prepared; without it, below `~/.cache` |
| `ELECTRICITY_MAPS_TOKEN` | The token for carbon source `electricity-maps`; it is stored and logged nowhere |
"""

CONFIGURATION_INTRODUCTION = """
A study is one file, `study.toml`. `greensv search study.toml --budget-kwh X` runs it; the folder that holds it will do
in its place. Options of the command line override it: `--study-name` the key `name`, `--seed` and `--device` the keys
of that name, `--dataset` and `--data-root` the table `[dataset]`, `--meter` the key `energy.meters`, and `--backbone`
leaves out every other backbone.

All mistakes are reported at once, each with its path. An unknown key is a mistake, and so is a value of another type;
only a whole number is taken where any number will do. The resolved configuration is stored with the study before
anything runs, and a study that has trials is continued with an equal one only. The budget is no part of it: it may be
raised. In the tables below a key that is "not set" is simply left out; where a meaning speaks of None, that is meant.

This study runs where no file is named:
"""

NARROWING = """
One table per backbone to search, named after it; an empty one (`[backbones.resnet]` with no keys) leaves its whole
space. A key narrows one parameter: a value fixes it, `[low, high]` bounds a number, and a list of options, from the
cheapest to the dearest, limits a choice. Nothing can be widened. With several backbones the search chooses among them.
"""

PARAMETER_NOTES = {
    "resnet": "`depth` counts the residual blocks of all four stages. `share_1` to `share_4` are the stages' shares; "
    "only their ratios matter, and each stage has one block at least. `channels` are those of the stages at width 1: "
    "`paper` 128-128-256-256, `classic` 32-64-128-256. They are multiplied by 2 to the power of `width_log2`. `block` "
    "is two or three 3×3 convolutions, or a bottleneck."
}
"""What the names of a space's parameters do not say by themselves, by backbone."""


def pages() -> dict[Path, str]:
    """Returns every generated page by its path."""
    return {FOLDER / "cli.md": cli_page(), FOLDER / "configuration.md": configuration_page()}


def cli_page() -> str:
    """Returns the help of every command, as `--help` prints it in a terminal of `HELP_WIDTH` columns."""
    parent = click.Context(cli, info_name="greensv", terminal_width=HELP_WIDTH, **cli.context_settings)
    parts = [f"# Command line\n\n{GENERATED}\n{CLI_INTRODUCTION}", _help("greensv", cli, parent)]
    for name in COMMANDS:
        command = cli.get_command(parent, name)
        assert command is not None
        parts.append(_help(f"greensv {name}", command, click.Context(command, info_name=name, parent=parent)))
    return "\n".join(parts)


def configuration_page() -> str:
    """Returns every key of study.toml, and the options and search spaces of the documented components."""
    quickstart = (files("greensv.search") / "quickstart.toml").read_text(encoding="utf-8")
    parts = [
        f"# Configuration\n\n{GENERATED}\n{CONFIGURATION_INTRODUCTION}\n```toml\n{quickstart}```\n",
        *tables("", StudyConfig, path=""),
        f"## `[backbones.<name>]`\n{NARROWING}",
        *map(_backbone, _components("backbone")),
        "## `[dataset.options]`\n\nThe keys depend on `dataset.name`.\n",
        *(_options("dataset", component, "[dataset.options]") for component in _components("dataset")),
        "## `[energy.options.<meter>]`\n\nOne table per meter that has options.\n",
        *(_options("meter", c, f"[energy.options.{c.name}]") for c in _components("meter")),
        "## `[energy.carbon_options.<source>]`\n\nOne table per carbon source (`energy.carbon_source`) with options.\n",
        *(_options("carbon source", c, f"[energy.carbon_options.{c.name}]") for c in _components("carbon source")),
    ]
    return "\n".join(parts).rstrip() + "\n"


def tables(title: str, record: type, *, path: str) -> Iterator[str]:
    """Yields the section of a configuration record, then those of the records inside it.

    Args:
        title: the heading, in TOML's form; empty for the keys outside of any table.
        record: a dataclass.
        path: its path in study.toml, such as `recipe`.
    """
    heading = f"## `{title}`" if title else "## Keys outside of any table"
    inner = dict(_inner_tables(record))
    yield f"{heading}\n\n{inspect.getdoc(record)}\n\n{keys_table(record, leave_out=inner)}"
    for name, (nested, is_list) in inner.items():
        inner_path = f"{path}.{name}" if path else name
        yield from tables(f"[[{inner_path}]]" if is_list else f"[{inner_path}]", nested, path=inner_path)


def keys_table(record: type, *, leave_out: Mapping[str, Any] | None = None) -> str:
    """Returns a Markdown table of a dataclass's fields: type with its bounds, default, and what its docstring says."""
    docstrings = attribute_docstrings(record)
    hints = get_type_hints(record, include_extras=True)
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(record):
        if field.name not in (leave_out or {}) and not _is_free_table(hints[field.name]):
            cells = (
                f"`{field.name}`",
                type_in_words(hints[field.name]),
                _default(field),
                docstrings.get(field.name, ""),
            )
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def attribute_docstrings(record: type) -> dict[str, str]:
    """Returns the string below each annotated attribute of a class, on one line; inherited ones too."""
    if record is object:
        return {}
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(record))).body
    assert isinstance(definition, ast.ClassDef)
    found = {name: text for base in record.__bases__ for name, text in attribute_docstrings(base).items()}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def type_in_words(hint: Any) -> str:
    """Returns a field's type and bounds as a writer of TOML needs them: `whole number, at least 1`."""
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin is Annotated:
            return ", ".join([type_in_words(arguments[0]), *filter(None, map(_bound, arguments[1:]))])
        case origin if origin is Literal:
            return " or ".join(f"`{json.dumps(option)}`" for option in arguments)
        case origin if origin in (Union, UnionType):
            return " or ".join(type_in_words(argument) for argument in arguments if argument is not NoneType)
        case origin if origin is tuple:
            return f"list of {type_in_words(arguments[0])}"
    return {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}[hint]


def _help(title: str, command: click.Command, context: click.Context) -> str:
    # click keeps the names of the help option from the command's first use, in tests without the names of `greensv`.
    command = copy.copy(command)
    command._help_option = None
    return f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"


def _components(kind: Kind) -> list[Component]:
    found = load_plugins().components[kind].values()
    return sorted((c for c in found if c.provider.distribution in DISTRIBUTIONS), key=lambda component: component.name)


def _inner_tables(record: type) -> Iterator[tuple[str, tuple[type, bool]]]:
    """Yields each field that is a record, and whether there may be several of it."""
    for name, hint in get_type_hints(record).items():
        candidates = get_args(hint) if get_origin(hint) is tuple else (hint,)
        if dataclasses.is_dataclass(candidates[0]):
            assert isinstance(candidates[0], type)
            yield name, (candidates[0], candidates[0] is not hint)


def _is_free_table(hint: Any) -> bool:
    """Whether the field is a table whose keys a component decides; it has a section of its own."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return get_origin(inner) is Mapping


def _bound(constraint: Any) -> str:
    match constraint:
        case Ge(ge=low):
            return f"at least {low}"
        case Gt(gt=low):
            return f"above {low}"
        case Le(le=high):
            return f"at most {high}"
        case Lt(lt=high):
            return f"below {high}"
        case MinLen(min_length=1):
            return "not empty"
    raise ValueError(f"no words for the constraint {constraint!r}")


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is dataclasses.MISSING:
        return "required"
    return "not set" if field.default is None else f"`{json.dumps(field.default)}`"


def _options(kind: str, component: Component, title: str) -> str:
    options_type = component.instance.options_type
    if options_type is None or not dataclasses.fields(options_type):
        return f"### {kind.capitalize()} `{component.name}`\n\n{_about(component)}\n\nIt has no options.\n"
    heading = f"### {kind.capitalize()} `{component.name}`: `{title}`"
    inner = dict(_inner_tables(options_type))
    parts = [heading, _about(component), inspect.getdoc(options_type) or "", keys_table(options_type, leave_out=inner)]
    for name, (nested, is_list) in inner.items():
        inner_path = f"{title.strip('[]')}.{name}"
        parts.append(f"#### `{f'[[{inner_path}]]' if is_list else f'[{inner_path}]'}`")
        parts += [inspect.getdoc(nested) or "", keys_table(nested)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _backbone(component: Component) -> str:
    rows = ["| parameter | values | default |", "| --- | --- | --- |"]
    for name, parameter in component.instance.space().items():
        rows.append(f"| `{name}` | {_values(parameter)} | `{json.dumps(parameter.default)}` |")
    parts = [f"### Backbone `{component.name}`: `[backbones.{component.name}]`", _about(component)]
    if component.name in PARAMETER_NOTES:
        parts.append(textwrap.fill(PARAMETER_NOTES[component.name], 120, break_on_hyphens=False))
    return "\n\n".join([*parts, "\n".join(rows)]) + "\n"


def _values(parameter: Parameter) -> str:
    match parameter:
        case Choice(options=options):
            return " or ".join(f"`{json.dumps(option)}`" for option in options)
        case IntRange(low=low, high=high, log=log):
            return f"whole number, {low} to {high}" + (", its logarithm drawn evenly" if log else "")
        case FloatRange(low=low, high=high, step=step, log=log):
            steps = f", in steps of {step:g}" if step is not None else ""
            return f"number, {low:g} to {high:g}{steps}" + (", its logarithm drawn evenly" if log else "")


def _about(component: Component) -> str:
    return f"{_summary(type(component.instance))} Distribution: `{component.provider.distribution}`."


def _summary(thing: type) -> str:
    """Returns the first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    for page, text in pages().items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
