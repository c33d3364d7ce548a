"""The real Zeus beside greensv's own meters, on simulated hardware."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from greensv.energy.meter import Domain, MeterRequest
from greensv.energy.metering.selection import choose_meters
from greensv.errors import MeterError
from greensv.plugins import load_plugins
from greensv.testing.meter_contract import MeterContract
from greensv_zeus.meter import ZeusMeter, ZeusSession
from simulated.namespace import run_with_powercap
from simulated.nvml import UUIDS, FakeGpus, build_stub
from simulated.powercap_tree import PowercapTree


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PowercapTree]:
    """A processor that the real Zeus reads in this process, and forgets afterwards."""
    from zeus.device import cpu
    from zeus.device.cpu import rapl

    tree = PowercapTree(tmp_path / "powercap")
    monkeypatch.setattr(rapl, "RAPL_DIR", str(tree.root / "intel-rapl"))
    monkeypatch.setattr(cpu, "_cpus", None)
    rapl.rapl_is_available.cache_clear()
    yield tree
    rapl.rapl_is_available.cache_clear()


class TestZeusContract(MeterContract):
    @pytest.fixture
    def meter(self) -> ZeusMeter:
        return ZeusMeter()

    @pytest.fixture(autouse=True)
    def _zones(self, tree: PowercapTree) -> None:
        self.package = tree.add_package(0)
        tree.add_part(self.package, 0)

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        from zeus.device import cpu

        text, known = (self.package / "energy_uj").read_text(), cpu._cpus
        (self.package / "energy_uj").unlink()
        cpu._cpus = None
        yield
        (self.package / "energy_uj").write_text(text)
        cpu._cpus = known


def test_greensv_finds_the_plugin_by_its_entry_point():
    component = load_plugins().component("meter", "zeus")
    assert component.provider.distribution == "greensv-zeus"
    assert isinstance(component.instance, ZeusMeter)


def test_it_is_never_charged():
    with pytest.raises(MeterError, match="show them beside with --also-meter zeus"):
        choose_meters([ZeusMeter()], ["zeus"])


def test_without_zeus_it_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    about = ZeusMeter().probe(MeterRequest())
    assert (about.is_available, about.reason) == (False, "zeus is not installed")
    with pytest.raises(MeterError, match="zeus is not installed; pip install"):
        ZeusMeter().open(MeterRequest())


def test_a_machine_without_rapl_is_told_in_zeus_words(tree: PowercapTree, monkeypatch: pytest.MonkeyPatch):
    from zeus.device.cpu import rapl

    monkeypatch.setattr(rapl, "RAPL_DIR", "/nonexistent")
    about = ZeusMeter().probe(MeterRequest())
    assert not about.is_available
    assert "no CPU: ZeusCPUInitError: RAPL unvailable" in str(about.reason)
    assert "no GPU: none is in use" in str(about.reason)


def test_memory_is_told_where_there_is_a_zone_for_it(tree: PowercapTree):
    tree.add_package(0)
    assert ZeusMeter().probe(MeterRequest()).domains == (Domain("cpu"),)


def test_a_reading_leaves_the_programs_own_output_and_logging_alone(
    tree: PowercapTree, monkeypatch: pytest.MonkeyPatch
):
    tree.add_package(0)
    session = ZeusMeter().open(MeterRequest())
    assert isinstance(session, ZeusSession)
    cpus, seen = session._found.cpus, []
    get = cpus.get_total_energy_consumption

    def spy(index: int) -> object:
        seen.append((sys.stdout, logging.root.manager.disable))
        return get(index)

    monkeypatch.setattr(cpus, "get_total_energy_consumption", spy)
    session.read()
    session.close()
    assert seen == [(sys.stdout, logging.NOTSET)]
    assert not logging.getLogger("zeus.device").isEnabledFor(logging.ERROR)


BESIDE = """
import json, sys, time
from pathlib import Path
from greensv.builtin.meters.nvml import NvmlMeter
from greensv.builtin.meters.rapl import RaplMeter
from greensv.energy.started import start_monitor
from greensv_zeus.meter import ZeusMeter
from simulated.powercap_tree import set_counter

package, dram, gpu = map(Path, sys.argv[1:])
meters = [RaplMeter(), NvmlMeter(), ZeusMeter()]
with start_monitor(meters, ["rapl", "nvml"], also=["zeus"]) as monitor, monitor.window("train") as window:
    time.sleep(0.1)
    set_counter(package, 12_500_000)
    set_counter(dram, 3_250_000)
    gpu.write_text("41000\\n")
result = window.result
print(json.dumps({
    "charged": {str(r.domain): r.energy_j for r in result.readings},
    "beside": {str(r.domain): [r.meter, r.role, round(r.energy_j, 6)] for r in result.others},
    "energy_j": result.energy_j,
}))
"""


def run_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str) -> dict[str, Any]:
    tree = PowercapTree(tmp_path / "powercap")
    package = tree.add_package(0)
    dram = tree.add_part(package, 0)
    gpus = FakeGpus(tmp_path / "gpus")
    for number in (0, 1):
        gpus.add(number, energy_mj=1000, power_mw=50_000)
        gpus.set(number, name="Simulated GPU")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("FAKE_NVML_DIR", str(gpus.folder))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_stub(tmp_path / "library")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    files = (package, dram, gpus.folder / "0" / "energy_mj")
    done = run_with_powercap(tree.root, [sys.executable, "-c", BESIDE, *map(str, files)])
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_reads_what_rapl_and_nvml_read_and_is_recorded_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = run_beside(tmp_path, monkeypatch, "0")
    assert found["charged"] == {f"gpu:{UUIDS[0]}": 40.0, "cpu:0": 12.5, "dram:0": 3.25}
    assert found["energy_j"] == 55.75
    assert found["beside"] == {
        "cpu": ["zeus", "beside", 12.5],
        "dram": ["zeus", "beside", 3.25],
        "gpu": ["zeus", "beside", 40.0],
    }


def test_gpus_that_zeus_cannot_take_by_uuid_are_left_out_and_not_0_joules(tmp_path, monkeypatch):
    found = run_beside(tmp_path, monkeypatch, UUIDS[0])
    assert found["charged"][f"gpu:{UUIDS[0]}"] == 40.0
    assert set(found["beside"]) == {"cpu", "dram"}


def test_importing_the_plugin_loads_no_zeus():
    code = "import greensv_zeus, sys; print([name for name in ('zeus', 'torch', 'pynvml') if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "[]\n", done.stderr
