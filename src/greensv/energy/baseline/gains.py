"""Corrections of meters' scales, found by comparing them with better ones; kept per machine, in force from then on."""

import json
import math
import os
import re
import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from greensv.energy.meter import Domain, DomainKind, Meter
from greensv.energy.metering.reading import OpenMeter
from greensv.errors import MeterError

FORMAT = "greensv-gains"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What the joules of one domain of a meter are multiplied by on one machine."""

    meter: str
    domain: Domain
    factor: float
    uncertainty: float
    """Relative standard uncertainty of the corrected joules: in place of the meter's own `gain_uncertainty`."""
    against: str
    """What it was compared with."""
    measured_at: str
    """ISO 8601, UTC."""


def data_folder() -> Path:
    """Returns the folder for what is measured of this machine: `$XDG_DATA_HOME/greensv` or `~/.local/share/greensv`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "greensv"


def calibrations_folder() -> Path:
    """Returns where calibrations and gains are kept."""
    return data_folder() / "calibrations"


def load_gains(folder: Path | None = None, *, host: str | None = None) -> dict[tuple[str, Domain], Gain]:
    """Returns the gains in force on a machine, by meter and domain; none where none was ever found.

    Args:
        folder: where they are kept; None: `calibrations_folder()`.
        host: the machine; None: this one. Several may share a home folder.

    Raises:
        MeterError: the file is damaged. Leaving its corrections out would change numbers in silence.
    """
    path = _path(folder, host)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != FORMAT_VERSION:
            raise ValueError(f"found {data['format']!r} version {data['version']}, know {FORMAT!r} {FORMAT_VERSION}")
        gains = [_gain(item) for item in data["gains"]]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeterError(
            f"the gain corrections of this machine cannot be read from {path} ({error}); restore the file, or remove "
            "it to measure without corrections"
        ) from error
    return {(gain.meter, gain.domain): gain for gain in gains}


def store_gains(gains: Sequence[Gain], folder: Path | None = None, *, host: str | None = None) -> Path:
    """Puts gains in force, in the place of earlier ones of the same domains; returns the file.

    Raises:
        MeterError: it cannot be written, or what is there cannot be read.
    """
    merged = {**load_gains(folder, host=host), **{(gain.meter, gain.domain): gain for gain in gains}}
    path = _path(folder, host)
    items = [{**asdict(gain), "domain": str(gain.domain)} for gain in merged.values()]
    write_json(path, {"format": FORMAT, "version": FORMAT_VERSION, "gains": items})
    return path


def remove_gains(folder: Path | None = None, *, host: str | None = None) -> Path | None:
    """Takes all gains of a machine out of force; returns the removed file, None where there was none."""
    path = _path(folder, host)
    if not path.exists():
        return None
    path.unlink()
    return path


def with_gains(meters: Iterable[OpenMeter], gains: Mapping[tuple[str, Domain], Gain]) -> tuple[OpenMeter, ...]:
    """Returns the meters with their corrections, which no reading so far has had.

    A meter all of whose domains are corrected is as uncertain as the least certain correction; another one stays as it
    is.
    """
    return tuple(_corrected(meter, gains) for meter in meters)


def source_words(meter: Meter, domain: Domain, gains: Mapping[tuple[str, Domain], Gain]) -> str:
    """Returns what measures a domain, for provenance: `rapl (measured)`, or `rapl (measured, × 1.032)`."""
    gain = gains.get((meter.name, domain))
    return f"{meter.name} ({meter.quality}{f', × {gain.factor:.4g}' if gain else ''})"


def without_gain(words: str) -> str:
    """Returns what `source_words` tells but for the correction: `rapl (measured)` of `rapl (measured, × 1.032)`."""
    return re.sub(r", × [^)]*\)$", ")", words)


def _corrected(meter: OpenMeter, gains: Mapping[tuple[str, Domain], Gain]) -> OpenMeter:
    domains = meter.availability.domains
    found = {domain: gains[meter.name, domain] for domain in domains if (meter.name, domain) in gains}
    factors = {domain: gain.factor for domain, gain in found.items()}
    about = meter.availability
    if found and len(found) == len(domains):
        about = replace(about, gain_uncertainty=max(gain.uncertainty for gain in found.values()))
    return replace(meter, gains={**meter.gains, **factors}, availability=about)


def parse_domain(text: str) -> Domain:
    """Returns the domain that `str(domain)` wrote.

    Raises:
        ValueError: there is no such kind.
    """
    kind, _, index = text.partition(":")
    if kind not in get_args(DomainKind):
        raise ValueError(f"{text!r} is no domain; domains are of kind {', '.join(get_args(DomainKind))}")
    return Domain(kind, index or "all")  # type: ignore[arg-type]


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a file whole or not at all.

    Raises:
        MeterError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}-", delete=False
        ) as file:
            temporary = Path(file.name)
            try:
                file.write(json.dumps(data, indent=1, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise MeterError(f"{path} cannot be written ({error}); check the folder, or set XDG_DATA_HOME") from error


def _gain(item: Mapping[str, Any]) -> Gain:
    gain = Gain(**{**item, "domain": parse_domain(item["domain"])})
    if not (math.isfinite(gain.factor) and gain.factor > 0 and math.isfinite(gain.uncertainty)):
        raise ValueError(f"a factor of {gain.factor} ± {gain.uncertainty} for {gain.domain}")
    return gain


def _path(folder: Path | None, host: str | None) -> Path:
    return (folder or calibrations_folder()) / f"gains-{host or socket.gethostname()}.json"
