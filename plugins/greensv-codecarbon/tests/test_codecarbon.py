"""The real CodeCarbon beside greensv's own meters, on simulated hardware."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from greensv.energy.meter import Domain, MeterRequest
from greensv.energy.metering.selection import choose_meters
from greensv.errors import MeterError
from greensv.plugins import load_plugins
from greensv.testing.meter_contract import MeterContract
from greensv_codecarbon.meter import CodeCarbonMeter, CodeCarbonSession
from simulated.namespace import run_with_powercap
from simulated.nvml import UUIDS, FakeGpus, build_stub
from simulated.powercap_tree import PowercapTree


class TestCodeCarbonContract(MeterContract):
    @pytest.fixture
    def meter(self) -> CodeCarbonMeter:
        return CodeCarbonMeter()


def test_greensv_finds_the_plugin_by_its_entry_point():
    component = load_plugins().component("meter", "codecarbon")
    assert component.provider.distribution == "greensv-codecarbon"
    assert isinstance(component.instance, CodeCarbonMeter)


def test_it_is_never_charged():
    with pytest.raises(MeterError, match="show them beside with --also-meter codecarbon"):
        choose_meters([CodeCarbonMeter()], ["codecarbon"])


def test_without_codecarbon_it_is_unavailable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    about = CodeCarbonMeter().probe(MeterRequest())
    assert (about.is_available, about.reason) == (False, "codecarbon is not installed")
    with pytest.raises(MeterError, match="codecarbon is not installed; pip install"):
        CodeCarbonMeter().open(MeterRequest())


def test_a_tracker_that_tells_nothing_is_an_error_and_not_0_joules():
    session = CodeCarbonMeter().open(MeterRequest())
    assert [str(sample.domain) for sample in session.read()] == ["cpu", "dram"]
    session.close()
    with pytest.raises(MeterError, match="CodeCarbon told nothing"):
        session.read()


def test_a_reading_leaves_the_programs_own_output_and_logging_alone(monkeypatch: pytest.MonkeyPatch):
    session = CodeCarbonMeter().open(MeterRequest())
    assert isinstance(session, CodeCarbonSession)
    tracker, seen = session._tracker._tracker, []
    flush = tracker.flush

    def spy() -> None:
        seen.append((sys.stdout, logging.root.manager.disable))
        flush()

    monkeypatch.setattr(tracker, "flush", spy)
    session.read()
    session.close()
    assert seen == [(sys.stdout, logging.NOTSET)]


@pytest.mark.parametrize(
    ("visible", "is_counted"),
    [(None, True), ("0", True), ("0,1", True), ("GPU-1111", False), ("", False), ("-1", False)],
)
def test_gpus_are_left_out_where_codecarbon_would_count_0_joules(visible, is_counted, tmp_path, monkeypatch):
    fake_nvidia_smi(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    about = CodeCarbonMeter().probe(MeterRequest(gpu_uuids=("GPU-1",)))
    assert (Domain("gpu") in about.domains) == is_counted
    assert is_counted or "counts 0 J" in about.notes[0]


def fake_nvidia_smi(folder: Path) -> None:
    path = folder / "nvidia-smi"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


BESIDE = """
import json, os, socket, sys, time
from greensv.builtin.meters.nvml import NvmlMeter
from greensv.builtin.meters.rapl import RaplMeter
from greensv.energy.started import start_monitor
from greensv_codecarbon.meter import CodeCarbonMeter
from pathlib import Path
from simulated.powercap_tree import set_counter

def no_network(event, arguments):
    assert event != "socket.connect" or arguments[0].family == socket.AF_UNIX, arguments

sys.addaudithook(no_network)
zone, gpus = Path(sys.argv[1]), sys.argv[2:]
names = ["rapl", "nvml"] if gpus else ["rapl"]
meters = [RaplMeter(), NvmlMeter(), CodeCarbonMeter()]
with start_monitor(meters, names, also=["codecarbon"], gpu_uuids=None if gpus else ()) as monitor:
    with monitor.window("train") as window:
        time.sleep(0.2)
        set_counter(zone, 12_500_000)
        if gpus:
            Path(gpus[0]).write_text("41000\\n")
        time.sleep(0.1)
result = window.result
print(json.dumps({
    "charged": {str(r.domain): [r.meter, r.role, r.energy_j] for r in result.readings},
    "beside": {str(r.domain): [r.meter, r.role, r.energy_j] for r in result.others},
    "energy_j": result.energy_j,
    "files": os.listdir(),
}))
"""


def run_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """Runs `BESIDE` in an empty folder, on a machine whose processor is simulated; it must say nothing else."""
    tree = PowercapTree(tmp_path / "powercap")
    package = tree.add_package(0)
    (tree.root / "intel-rapl" / "subsystem").symlink_to("..")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    done = run_with_powercap(tree.root, [sys.executable, "-c", BESIDE, str(package), *arguments])
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_reads_what_rapl_reads_and_is_recorded_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = run_beside(tmp_path, monkeypatch)
    assert found["charged"] == {"cpu:0": ["rapl", "charged", 12.5]}
    assert found["energy_j"] == 12.5
    assert found["beside"]["cpu"] == ["codecarbon", "beside", pytest.approx(12.5, rel=1e-4)]
    assert found["beside"]["dram"][2] > 0  # its model of the memory
    assert found["files"] == []


def test_it_reads_what_nvml_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(0, energy_mj=1000, power_mw=50_000)
    (tmp_path / "bin").mkdir()
    fake_nvidia_smi(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("FAKE_NVML_DIR", str(gpus.folder))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(build_stub(tmp_path / "library")))
    found = run_beside(tmp_path, monkeypatch, str(gpus.folder / "0" / "energy_mj"))
    assert found["charged"][f"gpu:{UUIDS[0]}"] == ["nvml", "charged", 40.0]
    assert found["beside"]["gpu"] == ["codecarbon", "beside", pytest.approx(40.0, rel=1e-4)]
