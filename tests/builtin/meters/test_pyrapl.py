import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from greensv.builtin.meters import powercap, pyrapl
from greensv.builtin.meters.pyrapl import PyRaplMeter
from greensv.energy.meter import MeterRequest
from greensv.errors import MeterError
from greensv.testing.meter_contract import MeterContract
from simulated.namespace import run_with_powercap, socket_ids
from simulated.powercap_tree import PACKAGE_RANGE_UJ, PowercapTree, set_counter


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PowercapTree:
    """A powercap tree, and a machine with one socket, that the real pyRAPL reads in this process."""
    with pyrapl._quiet():
        from pyRAPL import device_api

    root = tmp_path / "sys"
    tree = PowercapTree(root / "class" / "powercap")
    topology = root / "devices" / "system" / "cpu"
    (topology / "cpu0" / "topology").mkdir(parents=True)
    (topology / "present").write_text("0\n")
    (topology / "cpu0" / "topology" / "physical_package_id").write_text("0\n")

    def there(path: str) -> str:
        return path.replace("/sys", str(root), 1)

    def open_there(path: str, *arguments: str):
        return Path(there(path)).open(*arguments)

    def exists_there(path: str) -> bool:
        return Path(there(path)).exists()

    monkeypatch.setattr(device_api, "open", open_there, raising=False)
    monkeypatch.setattr(device_api, "os", SimpleNamespace(path=SimpleNamespace(exists=exists_there)))
    monkeypatch.setattr(powercap, "DEFAULT_ROOT", str(tree.root))
    return tree


def reason() -> str:
    about = PyRaplMeter().probe(MeterRequest())
    assert not about.is_available
    assert about.remedy
    return str(about.reason)


class TestPyRaplContract(MeterContract):
    @pytest.fixture
    def meter(self) -> PyRaplMeter:
        return PyRaplMeter()

    @pytest.fixture(autouse=True)
    def _zone(self, tree: PowercapTree) -> None:
        self.package = tree.add_package(0)
        tree.add_part(self.package, 0)

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        (self.package / "energy_uj").write_text("")
        yield
        set_counter(self.package, 1)


def test_counters_come_with_the_ranges_that_pyrapl_does_not_read(tree):
    package = tree.add_package(0)
    dram = tree.add_part(package, 0)
    set_counter(package, 12)
    set_counter(dram, 34)
    session = PyRaplMeter().open(MeterRequest())
    samples = session.read()
    session.close()
    assert [(str(s.domain), s.count, s.unit_j, s.range_count) for s in samples] == [
        ("cpu:0", 12, 1e-6, PACKAGE_RANGE_UJ),
        ("dram:0", 34, 1e-6, 65_712_999_613),
    ]


def test_a_machine_without_memory_zones_is_measured_without_memory(tree):
    tree.add_package(0)
    assert [str(domain) for domain in PyRaplMeter().probe(MeterRequest()).domains] == ["cpu:0"]


def test_a_machine_without_zones_is_unavailable(tree):
    assert reason() == f"no RAPL zones under {tree.root}"
    with pytest.raises(MeterError, match=r"no RAPL zones.*in a container use the meter `rapl`") as caught:
        PyRaplMeter().open(MeterRequest())
    assert "energy.options" not in str(caught.value), "it reads the usual place only"


def test_zones_of_several_dies_are_more_than_pyrapl_understands(tree):
    for die in (0, 1):
        set_counter(tree.add_package(die, f"package-0-die-{die}"), die * 10**9)
    assert "PyRAPLCantRecordEnergyConsumption" in reason()


def test_a_zone_that_pyrapl_cannot_read_is_a_reason_and_no_traceback(tree):
    package = tree.add_package(0)
    (package / "name").write_text("package-0")  # without the newline that pyRAPL cuts off
    assert "ValueError" in reason()


def test_permission_is_mapped_to_what_to_do(tree, monkeypatch):
    package = tree.add_package(0)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(package / "energy_uj"))

    with pyrapl._quiet():
        from pyRAPL import device_api
    monkeypatch.setattr(device_api, "open", refuse)
    assert "chmod a+r" in reason()


def test_a_package_that_cannot_be_imported_is_a_reason(tree, monkeypatch):
    tree.add_package(0)
    monkeypatch.setitem(sys.modules, "pyRAPL", None)
    assert "cannot be imported" in reason()


def test_importing_pyrapl_neither_warns_nor_touches_the_root_logger():
    code = """
import logging, sys
from greensv.builtin.meters.pyrapl import PyRaplMeter, _quiet
with _quiet():
    import pyRAPL
assert not logging.getLogger().handlers, logging.getLogger().handlers
assert logging.getLogger().isEnabledFor(logging.WARNING)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_silence_ends_with_the_import():
    disabled = logging.root.manager.disable
    with pytest.raises(RuntimeError), pyrapl._quiet():
        raise RuntimeError
    assert logging.root.manager.disable == disabled


WRAP_BOTH = """
import json, sys, time
from pathlib import Path
from simulated.powercap_tree import PACKAGE_RANGE_UJ, set_counter
from greensv.builtin.meters.pyrapl import PyRaplMeter
from greensv.builtin.meters.rapl import RaplMeter
from greensv.energy.monitoring import Monitor
from greensv.energy.metering.selection import choose_meters, open_meters

zone = Path(sys.argv[1])
set_counter(zone, PACKAGE_RANGE_UJ - 1_000_000)
meters = [PyRaplMeter(), RaplMeter()]
monitors = [Monitor(open_meters(choose_meters(meters, [meter.name]))) for meter in meters]
for monitor in monitors:
    monitor.start()
for count in (PACKAGE_RANGE_UJ - 400_000, 250_000, 750_000):
    time.sleep(0.02)  # 1 kW at the most: 0.65 J need 0.65 ms
    set_counter(zone, count)
    for monitor in monitors:
        monitor.poll()
for monitor in monitors:
    readings = monitor.totals(fresh=True)
    print(json.dumps({str(reading.domain): reading.energy_j for reading in readings}))
    monitor.stop()
"""


def test_the_real_pyrapl_and_rapl_agree_across_a_wrap(tmp_path):
    tree = PowercapTree(tmp_path / "powercap")
    zones = [tree.add_package(number, f"package-{socket}") for number, socket in enumerate(socket_ids())]
    tests = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(tests)!r})\n{WRAP_BOTH}"
    done = run_with_powercap(tree.root, [sys.executable, "-W", "error", "-c", code, str(zones[0])])
    assert done.returncode == 0, done.stderr
    by_pyrapl, by_rapl = map(json.loads, done.stdout.splitlines())
    assert by_pyrapl == by_rapl
    assert sum(by_rapl.values()) == pytest.approx(1.75)  # 0.6 J, 0.4 + 0.25 J across the wrap, 0.5 J
