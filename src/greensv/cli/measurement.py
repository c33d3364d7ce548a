"""What `greensv measure` reports of a command's run: as one JSON object, and as a table for people."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from greensv.energy.meter import Role
from greensv.energy.metering.parts import REST, Part, split
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow
from greensv.units import kwh_from_j

ROLES: Mapping[Role, str] = MappingProxyType(
    {"charged": "", "part": ", a part, not added", "beside": ", beside, not added"}
)
COMMAND_WIDTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A command's run. Without a window, `problem` says why its energy is not known."""

    command: Sequence[str]
    started_at: datetime
    duration_s: float
    exit_code: int
    pue: float
    window: EnergyWindow | None
    problem: str | None
    notes: tuple[str, ...]
    """Of the meters, and of what went wrong with them meanwhile."""


def as_json_record(measurement: Measurement) -> dict[str, Any]:
    """Returns the report as one object.

    `energy_j` is what counts: the domains of role `charged`, times PUE; the domains' own are as measured. It and its
    standard uncertainty are None where `problem` says why nothing is known. `rest` is what a node's parts leave of it.
    A domain's `resolution_s` is how often its counter or sensor changes, in seconds: one that is not much shorter than
    the command makes its energy poorly known. 0: not known to be limited.
    """
    window = measurement.window
    return {
        "command": list(measurement.command),
        "started_at": measurement.started_at.isoformat(),
        "duration_s": measurement.duration_s,
        "exit_code": measurement.exit_code,
        "pue": measurement.pue,
        "energy_j": None if window is None else measurement.pue * window.energy_j,
        "uncertainty_j": None if window is None else measurement.pue * window.uncertainty_j,
        "domains": [] if window is None else [_domain_record(r) for r in (*window.readings, *window.others)],
        "rest": [] if window is None else [_rest_record(part) for part in _rests(window)],
        "notes": list(measurement.notes),
        "problem": measurement.problem,
    }


def print_table(measurement: Measurement, window: EnergyWindow) -> None:
    """Prints the domains and their total on standard error."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE, pad_edge=False)
    table.add_column("meter")
    table.add_column("domain", overflow="fold")
    for heading in ("J", "± J", "kWh", "mean W"):
        table.add_column(heading, justify="right")
    table.add_column("quality")
    for reading in (*window.readings, *window.others):
        numbers = _numbers(reading.energy_j, reading.uncertainty_j, window.duration_s)
        table.add_row(reading.meter, str(reading.domain), *numbers, f"{reading.quality}{ROLES[reading.role]}")
    rests = _rests(window)
    for part in rests:
        numbers = _numbers(part.energy_j, part.uncertainty_j, window.duration_s)
        table.add_row(part.meter, f"rest of {part.whole}", *numbers, f"{part.quality}{ROLES['part']}")
    pue = measurement.pue
    total = _numbers(pue * window.energy_j, pue * window.uncertainty_j, window.duration_s)
    table.add_section()
    table.add_row("total" if pue == 1 else f"total × PUE {pue:g}", "", *total, "")
    screen = Console(file=sys.stderr, highlight=False)
    screen.print(table)
    for note in measurement.notes:
        screen.print(note, style="yellow" if note in window.notes else "dim", markup=False)
    for part in rests:
        if part.problem:
            screen.print(part.problem, style="yellow", markup=False)
    screen.print(
        f"{_typed(measurement.command)}: {window.duration_s:.3g} s, exit code {measurement.exit_code}; "
        "± is a standard uncertainty (68 %)",
        markup=False,
        style="dim",
    )


def _domain_record(reading: Reading) -> dict[str, Any]:
    return {
        "meter": reading.meter,
        "domain": str(reading.domain),
        "energy_j": reading.energy_j,
        "uncertainty_j": reading.uncertainty_j,
        "quality": reading.quality,
        "role": reading.role,
        "resolution_s": reading.resolution_s,
    }


def _rests(window: EnergyWindow) -> list[Part]:
    return [part for part in split(window) if part.name == REST]


def _rest_record(part: Part) -> dict[str, Any]:
    return {
        "whole": str(part.whole),
        "meter": part.meter,
        "energy_j": part.energy_j,
        "uncertainty_j": part.uncertainty_j,
        "problem": part.problem,
    }


def _typed(command: Sequence[str]) -> str:
    """Returns a command as one would type it, cut to a line."""
    text = " ".join(shlex.join(command).split())
    return text if len(text) <= COMMAND_WIDTH else f"{text[: COMMAND_WIDTH - 1]}…"


def _numbers(energy_j: float, uncertainty_j: float, duration_s: float) -> tuple[str, str, str, str]:
    return (
        f"{energy_j:.4g}" if abs(energy_j) < 1000 else f"{energy_j:,.0f}",
        f"{uncertainty_j:.2g}" if uncertainty_j < 100 else f"{uncertainty_j:,.0f}",
        f"{kwh_from_j(energy_j):.3g}",
        f"{energy_j / duration_s:.3g}",
    )
