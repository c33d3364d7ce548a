"""Reads the state of this machine's CPUs and memory, and this process's share of them: from /proc and /sys, Linux only.

In a container these are the machine's, not the container's.
"""

import contextlib
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from greensv.energy.devices.device_state import DeviceReader, DeviceState
from greensv.errors import MeterError

PROC = Path("/proc")
SYS = Path("/sys")
MAX_CLOCKS = 8
"""Clocks of so many CPUs are read: each takes some µs and wakes its CPU, and a machine may have hundreds."""
CPUINFO_BYTES = 16_384
"""The kernel writes /proc/cpuinfo as it is read: of so much of it, about as many CPUs are asked."""
CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
"""Drivers in /sys/class/hwmon whose first temperature is the CPU package's."""
CPU_ZONES = ("x86_pkg_temp", "cpu-thermal", "cpu_thermal")

_IDLE_FIELDS = (3, 4)
"""Of the numbers of a `cpu` line in /proc/stat (proc(5)): idle and iowait."""
_NUM_FIELDS = 8
"""Those behind steal are guests', and counted in user time, too."""
_KIB = 1024


class HostReader(DeviceReader):
    """The machine as `cpu`, and what this process and its children use of it as `process`.

    Utilisations are means since the read before, so that the first one has none.
    """

    def __init__(self, *, proc: Path = PROC, sys: Path = SYS) -> None:
        """Looks for what can be read. Nothing has to be there."""
        self._proc = proc
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._clocks = _clock_files(sys)
        self._temperatures = _temperature_files(sys)
        self._before: tuple[int, int, float] | None = None
        with contextlib.suppress(MeterError):
            self._utilisations()  # so that the first read covers the time since now

    def read(self) -> Sequence[DeviceState]:
        """Returns the machine's and this process's state.

        Raises:
            MeterError: there is no /proc as Linux has it.
        """
        total, own = self._utilisations()
        used_bytes, memory_bytes = self._memory()
        own_bytes = self._own_memory_bytes()
        return (
            DeviceState(
                device="cpu",
                utilisation=total,
                memory_utilisation=used_bytes / memory_bytes,
                memory_used_bytes=used_bytes,
                clock_mhz=self._clock_mhz(),
                temperature_c=self._temperature_c(),
            ),
            DeviceState(
                device="process",
                utilisation=own,
                memory_utilisation=own_bytes / memory_bytes,
                memory_used_bytes=own_bytes,
            ),
        )

    def _utilisations(self) -> tuple[float | None, float | None]:
        """Returns the shares of all CPUs' time that were in use, by anyone and by this process, since the last call."""
        busy, total = self._cpu_ticks()
        own_s = _own_cpu_s()
        before, self._before = self._before, (busy, total, own_s)
        if before is None or total <= before[1]:
            return None, None
        elapsed = total - before[1]
        own = (own_s - before[2]) * self._ticks_per_s / elapsed
        # Idle time may go back by a little (proc(5)), and the two clocks differ by a tick.
        return min(1.0, max(0.0, (busy - before[0]) / elapsed)), min(1.0, max(0.0, own))

    def _cpu_ticks(self) -> tuple[int, int]:
        line = self._text("stat").partition("\n")[0].split()
        if len(line) < _NUM_FIELDS + 1 or line[0] != "cpu":
            raise MeterError(f"{self._proc / 'stat'} does not begin with the CPUs' times, found {' '.join(line)!r}")
        ticks = [int(field) for field in line[1 : _NUM_FIELDS + 1]]
        total = sum(ticks)
        return total - sum(ticks[index] for index in _IDLE_FIELDS), total

    def _memory(self) -> tuple[int, int]:
        found = {}
        for line in self._text("meminfo").splitlines():
            name, _, value = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                found[name] = int(value.split()[0]) * _KIB
        try:
            return found["MemTotal"] - found["MemAvailable"], found["MemTotal"]
        except KeyError as error:
            raise MeterError(f"{self._proc / 'meminfo'} has no {error.args[0]}") from error

    def _own_memory_bytes(self) -> int:
        return int(self._text("self/statm").split()[1]) * self._page_bytes

    def _clock_mhz(self) -> float | None:
        if self._clocks:
            read_khz = [value for value in map(_number, self._clocks) if value is not None]
            return fmean(read_khz) / 1e3 if read_khz else None
        try:
            with (self._proc / "cpuinfo").open("rb", buffering=0) as file:
                text = file.read(CPUINFO_BYTES).decode(errors="replace")
        except OSError:
            return None
        found = [line.partition(":")[2] for line in text.split("\n")[:-1] if line.startswith("cpu MHz")]
        return fmean(map(float, found)) if found else None

    def _temperature_c(self) -> float | None:
        found = [value for value in map(_number, self._temperatures) if value is not None]
        return max(found) / 1e3 if found else None

    def _text(self, name: str) -> str:
        try:
            return (self._proc / name).read_text()
        except OSError as error:
            raise MeterError(f"the state of this machine cannot be read: {error}") from error


def _own_cpu_s() -> float:
    """Returns seconds of CPU time of this process and of its children that have ended."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _clock_files(sys: Path) -> tuple[Path, ...]:
    files = sorted(sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    return tuple(files[:: max(1, -(-len(files) // MAX_CLOCKS))])


def _temperature_files(sys: Path) -> tuple[Path, ...]:
    sensors = tuple(_named(sys.glob("class/hwmon/hwmon*/name"), CPU_SENSORS, value="temp1_input"))
    return sensors or tuple(_named(sys.glob("class/thermal/thermal_zone*/type"), CPU_ZONES, value="temp"))


def _named(names: Iterator[Path], wanted: Sequence[str], *, value: str) -> Iterator[Path]:
    for name in sorted(names):
        with contextlib.suppress(OSError):
            if name.read_text().strip() in wanted and (name.parent / value).exists():
                yield name.parent / value


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None
