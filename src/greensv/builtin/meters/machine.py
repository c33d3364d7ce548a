"""What this process may use of the machine, and what it has used: from /proc and the control groups, Linux only."""

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def process_age_s(proc: Path = PROC) -> float:
    """Returns seconds since this process started. Raises OSError or ValueError without a /proc as Linux has it."""
    started_ticks = int(_stat_fields(proc / "self" / "stat")[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def cpu_time_s(process_ids: Iterable[int] = (), *, proc: Path = PROC) -> float:
    """Returns seconds of CPU time of this process, of its ended children, and of its living descendants.

    So too of the processes `process_ids`, none of which descends from this one or another. A child that ends while
    this is read may be missed once; it is not the next time.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_s = time.process_time() + ended.ru_utime + ended.ru_stime
    stats = list(_descendants(proc / "self", proc))
    for pid in process_ids:
        stats += [proc / str(pid) / "stat", *_descendants(proc / str(pid), proc)]
    ticks = sum(sum(map(int, _stat_fields(stat)[11:15])) for stat in _existing(iter(stats)))
    return own_s + ticks / os.sysconf("SC_CLK_TCK")


def allowed_cpus(proc: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """Returns how many CPUs this process may keep busy: its affinity, or its control groups' quota if that is less."""
    return min(float(len(os.sched_getaffinity(0))), *_limits(proc, cgroups, "cpu", _cpu_quota), float("inf"))


def available_memory_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> float:
    """Returns the memory that is this process's to use.

    The limit of its control groups; without one, the machine's memory times its share of the machine's CPUs. Raises
    OSError or ValueError without a /proc as Linux has it.
    """
    total = _mem_total_bytes(proc / "meminfo")
    limit = min([*_limits(proc, cgroups, "memory", _memory_limit), float("inf")])
    if limit < total:
        return limit
    return total * min(1.0, allowed_cpus(proc, cgroups) / (os.cpu_count() or 1))


def _stat_fields(stat: Path) -> list[str]:
    """Returns the fields behind the command's name, which may hold spaces and parentheses; proc(5)'s field 3 is [0]."""
    return stat.read_text().rpartition(")")[2].split()


def _descendants(process: Path, proc: Path) -> Iterator[Path]:
    """Yields the stat file of each living descendant; of none where the kernel keeps no list of children."""
    for tasks in process.glob("task/*/children"):
        try:
            children = tasks.read_text().split()
        except OSError:
            continue
        for pid in children:
            yield proc / pid / "stat"
            yield from _descendants(proc / pid, proc)


def _existing(stats: Iterator[Path]) -> Iterator[Path]:
    for stat in stats:
        if stat.exists():
            yield stat


def _limits(proc: Path, cgroups: Path, controller: str, read: Callable[[Path], float | None]) -> list[float]:
    """Returns the limits set in this process's control group and in those above it, of cgroup v2 and v1 alike."""
    found = []
    for folder in _cgroup_folders(proc, cgroups, controller):
        limit = read(folder)
        if limit is not None:
            found.append(limit)
    return found


def _cgroup_folders(proc: Path, cgroups: Path, controller: str) -> Iterator[Path]:
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        if controllers and not root.exists():
            root = cgroups / controller
        # In a container the path may be the host's and not exist here; the container's own limits are then at the root.
        folder = root / path.lstrip("/")
        yield folder
        while folder != root and root in folder.parents:
            folder = folder.parent
            yield folder


def _cpu_quota(folder: Path) -> float | None:
    if (text := _text(folder / "cpu.max")) is not None:
        quota, period = text.split()
        return None if quota == "max" else int(quota) / int(period)
    quota_us, period_us = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    if quota_us is None or period_us is None or int(quota_us) <= 0:
        return None
    return int(quota_us) / int(period_us)


def _memory_limit(folder: Path) -> float | None:
    text = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
    return None if text is None or text == "max" else float(text)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _mem_total_bytes(meminfo: Path) -> float:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemTotal:"):
            return float(line.split()[1]) * 1024
    raise ValueError(f"{meminfo} has no MemTotal")
