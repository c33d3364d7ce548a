"""`greensv measure`: the energy of any program."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from greensv.cli.console import named_meters
from greensv.cli.options import also_meter_option, also_meters, meter_option_option, meter_options
from greensv.errors import ConfigError, MeterError

if TYPE_CHECKING:
    from greensv.cli.child_process import Mask
    from greensv.cli.measurement import Measurement
    from greensv.energy.started import StartedMonitor

CANNOT_MEASURE = 125
"""The exit code of what wraps a command and fails itself; env, timeout and nohup have the same."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--meter", "meters", multiple=True, metavar="NAME", help="Measure with this meter (repeatable).")
@also_meter_option
@meter_option_option
@click.option("--json", "as_json", is_flag=True, help="Report as JSON, one object on standard error.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write the JSON to FILE instead."
)
@click.option(
    "--pue", type=click.FloatRange(min=1), default=1.0, show_default=True, help="Multiplies the total, as in a study."
)
@click.option(
    "--interval-s",
    type=click.FloatRange(min=0, min_open=True, max=10),
    default=1.0,
    show_default=True,
    help="Seconds between two readings of the meters.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")
@click.pass_context
def measure(
    ctx: click.Context,
    /,
    *,
    command: tuple[str, ...],
    meters: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    output: Path | None,
    pue: float,
    interval_s: float,
) -> int:
    """Run any program and report its energy, by the meters of this machine.

    The program has the terminal to itself; the report comes on standard error when it has ended. Its exit code is
    passed through (128 + n where signal n ended it), and so are signals to it. GPUs are those that
    CUDA_VISIBLE_DEVICES shows. Exit code 127: no such program; 126: it cannot be executed; 125: nothing can measure,
    and it was not run.
    """
    from greensv.cli.child_process import CannotRunError, find_program, held_signals
    from greensv.energy.started import start_monitor

    with held_signals() as mask:
        try:
            program = find_program(command[0])
            _check_output(output)
            names, also = meters or ("auto",), also_meters(ctx)
            monitor = start_monitor(
                named_meters(ctx, [*names, *also]).all("meter"),
                names,
                also=also,
                interval_s=interval_s,
                options=meter_options(settings),
            )
        except CannotRunError as error:
            _echo_problem(str(error))
            return error.exit_code
        except (MeterError, ConfigError) as error:
            _echo_problem(f"{error}; the command was not run")
            return CANNOT_MEASURE
        try:
            measurement = _run(monitor, program, command, mask=mask, pue=pue)
        except CannotRunError as error:
            _echo_problem(str(error))
            return error.exit_code
        finally:
            problems = _stop(monitor)
        measurement = replace(measurement, notes=(*measurement.notes, *problems))
        _report(measurement, as_json=as_json, output=output)
    return measurement.exit_code


def _run(monitor: "StartedMonitor", program: str, command: Sequence[str], *, mask: "Mask", pue: float) -> "Measurement":
    from greensv.cli.child_process import run_program
    from greensv.cli.measurement import Measurement

    started_at, started_at_s = datetime.now(UTC), time.monotonic()
    exit_code, window, problem = 0, None, None
    try:
        with monitor.window("command") as open_window:
            exit_code = run_program(program, command, mask=mask)
        window = open_window.result
    except MeterError as error:
        problem = f"the energy of this command is not known: {error}"
    return Measurement(
        command=command,
        started_at=window.started_at if window else started_at,
        duration_s=window.duration_s if window else time.monotonic() - started_at_s,
        exit_code=exit_code,
        pue=pue,
        window=window,
        problem=problem,
        notes=(*_notes_on_meters(monitor), *(window.notes if window else monitor.notes)),
    )


def _stop(monitor: "StartedMonitor") -> list[str]:
    """The command has run and its window is closed: what fails now takes nothing of the result."""
    try:
        monitor.stop()
    except Exception as error:  # noqa: BLE001 - a plugin's meter may raise anything
        return [f"the meters could not be stopped: {error}"]
    return []


def _notes_on_meters(monitor: "StartedMonitor") -> list[str]:
    notes = []
    for choice in monitor.choices:
        if choice.is_chosen:
            notes.append(f"{choice.meter.name} is used: {choice.why}")
            notes += [f"{choice.meter.name}: {note}" for note in choice.availability.notes]
        else:
            notes.append(f"{choice.meter.name}: {choice.why}")
    return notes


def _check_output(output: Path | None) -> None:
    """Opens the file before the command runs, perhaps for hours; what it holds stays until there is something new."""
    if output is None:
        return
    try:
        output.open("a").close()
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written ({error.strerror}); choose another file") from error


def _report(measurement: "Measurement", *, as_json: bool, output: Path | None) -> None:
    from greensv.cli.measurement import as_json_record, print_table

    if measurement.problem:
        _echo_problem(measurement.problem)
    text = json.dumps(as_json_record(measurement), allow_nan=False)
    if output is not None:
        try:
            output.write_text(f"{text}\n", encoding="utf-8")
        except OSError as error:
            _echo_problem(f"--output {output} cannot be written ({error.strerror}); here is what it was to hold:")
            output, as_json = None, True
    if as_json and output is None:
        click.echo(text, err=True)
    elif not as_json and measurement.window is not None:
        print_table(measurement, measurement.window)


def _echo_problem(message: str) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True)
