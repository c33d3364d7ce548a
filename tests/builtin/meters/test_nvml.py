import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pynvml
import pytest

from greensv.builtin.meters.nvml import NvmlMeter
from greensv.energy.meter import CounterSample, Domain, MeterRequest, PowerSample
from greensv.errors import MeterError
from greensv.testing.meter_contract import MeterContract
from simulated.nvml import UUIDS, FakeGpus, run_python

ONE = MeterRequest(gpu_uuids=UUIDS[:1])


def unavailable(request: MeterRequest) -> str:
    about = NvmlMeter().probe(request)
    assert not about.is_available
    with pytest.raises(MeterError, match="'nvml' is not available"):
        NvmlMeter().open(request)
    return f"{about.reason}; {about.remedy}"


class TestNvmlContract(MeterContract):
    @pytest.fixture
    def meter(self) -> NvmlMeter:
        return NvmlMeter()

    @pytest.fixture
    def meter_request(self, gpus: FakeGpus) -> MeterRequest:
        gpus.add(0, energy_mj=500)
        gpus.add(1, power_mw=1000)
        self.gpus = gpus
        return MeterRequest(gpu_uuids=UUIDS)

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        self.gpus.set(0, energy_mj="E15", power_mw="E15", instant_mw="E15")
        yield
        self.gpus.set(0, energy_mj=500)

    def test_construction_needs_no_hardware(self, meter, meter_request) -> None:
        super().test_construction_needs_no_hardware(meter)


def test_the_gpus_in_use_are_read_by_uuid_and_no_other(gpus):
    gpus.add(0, energy_mj=111)
    gpus.add(1, energy_mj=222)
    session = NvmlMeter().open(MeterRequest(gpu_uuids=UUIDS[1:]))
    (sample,) = session.read()
    session.close()
    assert isinstance(sample, CounterSample)
    assert (str(sample.domain), sample.count, sample.unit_j, sample.range_count) == (f"gpu:{UUIDS[1]}", 222, 1e-3, None)


def test_a_uuid_without_its_prefix_is_completed(gpus):
    gpus.add(0, energy_mj=111)
    about = NvmlMeter().probe(MeterRequest(gpu_uuids=(UUIDS[0].removeprefix("GPU-"),)))
    assert [domain.index for domain in about.domains] == [UUIDS[0]]


@pytest.mark.parametrize(
    ("state", "label"),
    [
        ({"instant_mw": 250_500, "power_mw": 1}, "instantaneous power"),
        ({"power_mw": 250_500}, "power"),
        ({"energy_mj": 0, "power_mw": 250_500}, "power"),  # a counter that stands still
        ({"energy_mj": "E3", "instant_mw": "E3", "power_mw": 250_500}, "power"),
    ],
)
def test_a_gpu_without_an_energy_counter_is_read_by_its_power(gpus, state, label):
    gpus.add(0, **state)
    assert NvmlMeter().probe(ONE).notes == (f"gpu:{UUIDS[0]} (Simulated GPU 0): {label}",)
    session = NvmlMeter().open(ONE)
    (sample,) = session.read()
    session.close()
    assert isinstance(sample, PowerSample)
    assert sample.power_w == 250.5


def test_a_gpu_that_reports_nothing_is_unavailable(gpus):
    gpus.add(0)
    assert "reports neither energy nor power (energy counter: Not Supported" in unavailable(ONE)


def test_a_lost_gpu_is_an_error_that_names_it(gpus):
    gpus.add(0, energy_mj=5)
    session = NvmlMeter().open(ONE)
    gpus.set(0, energy_mj="E15")
    with pytest.raises(MeterError, match=r"Simulated GPU 0\) cannot be read \(GPU is lost\).*dmesg"):
        session.read()
    session.close()


def test_a_gpu_that_is_lost_before_it_is_opened_is_unavailable(gpus):
    gpus.add(0, energy_mj="E15", instant_mw="E15", power_mw="E15")
    assert f"{UUIDS[0]} is lost (GPU is lost); look at the kernel's log" in unavailable(ONE)
    gpus.set(0, handle="E15")
    assert f"{UUIDS[0]} is lost (GPU is lost); look at the kernel's log" in unavailable(ONE)


def test_of_two_gpus_one_that_is_lost_stops_both_and_is_named(gpus):
    gpus.add(0, energy_mj=5)
    gpus.add(1, energy_mj=6)
    session = NvmlMeter().open(MeterRequest(gpu_uuids=UUIDS))
    gpus.set(1, energy_mj="E15")
    with pytest.raises(MeterError, match=f"gpu:{UUIDS[1]}"):
        session.read()
    gpus.set(1, energy_mj=7)
    assert [sample.count for sample in session.read()] == [5, 7]
    session.close()


