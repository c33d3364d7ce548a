"""The powercap tree of Linux: which RAPL zones there are, and how to become allowed to read them.

https://docs.kernel.org/power/powercap/powercap.html
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from greensv.energy.meter import Availability, Domain

DEFAULT_ROOT = "/sys/class/powercap"
ZONE = re.compile(r"intel-rapl:(\d+)")
SUBZONE = re.compile(r"intel-rapl:(\d+):(\d+)")
PACKAGE = re.compile(r"package-(\d+(?:-die-\d+)?)")
MAX_POWER_W = 1000.0
"""No socket and no socket's memory draws more; processors of 2025 are rated at 500 W at the most."""
RESOLUTION_S = 0.001
"""RAPL counters change about once a millisecond (Intel SDM vol. 3B, section 16.10)."""
GAIN_UNCERTAINTY = 0.05
IN_CONTAINER = "mount the host's /sys/devices/virtual/powercap and set energy.options.rapl.root to it"
MIRROR_TOLERANCE_UJ = 1_000_000
"""Dies whose counters, of the order of 100 kJ, agree within 1 J show one counter twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A RAPL zone that greensv counts: a package, or its memory. `range_uj` None: the tree does not say."""

    domain: Domain
    folder: Path
    range_uj: int | None

    def read_uj(self) -> int:
        """Returns the counter, opening its file anew. Raises OSError or ValueError."""
        return int((self.folder / "energy_uj").read_text())


def find_zones(root: Path) -> list[Zone]:
    """Returns the package and dram zones under `root`, in order of socket.

    Never psys, which holds the packages, nor core and uncore, which the packages hold, nor intel-rapl-mmio, which shows
    the packages a second time. Raises OSError or ValueError when the tree cannot be read.
    """
    zones = []
    for package in _children(root, ZONE) or _children(root / "intel-rapl", ZONE):
        name = _text(package / "name")
        match = PACKAGE.fullmatch(name or "")
        if match is None:
            continue
        zones.append(Zone(domain=Domain("cpu", match[1]), folder=package, range_uj=_range_uj(package)))
        for part in _children(package, SUBZONE) or _siblings(package):
            if _text(part / "name") == "dram":
                zones.append(Zone(domain=Domain("dram", match[1]), folder=part, range_uj=_range_uj(part)))
    return sorted(zones, key=lambda zone: zone.domain)


def without_mirrors(zones: Sequence[Zone]) -> tuple[list[Zone], list[str]]:
    """Returns the zones without those that show another die's counter a second time, and notes on what was dropped.

    Some processors with several dies report the whole socket's energy for each of them. Raises OSError or ValueError.
    """
    kept: list[tuple[Zone, int]] = []
    notes = []
    for zone in zones:
        count_uj = zone.read_uj()
        twin = next(
            (other for other, uj in kept if _are_mirrors(zone, other) and abs(uj - count_uj) <= MIRROR_TOLERANCE_UJ),
            None,
        )
        if twin is None:
            kept.append((zone, count_uj))
        else:
            notes.append(f"{zone.domain} shows the counter of {twin.domain} and is left out")
    return [zone for zone, _ in kept], notes


def availability(
    root: Path, leave_out: frozenset[str], *, in_container: str = IN_CONTAINER
) -> tuple[Availability, list[Zone]]:
    """Returns what the tree under `root` can measure and the zones to read for it. Never raises.

    `in_container` is what to do in a container, which does not show the tree.
    """
    try:
        zones, notes = without_mirrors(find_zones(root))
    except PermissionError as error:
        return _not_permitted(error), []
    except FileNotFoundError:
        return _nothing_there(root, in_container), []
    except (OSError, ValueError) as error:
        return Availability(reason=f"{root} cannot be read: {error}", remedy="look at the kernel's log (dmesg)"), []
    if not zones:
        return _nothing_there(root, in_container), []
    zones = [zone for zone in zones if zone.domain.kind not in leave_out]
    if not zones:
        return Availability(reason="other meters measure what it could", remedy="leave one of them out"), []
    notes += [
        f"{zone.domain}: {zone.folder} has no max_energy_range_uj; a wrap of its counter will stop the measurement"
        for zone in zones
        if zone.range_uj is None
    ]
    found = Availability(
        domains=tuple(zone.domain for zone in zones),
        resolution_s=RESOLUTION_S,
        gain_uncertainty=GAIN_UNCERTAINTY,
        max_power_w=MAX_POWER_W,
        notes=tuple(notes),
    )
    return found, zones


def unreadable(error: OSError) -> str:
    """Returns why a file could not be read and what to do, for an error message."""
    if isinstance(error, PermissionError):
        about = _not_permitted(error)
        return f"{about.reason}; {about.remedy}"
    return f"{error.filename or 'a RAPL counter'} cannot be read: {error.strerror}; look at the kernel's log (dmesg)"


def _not_permitted(error: OSError) -> Availability:
    return Availability(
        reason=f"no permission to read {error.filename} (since Linux 5.10 only root may)",
        remedy=(
            "run `sudo chmod a+r /sys/class/powercap/intel-rapl*/energy_uj`, which lasts until the next boot; "
            "for good, put "
            '`SUBSYSTEM=="powercap", ACTION=="add", RUN+="/bin/chmod a+r /sys%p/energy_uj"` into '
            "/etc/udev/rules.d/99-powercap.rules"
        ),
    )


def _nothing_there(root: Path, in_container: str) -> Availability:
    return Availability(
        reason=f"no RAPL zones under {root}",
        remedy=(
            f"on bare metal run `sudo modprobe intel_rapl_msr` (AMD too); in a container {in_container}; "
            "virtual machines have none"
        ),
    )


def _are_mirrors(zone: Zone, other: Zone) -> bool:
    """Only dies of one socket can be mirrors: two sockets are two chips."""
    socket, _, die = zone.domain.index.partition("-")
    other_socket, _, other_die = other.domain.index.partition("-")
    return zone.domain.kind == other.domain.kind and socket == other_socket and bool(die and other_die)


def _children(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """Directories whose names fit, in the order of their numbers; none when the folder does not exist."""
    try:
        paths = list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [(match, path) for path in paths if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda item: tuple(map(int, item[0].groups())))]


def _siblings(package: Path) -> list[Path]:
    """The parts of a package where a container shows the zones side by side and not one inside the other."""
    return [path for path in _children(package.parent, SUBZONE) if path.name.startswith(f"{package.name}:")]


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


def _range_uj(folder: Path) -> int | None:
    text = _text(folder / "max_energy_range_uj")
    return int(text) if text else None
