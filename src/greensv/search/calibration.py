"""What a reference unit costs on this hardware: the record that `greensv calibrate` keeps and a search looks up."""

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from greensv.config.validation import validate
from greensv.energy.baseline.comparison import Trace
from greensv.energy.baseline.gains import calibrations_folder, write_json
from greensv.energy.baseline.idle import NetEnergy, this_host
from greensv.energy.metering.window import EnergyWindow
from greensv.errors import MeterError
from greensv.units import j_from_kwh

logger = logging.getLogger(__name__)

FORMAT = "greensv-reference"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a calibration is good for: its machine, the processor or GPU that computes, and what measures."""

    host: str
    device: str
    meters: Mapping[str, str]
    """Meter and quality of each domain: `{"cpu:0": "rapl (measured)"}`."""

    @property
    def key(self) -> str:
        """Names the file: readable, and told apart by all of it."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        device = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")[:40]
        return f"{device}-{digest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCost:
    """The cost of one reference unit, PUE not included."""

    energy_j: float
    """Mean over the repetitions."""
    std_j: float | None
    """Standard deviation over the repetitions; None for fewer than two."""
    uncertainty_j: float
    """Standard uncertainty of the mean: of the repetitions, of the windows' edges, and of the meters' scale."""
    repeatability_j: float
    """The part of it that is not the meters' scale: what remains in a ratio of two energies of the same meters."""
    net_j: float | None
    """Less what the machine draws at rest; None where that is not known."""
    net_uncertainty_j: float | None
    seconds: float
    power_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A reference workload, run and measured on some hardware."""

    workload: str
    steps_per_unit: int
    hardware: Hardware
    unit: UnitCost
    num_steps: int
    """Of each repetition."""
    num_repeats: int
    energies_j: tuple[float, ...]
    """Of each repetition."""
    idle_power_w: float | None
    measured_at: str
    """ISO 8601, UTC."""
    precision: str = "fp32"
    num_threads: int = 0
    driver: str = ""
    torch: str = ""
    greensv: str = ""
    gains: Mapping[str, float] = field(default_factory=dict)
    """Corrections that were in force, by meter and domain."""

    def units(self, energy_kwh: float, *, pue: float) -> tuple[float, float]:
        """Returns an energy in reference units, and the standard uncertainty that the calibration adds to it.

        Both were measured by the same meters, whose scale cancels.

        Args:
            energy_kwh: PUE included.
            pue: which is taken out, since the unit has none.
        """
        units = j_from_kwh(energy_kwh) / pue / self.unit.energy_j
        return units, units * self.unit.repeatability_j / self.unit.energy_j


def unit_cost(
    windows: Sequence[EnergyWindow], nets: Sequence[NetEnergy | None], *, num_steps: int, steps_per_unit: int
) -> UnitCost:
    """Returns the cost of a unit from repetitions of `num_steps` steps.

    The uncertainty of the mean is √((s/√n)² + w²/n + g²): s the deviation between repetitions, w the part of a window's
    uncertainty that changes from one to the next, g that of the meters' scale, which does not average out.
    """
    num_units = num_steps / steps_per_unit
    count = len(windows)
    energies_j = [window.energy_j / num_units for window in windows]
    energy_j = mean(energies_j)
    scale_j = mean(_scale_j(window) for window in windows) / num_units
    own_j2 = mean(max(0.0, w.uncertainty_j**2 - _scale_j(w) ** 2) for w in windows) / num_units**2
    std_j = stdev(energies_j) if count > 1 else None
    repeatability_j = math.sqrt(((std_j or 0.0) ** 2 + own_j2) / count)
    known = [net for net in nets if net is not None]
    is_net = len(known) == count
    duration_s = sum(window.duration_s for window in windows)
    return UnitCost(
        energy_j=energy_j,
        std_j=std_j,
        uncertainty_j=math.hypot(repeatability_j, scale_j),
        repeatability_j=repeatability_j,
        net_j=mean(net.energy_j for net in known) / num_units if is_net else None,
        # Not divided by √n: the idle power is one measurement, off alike in all repetitions.
        net_uncertainty_j=mean(net.uncertainty_j for net in known) / num_units if is_net else None,
        seconds=duration_s / count / num_units,
        power_w=sum(window.energy_j for window in windows) / duration_s,
    )


def store(calibration: Calibration, trace: Trace, folder: Path | None = None) -> Path:
    """Keeps a calibration and the trace of its run, in the place of an earlier one of the same hardware.

    Raises:
        MeterError: it cannot be written.
    """
    path = _path(calibration.hardware, folder)
    energies = [{"meter": m, "domain": d, "energy_j": values} for (m, d), values in trace.energy_j.items()]
    data = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "calibration": asdict(calibration),
        "trace": {"at_s": trace.at_s, "energies": energies},
    }
    write_json(path, data)
    return path


def find(hardware: Hardware, folder: Path | None = None) -> tuple[Calibration, Trace] | None:
    """Returns the calibration of some hardware and the trace of its run; None where there is none.

    Raises:
        MeterError: its file is damaged, or of another version.
    """
    path = _path(hardware, folder)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != FORMAT_VERSION:
            raise ValueError(f"found {data['format']!r} version {data['version']}, know {FORMAT!r} {FORMAT_VERSION}")
        calibration, problems = validate(Calibration, data["calibration"], where="calibration")
        if calibration is None:
            raise ValueError("; ".join(map(str, problems)))
        energies = {(e["meter"], e["domain"]): tuple(e["energy_j"]) for e in data["trace"]["energies"]}
        trace = Trace(at_s=tuple(data["trace"]["at_s"]), energy_j=energies)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeterError(f"the calibration {path} cannot be read ({error}); run `greensv calibrate` again") from error
    return calibration, trace


def in_force(environment: Mapping[str, str], folder: Path | None = None) -> Calibration | None:
    """Returns the calibration for a study's environment, as `workbench.environment` tells it; None without one."""
    prefix = "meter of "
    meters = {key.removeprefix(prefix): value for key, value in environment.items() if key.startswith(prefix)}
    hardware = Hardware(host=this_host(), device=environment["device"], meters=meters)
    try:
        found = find(hardware, folder)
    except MeterError as error:
        logger.warning("no reference units: %s", error)
        return None
    return found[0] if found else None


def as_json(calibration: Calibration) -> dict[str, Any]:
    """Returns a calibration as plain values."""
    return asdict(calibration)


def _scale_j(window: EnergyWindow) -> float:
    by_meter: dict[str, float] = {}
    for reading in window.readings:
        by_meter[reading.meter] = by_meter.get(reading.meter, 0.0) + reading.scale_uncertainty_j
    return math.hypot(*by_meter.values())


def _path(hardware: Hardware, folder: Path | None) -> Path:
    return (folder or calibrations_folder()) / f"{hardware.key}.json"
