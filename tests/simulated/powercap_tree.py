"""Writes a powercap tree as Linux shows it, for readers that keep its files open: in place, in fixed width."""

import os
from pathlib import Path

PACKAGE_RANGE_UJ = 262_143_328_850
DRAM_RANGE_UJ = 65_712_999_613


class PowercapTree:
    """A tree under `root`; zones are added one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "intel-rapl").mkdir(parents=True)

    def add_package(self, number: int, name: str | None = None, *, range_uj: int | None = PACKAGE_RANGE_UJ) -> Path:
        """Adds intel-rapl:<number>, nested under intel-rapl and linked side by side, and returns its folder."""
        folder = self._add(self.root / "intel-rapl" / f"intel-rapl:{number}", name or f"package-{number}", range_uj)
        (self.root / folder.name).symlink_to(folder.relative_to(self.root))
        return folder

    def add_part(self, package: Path, number: int, name: str = "dram", *, range_uj: int | None = DRAM_RANGE_UJ) -> Path:
        """Adds a zone inside a package, and returns its folder."""
        folder = self._add(package / f"{package.name}:{number}", name, range_uj)
        (self.root / folder.name).symlink_to(folder.relative_to(self.root))
        return folder

    def remove_links(self) -> None:
        """Leaves the nested zones only, as where a container has the host's /sys/devices/virtual/powercap mounted."""
        for path in self.root.iterdir():
            if path.is_symlink():
                path.unlink()

    def _add(self, folder: Path, name: str, range_uj: int | None) -> Path:
        folder.mkdir()
        (folder / "name").write_text(f"{name}\n")
        if range_uj is not None:
            (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        (folder / "energy_uj").write_text(f"{0:012d}\n")
        return folder


def set_counter(zone: Path, count_uj: int) -> None:
    """Sets a zone's counter."""
    file = os.open(zone / "energy_uj", os.O_WRONLY)
    try:
        os.pwrite(file, f"{count_uj:012d}\n".encode(), 0)
    finally:
        os.close(file)