@pytest.mark.parametrize(
    ("states", "poll_interval_s"),
    [([{"energy_mj": 5}, {"energy_mj": 6}], None), ([{"energy_mj": 5}, {"instant_mw": 6}], 0.05)],
)
def test_power_is_read_as_often_as_it_changes_and_a_counter_as_the_monitor_likes(gpus, states, poll_interval_s):
    for number, state in enumerate(states):
        gpus.add(number, **state)
    assert NvmlMeter().probe(MeterRequest(gpu_uuids=UUIDS)).poll_interval_s == poll_interval_s


def test_an_unknown_uuid_is_unavailable(gpus):
    gpus.add(0, energy_mj=5)
    assert f"{UUIDS[1]} is not found" in unavailable(MeterRequest(gpu_uuids=UUIDS[1:]))


def test_mig_is_refused(gpus):
    gpus.add(0, energy_mj=5, mig=1)
    assert "is split by MIG" in unavailable(ONE)
    assert "is a MIG slice" in unavailable(MeterRequest(gpu_uuids=("MIG-1234",)))


def test_a_mig_mode_that_cannot_be_read_is_a_reason(gpus):
    gpus.add(0, energy_mj=5, mig="E999")
    assert "MIG mode cannot be read (Unknown Error)" in unavailable(ONE)


def test_a_whole_gpu_that_could_do_mig_is_measured(gpus):
    gpus.add(0, energy_mj=5, mig=0)
    assert NvmlMeter().probe(ONE).is_available


def test_no_gpu_in_use_says_how_many_there_are(gpus):
    gpus.add(0, energy_mj=5)
    gpus.add(1, energy_mj=5)
    assert "no GPU is in use (the driver lists 2)" in unavailable(MeterRequest())


def test_a_driver_that_does_not_answer_is_unavailable(gpus):
    (gpus.folder / "init").write_text("E9\n")
    assert "the NVIDIA driver does not answer (Driver Not Loaded); install" in unavailable(ONE)


def test_a_machine_without_the_library_is_unavailable(gpus, monkeypatch):
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(pynvml, "CDLL", no_library)
    assert "NVML Shared Library Not Found" in unavailable(ONE)


def test_an_old_package_that_hides_nvidias_binding_is_named(gpus, monkeypatch):
    monkeypatch.delattr(pynvml, "NVML_FI_DEV_POWER_INSTANT")
    assert "uninstall the package pynvml" in unavailable(ONE)


@pytest.mark.parametrize("problem", ["binding", "driver"])
def test_a_gpu_that_is_there_and_cannot_be_asked_is_told_as_unmeasured(gpus, problem, tmp_path, monkeypatch):
    if problem == "binding":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    else:
        (gpus.folder / "init").write_text("E9\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    request = MeterRequest(uses_visible_gpus=True)
    assert NvmlMeter().probe(request).unmeasured == ()
    monkeypatch.setattr("greensv.builtin.meters.visible_gpus.DRIVER_FOLDER", gpus.folder)
    monkeypatch.setattr("greensv.builtin.meters.visible_gpus.CONTROL_FILE", gpus.folder)
    gpus.add(0, energy_mj=5)
    assert NvmlMeter().probe(request).unmeasured == (Domain("gpu"),)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert NvmlMeter().probe(request).unmeasured == ()


def test_a_missing_binding_is_a_reason(gpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "install nvidia-ml-py" in unavailable(ONE)


MEASURE = """
import json, sys
from pathlib import Path
from greensv.builtin.meters.nvml import NvmlMeter
from greensv.energy.monitoring import Monitor
from greensv.energy.metering.selection import choose_meters, open_meters

state = Path(sys.argv[1])
choices = choose_meters([NvmlMeter()], ["nvml"], gpu_uuids=sys.argv[2:])
with Monitor(open_meters(choices)) as monitor:
    with monitor.window("training") as window:
        (state / "0" / "energy_mj").write_text("1512300")
        (state / "1" / "energy_mj").write_text("20500")
print(json.dumps({str(reading.domain): reading.energy_j for reading in window.result.readings}))
"""


def test_the_real_library_lookup_measures_two_gpus(library, tmp_path):
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(0, energy_mj=1_500_000)
    gpus.add(1, energy_mj=20_000)
    done = run_python(MEASURE, library=library, gpus=gpus, arguments=(str(gpus.folder), *UUIDS))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {f"gpu:{UUIDS[0]}": pytest.approx(12.3), f"gpu:{UUIDS[1]}": pytest.approx(0.5)}
