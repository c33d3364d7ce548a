"""The real pynvml reads the state of simulated GPUs."""

import pytest

from greensv.builtin.meters.nvml import NvmlMeter
from greensv.energy.devices.device_state import DeviceReader
from greensv.energy.meter import MeterRequest
from greensv.errors import MeterError
from simulated.nvml import UUIDS, FakeGpus

BOTH = MeterRequest(gpu_uuids=UUIDS)
ONE = MeterRequest(gpu_uuids=UUIDS[:1])


def opened(request: MeterRequest) -> DeviceReader:
    reader = NvmlMeter().open_device_reader(request)
    assert reader is not None
    return reader


def test_each_gpu_tells_its_state(gpus: FakeGpus):
    gpus.add(
        0,
        energy_mj=500,
        power_mw=250_500,
        utilisation=87,
        memory_utilisation=45,
        memory_used=12_345_678_901,
        sm_mhz=1980,
        memory_mhz=2619,
        temperature_v_c=64,
    )
    gpus.add(1, energy_mj=500, instant_mw=70_000, power_mw=99_000, utilisation=0, memory_utilisation=0)
    reader = opened(BOTH)
    first, second = reader.read()
    reader.close()
    assert first.device == f"gpu:{UUIDS[0]}"
    assert (first.power_w, first.utilisation, first.memory_utilisation) == (250.5, 0.87, 0.45)
    assert (first.memory_used_bytes, first.clock_mhz, first.memory_clock_mhz) == (12_345_678_901, 1980.0, 2619.0)
    assert first.temperature_c == 64.0
    assert (second.power_w, second.utilisation) == (70.0, 0.0), "a GPU at rest is at 0, and its momentary power is told"


def test_what_a_gpu_does_not_offer_is_none_and_no_zero(gpus: FakeGpus):
    gpus.add(0, energy_mj=500, utilisation=50, memory_utilisation="E3", sm_mhz="E3", memory_used="E4")
    reader = opened(ONE)
    (state,) = reader.read()
    reader.close()
    assert state.device == f"gpu:{UUIDS[0]}"
    values = (state.power_w, state.utilisation, state.memory_utilisation, state.memory_used_bytes, state.clock_mhz)
    assert values == (None,) * 5
    assert (state.memory_clock_mhz, state.temperature_c) == (None, None)


def test_a_driver_from_before_the_newer_call_tells_its_temperature_by_the_older(gpus: FakeGpus):
    gpus.add(0, energy_mj=500, temperature_c=58)
    reader = opened(ONE)
    (state,) = reader.read()
    reader.close()
    assert state.temperature_c == 58.0


def test_a_lost_gpu_is_an_error_that_names_it(gpus: FakeGpus):
    gpus.add(0, energy_mj=500, utilisation=50, memory_utilisation=5)
    reader = opened(ONE)
    gpus.set(0, utilisation="E15")
    with pytest.raises(MeterError, match=r"Simulated GPU 0\) cannot be read \(GPU is lost\)"):
        reader.read()
    reader.close()


def test_without_a_driver_or_a_gpu_in_use_there_is_nothing_to_read(gpus: FakeGpus):
    gpus.add(0, energy_mj=500)
    assert NvmlMeter().open_device_reader(MeterRequest()) is None
    (gpus.folder / "init").write_text("E9\n")
    assert NvmlMeter().open_device_reader(ONE) is None
