"""The readings of a power meter outside of the machine, as it exports them: a CSV file of powers or of energies."""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError, did_you_mean
from greensv.units import JOULES_PER_KWH

Array = NDArray[np.float64]

COLUMNS: Mapping[str, str] = MappingProxyType({name: name for name in ("time", "power_w", "energy_j", "energy_kwh")})
"""What a column holds, and its name in the file: time, and one of the others."""
GAP_S = 5.0
GAP_INTERVALS = 5
"""Longer than both, and than so many usual intervals, two readings have a gap between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalReadings:
    """Joules since the first reading, against time."""

    at_s: Array
    """UTC epoch seconds, increasing."""
    energy_j: Array
    quantum_j: float = 0.0
    """The step in which a cumulative energy was counted; 0 for powers."""
    name: str = ""
    gaps: tuple[tuple[float, float], ...] = field(default=())
    """Where readings are missing: begin and end, UTC epoch seconds."""

    def energy_between(self, from_s: Array, to_s: Array) -> Array:
        """Returns the joules between two moments (arrays of them), interpolated between readings."""
        found: Array = np.interp(to_s, self.at_s, self.energy_j) - np.interp(from_s, self.at_s, self.energy_j)
        return found


def read_external(path: Path, columns: Mapping[str, str] | None = None) -> ExternalReadings:
    """Reads a CSV file with a header line.

    Args:
        path: the file. Its columns: `time`, as UTC epoch seconds or ISO 8601 with a time zone; and `power_w`, or a
            cumulative `energy_j` or `energy_kwh`. Others are passed over.
        columns: other names, such as `{"time": "timestamp", "power_w": "Watts"}`.

    Raises:
        DataError: naming the file and the line.
    """
    names = {**COLUMNS, **(columns or {})}
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path} has no readings; it should have a header line and a line for each reading")
    header = [name for name in rows[0][1] if name is not None]
    if names["time"] not in header:
        raise DataError(
            f"{path} has no column {names['time']!r}{did_you_mean(names['time'], header)} "
            f"(found: {', '.join(header)}); say which one holds the time with --csv-column time=NAME"
        )
    kinds = [kind for kind in ("power_w", "energy_j", "energy_kwh") if names[kind] in header]
    if len(kinds) != 1:
        wanted = ", ".join(names[kind] for kind in ("power_w", "energy_j", "energy_kwh"))
        raise DataError(
            f"{path} should have exactly one of the columns {wanted}, found {', '.join(header)}; "
            "name it with --csv-column power_w=NAME (or energy_j=, energy_kwh=)"
        )
    (kind,) = kinds
    at_s, values = [], []
    for line, row in rows:
        at_s.append(_time(row.get(names["time"]), where=f"{path}, line {line}"))
        values.append(_number(row.get(names[kind]), where=f"{path}, line {line}, {names[kind]}"))
        if len(at_s) > 1 and at_s[-1] <= at_s[-2]:
            raise DataError(
                f"{path}, line {line}: the time does not increase; sort the readings and drop repeated ones"
            )
        if kind != "power_w" and len(values) > 1 and values[-1] < values[-2]:
            raise DataError(
                f"{path}, line {line}: the energy falls from {values[-2]:g} to {values[-1]:g}; it should be the total "
                "so far, without a reset"
            )
    if len(at_s) < 2:
        raise DataError(f"{path} has one reading only; a comparison needs many")
    return _integrated(np.array(at_s), np.array(values), kind=kind, name=path.name)


def _integrated(at_s: Array, values: Array, *, kind: str, name: str) -> ExternalReadings:
    usual_s = median(b - a for a, b in pairwise(at_s))
    limit_s = max(GAP_S, GAP_INTERVALS * usual_s)
    gaps = tuple((float(a), float(b)) for a, b in pairwise(at_s) if b - a > limit_s)
    if kind == "power_w":
        steps_j = np.diff(at_s) * (values[1:] + values[:-1]) / 2
        energy_j = np.concatenate([[0.0], np.cumsum(steps_j)])
        return ExternalReadings(at_s=at_s, energy_j=energy_j, name=name, gaps=gaps)
    energy_j = (values - values[0]) * (JOULES_PER_KWH if kind == "energy_kwh" else 1.0)
    steps_j = np.diff(energy_j)
    quantum_j = float(steps_j[steps_j > 0].min()) if (steps_j > 0).any() else 0.0
    # A counter whose every reading differs counts finer than it is read: its steps are the power's, not its own.
    quantum_j = quantum_j if (steps_j == 0).any() else 0.0
    return ExternalReadings(at_s=at_s, energy_j=energy_j, quantum_j=quantum_j, name=name, gaps=gaps)


def _rows(path: Path) -> Iterator[tuple[int, dict[str | None, str | None]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error}); export the readings as CSV in UTF-8") from error


def _time(text: str | None, *, where: str) -> float:
    words = (text or "").strip()
    try:
        seconds = float(words)
    except ValueError:
        pass
    else:
        # From 1990 to 2100; milliseconds, or seconds since the logger was switched on, are not.
        if not 6e8 < seconds < 4.2e9:
            raise DataError(
                f"{where}: the time {words} is not in seconds since 1970 (UTC); convert it, or write ISO 8601"
            )
        return seconds
    try:
        moment = datetime.fromisoformat(words)
    except ValueError as error:
        raise DataError(
            f"{where}: {words!r} is no time; write seconds since 1970 or ISO 8601 such as 2026-11-21T14:00:00+01:00"
        ) from error
    if moment.tzinfo is None:
        raise DataError(f"{where}: the time {words!r} has no time zone; write it, such as {words}+00:00 for UTC")
    return moment.timestamp()


def _number(text: str | None, *, where: str) -> float:
    try:
        value = float((text or "").strip())
    except ValueError as error:
        raise DataError(f"{where}: {text!r} is no number; leave the line out if the meter had no reading") from error
    if not math.isfinite(value) or value < 0:
        raise DataError(f"{where}: {text!r} is no reading of a meter; it should be 0 or more")
    return value
