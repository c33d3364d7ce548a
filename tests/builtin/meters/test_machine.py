import os
from pathlib import Path

import pytest

from greensv.builtin.meters.machine import allowed_cpus, available_memory_bytes

TOTAL_BYTES = 64 * 1024**3


class Machine:
    """A /proc and a /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.cgroups = folder / "proc", folder / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.cgroups.mkdir()
        (self.proc / "meminfo").write_text(f"MemTotal:       {TOTAL_BYTES // 1024} kB\nMemFree: 1 kB\n")
        self.groups("0::/")

    def groups(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def write(self, path: str, text: str) -> None:
        file = self.cgroups / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def cpus(self) -> float:
        return allowed_cpus(self.proc, self.cgroups)

    def memory_bytes(self) -> float:
        return available_memory_bytes(self.proc, self.cgroups)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    return Machine(tmp_path)


def test_without_limits_the_affinity_tells_the_cpus_and_their_share_the_memory(machine):
    assert machine.cpus() == 8
    assert machine.memory_bytes() == TOTAL_BYTES / 4


def test_a_quota_of_cgroup_v2_limits_the_cpus(machine):
    machine.write("cpu.max", "250000 100000")
    assert machine.cpus() == 2.5
    machine.write("cpu.max", "max 100000")
    assert machine.cpus() == 8


def test_the_tightest_group_above_the_process_counts(machine):
    machine.groups("0::/user/job")
    machine.write("user/job/cpu.max", "600000 100000")
    machine.write("user/cpu.max", "300000 100000")
    machine.write("user/job/memory.max", "max")
    machine.write("user/memory.max", str(3 * 1024**3))
    assert machine.cpus() == 3
    assert machine.memory_bytes() == 3 * 1024**3


def test_limits_of_cgroup_v1_are_read(machine):
    machine.groups("4:memory:/job", "2:cpu,cpuacct:/job", "1:name=systemd:/", "0::/")
    machine.write("cpu,cpuacct/job/cpu.cfs_quota_us", "150000")
    machine.write("cpu,cpuacct/job/cpu.cfs_period_us", "100000")
    machine.write("memory/job/memory.limit_in_bytes", str(2 * 1024**3))
    machine.write("memory/memory.limit_in_bytes", str(2**63 - 4096))
    assert machine.cpus() == 1.5
    assert machine.memory_bytes() == 2 * 1024**3


def test_controllers_that_share_a_mount_are_found_under_one_name(machine):
    machine.groups("2:cpuacct,cpu:/")
    machine.write("cpu/cpu.cfs_quota_us", "50000")
    machine.write("cpu/cpu.cfs_period_us", "100000")
    assert machine.cpus() == 0.5


def test_no_quota_in_cgroup_v1_is_minus_one(machine):
    machine.groups("2:cpu:/")
    machine.write("cpu/cpu.cfs_quota_us", "-1")
    machine.write("cpu/cpu.cfs_period_us", "100000")
    assert machine.cpus() == 8


def test_a_group_path_of_the_host_falls_back_to_the_containers_root(machine):
    machine.groups("0::/kubepods/pod-1")
    machine.write("memory.max", str(1024**3))
    assert machine.memory_bytes() == 1024**3


def test_no_control_groups_at_all_are_no_limit(machine):
    (machine.proc / "self" / "cgroup").unlink()
    assert machine.cpus() == 8


def test_a_proc_without_a_total_is_an_error(machine):
    (machine.proc / "meminfo").write_text("MemFree: 1 kB\n")
    with pytest.raises(ValueError, match="no MemTotal"):
        machine.memory_bytes()
