"""What a reference unit costs on this hardware: the record that `greensv calibrate` keeps and a search looks up."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any

from greensv.config.validation import validate
from greensv.energy.baseline.comparison import Trace
from greensv.energy.baseline.gains import calibrations_folder, without_gain, write_json
from greensv.energy.baseline.idle import NetEnergy, this_host
from greensv.energy.metering.choice import Choice
from greensv.energy.metering.repetitions import combine_repetitions
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
    settings: str = ""
    """What was set about the meters and their models, as `meter_settings` tells it; "" where nothing was."""

    @property
    def key(self) -> str:
        """Names the file: readable, and told apart by all of it."""
        about = {name: value for name, value in asdict(self).items() if value}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.device_key}-{digest}"

    @property
    def device_key(self) -> str:
        """The device, as it is in the file's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")[:40]


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


def meter_settings(choices: Iterable[Choice]) -> str:
    """Returns a digest of the options that charged meters were given, and of what their models say of rest.

    Other ones make other joules of the same work. "" where there is neither.
    """
    found = {
        choice.meter.name: [
            _given(choice.request.options),
            {str(domain): f"{power_w:.6g}" for domain, power_w in choice.availability.rest_power_w.items()},
        ]
        for choice in choices
        if any(role != "beside" for role in choice.roles.values())
    }
    found = {name: about for name, about in found.items() if any(about)}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16] if found else ""


def _given(options: Any) -> dict[str, str]:
    """Returns the fields of a meter's options that are not at their defaults."""
    if options is None:
        return {}
    values = {field_of.name: getattr(options, field_of.name) for field_of in fields(options)}
    return {f.name: repr(values[f.name]) for f in fields(options) if values[f.name] != _default(f)}


def _default(of: Field[Any]) -> Any:
    return of.default if of.default_factory is MISSING else of.default_factory()


def unit_cost(
    windows: Sequence[EnergyWindow], nets: Sequence[NetEnergy | None], *, num_steps: int, steps_per_unit: int
) -> UnitCost:
    """Returns the cost of a unit from repetitions of `num_steps` steps.

    The uncertainties are those of `combine_repetitions`.
    """
    num_units = num_steps / steps_per_unit
    count, together = len(windows), combine_repetitions(windows)
    known = [net for net in nets if net is not None]
    is_net = len(known) == count
    duration_s = sum(window.duration_s for window in windows)
    return UnitCost(
        energy_j=together.mean_j / num_units,
        std_j=None if together.deviation_j is None else together.deviation_j / num_units,
        uncertainty_j=together.uncertainty_j / num_units,
        repeatability_j=together.repeatability_j / num_units,
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
    return _read(path) if path.exists() else None


def find_latest(hardware: Hardware, folder: Path | None = None) -> tuple[Calibration, Trace] | None:
    """Returns the latest calibration of some hardware and its trace, whatever corrections were in force in it.

    Raises:
        MeterError: a calibration's file is damaged, or of another version.
    """
    wanted = replace(hardware, meters=_uncorrected(hardware))
    paths = sorted((folder or calibrations_folder()).glob(f"{hardware.device_key}-{'?' * 10}.json"))
    found = [(calibration, trace) for calibration, trace in map(_read, paths) if _is_of(calibration, wanted)]
    return max(found, key=lambda item: item[0].measured_at, default=None)


def _is_of(calibration: Calibration, wanted: Hardware) -> bool:
    return replace(calibration.hardware, meters=_uncorrected(calibration.hardware)) == wanted


def _uncorrected(hardware: Hardware) -> dict[str, str]:
    return {domain: without_gain(words) for domain, words in hardware.meters.items()}


def _read(path: Path) -> tuple[Calibration, Trace]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != FORMAT_VERSION:
            raise ValueError(f"found {data['format']!r} version {data['version']}, know {FORMAT!r} {FORMAT_VERSION}")
        calibration, problems = validate(Calibration, data["calibration"], where="calibration")
        if calibration is None:
            raise ValueError("; ".join(map(str, problems)))
        energies = {(e["meter"], e["domain"]): tuple(e["energy_j"]) for e in data["trace"]["energies"]}
        trace = Trace(at_s=tuple(data["trace"]["at_s"]), energy_j=energies)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeterError(f"the calibration {path} cannot be read ({error}); run `greensv calibrate` again") from error
    return calibration, trace


def in_force(environment: Mapping[str, str], *, settings: str = "", folder: Path | None = None) -> Calibration | None:
    """Returns the calibration for a study's environment; None without one.

    Args:
        environment: as `workbench.environment` tells it.
        settings: as `meter_settings` tells them.
        folder: where calibrations are kept; None: `calibrations_folder()`.
    """
    prefix = "meter of "
    meters = {key.removeprefix(prefix): value for key, value in environment.items() if key.startswith(prefix)}
    hardware = Hardware(host=this_host(), device=environment["device"], meters=meters, settings=settings)
    try:
        found = find(hardware, folder)
    except MeterError as error:
        logger.warning("no reference units: %s", error)
        return None
    return found[0] if found else None


def as_json(calibration: Calibration) -> dict[str, Any]:
    """Returns a calibration as plain values."""
    return asdict(calibration)


def _path(hardware: Hardware, folder: Path | None) -> Path:
    return (folder or calibrations_folder()) / f"{hardware.key}.json"
