from pathlib import Path

import pytest

from greensv.energy.devices.host_state import HostReader
from greensv.errors import MeterError

MEMINFO = "MemTotal:       16000000 kB\nMemFree:  1 kB\nMemAvailable:    4000000 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    write_stat(proc, busy=1_000, idle=9_000)
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "statm").write_text("5000 1000 500 1 0 900 0\n")
    (proc / "cpuinfo").write_text("processor\t: 0\ncpu MHz\t\t: 2000.000\n\nprocessor\t: 1\ncpu MHz\t\t: 3000.500\n")
    return proc


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    sys = tmp_path / "sys"
    sys.mkdir()
    return sys


def write_stat(proc: Path, *, busy: int, idle: int) -> None:
    """Half of the idle time is waiting for disks; guests' time is in user time already."""
    user, system = busy - busy // 4, busy // 4
    waits = idle // 2
    (proc / "stat").write_text(f"cpu  {user} 0 {system} {idle - waits} {waits} 0 0 0 77 0\ncpu0 1 2 3\n")


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def test_utilisation_is_the_share_of_the_time_since_the_read_before(proc: Path, sys: Path):
    reader = HostReader(proc=proc, sys=sys)
    write_stat(proc, busy=1_000 + 300, idle=9_000 + 100)
    assert reader.read()[0].utilisation == pytest.approx(0.75)
    write_stat(proc, busy=1_300 + 10, idle=9_100 + 390)
    assert reader.read()[0].utilisation == pytest.approx(0.025)


def test_no_time_has_no_utilisation(proc: Path, sys: Path):
    assert [state.utilisation for state in HostReader(proc=proc, sys=sys).read()] == [None, None]


def test_idle_time_that_goes_back_is_no_negative_utilisation(proc: Path, sys: Path):
    reader = HostReader(proc=proc, sys=sys)
    write_stat(proc, busy=1_002, idle=8_999)
    assert reader.read()[0].utilisation == 1.0


def test_memory_in_use_is_what_is_not_available(proc: Path, sys: Path):
    cpu, process = HostReader(proc=proc, sys=sys).read()
    assert (cpu.device, process.device) == ("cpu", "process")
    assert cpu.memory_used_bytes == 12_000_000 * 1024
    assert cpu.memory_utilisation == pytest.approx(0.75)
    assert process.memory_used_bytes is not None
    assert process.memory_used_bytes % 1000 == 0, "1000 pages"
    assert process.clock_mhz is None


def test_clocks_are_the_mean_of_cpuinfo_where_there_is_no_cpufreq(proc: Path, sys: Path):
    assert HostReader(proc=proc, sys=sys).read()[0].clock_mhz == pytest.approx(2_500.25)
    (proc / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")  # ARM tells no clock
    assert HostReader(proc=proc, sys=sys).read()[0].clock_mhz is None
    (proc / "cpuinfo").unlink()
    assert HostReader(proc=proc, sys=sys).read()[0].clock_mhz is None


def test_of_a_large_machine_some_clocks_stand_for_all(proc: Path, sys: Path):
    for cpu in range(64):
        put(sys / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", "2400000")
    reader = HostReader(proc=proc, sys=sys)
    assert reader.read()[0].clock_mhz == pytest.approx(2_400.0)
    assert len(reader._clocks) == 8


def test_the_packages_sensor_is_the_temperature(proc: Path, sys: Path):
    put(sys / "class/hwmon/hwmon0/name", "nvme")
    put(sys / "class/hwmon/hwmon0/temp1_input", "90000")
    assert HostReader(proc=proc, sys=sys).read()[0].temperature_c is None
    put(sys / "class/thermal/thermal_zone0/type", "x86_pkg_temp")
    put(sys / "class/thermal/thermal_zone0/temp", "41000")
    assert HostReader(proc=proc, sys=sys).read()[0].temperature_c == 41.0
    for number, temperature in ((1, "55500"), (2, "61000")):
        put(sys / f"class/hwmon/hwmon{number}/name", "coretemp")
        put(sys / f"class/hwmon/hwmon{number}/temp1_input", temperature)
    assert HostReader(proc=proc, sys=sys).read()[0].temperature_c == 61.0, "of two sockets the hotter"


def test_a_machine_without_proc_says_so(tmp_path: Path):
    reader = HostReader(proc=tmp_path / "none", sys=tmp_path / "none")
    with pytest.raises(MeterError, match="cannot be read"):
        reader.read()


@pytest.mark.parametrize(("file", "text"), [("stat", "intr 5\n"), ("meminfo", "MemTotal: 1 kB\n")])
def test_what_is_not_understood_is_an_error_and_no_zero(proc: Path, sys: Path, file: str, text: str):
    reader = HostReader(proc=proc, sys=sys)
    (proc / file).write_text(text)
    with pytest.raises(MeterError):
        reader.read()


def test_this_machine_tells_its_memory():
    if not Path("/proc/stat").exists():
        pytest.skip("no /proc")
    cpu, process = HostReader().read()
    assert cpu.memory_used_bytes is not None
    assert process.memory_used_bytes is not None
    assert 0 < process.memory_used_bytes <= cpu.memory_used_bytes * 2
