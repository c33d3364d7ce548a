"""What NVIDIA GPUs are doing, by NVML: utilisation, memory, clocks, temperature and power.

Each value that a GPU or its driver does not offer is None: virtual GPUs, MIG and laptops leave many out. Utilisation is
a mean over the driver's last sampling period, 1/6 to 1 s (NVIDIA's NVML reference, nvmlUtilization_t).
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from greensv.energy.devices.device_state import DeviceReader, DeviceState
from greensv.energy.meter import PowerSample
from greensv.errors import MeterError

if TYPE_CHECKING:
    from greensv.builtin.meters.nvml import Gpu, NvmlSession
    from greensv.builtin.meters.nvml_sources import Source

Value = TypeVar("Value")


class NvmlReader(DeviceReader):
    """The GPUs of an open session, which it closes. `sources` are the ways of reading a GPU's energy or power."""

    def __init__(self, pynvml: Any, session: "NvmlSession", *, sources: Sequence["Source"]) -> None:
        self._pynvml = pynvml
        self._session = session
        self._sources = sources
        self._missing = (
            pynvml.NVMLError_NotSupported,
            pynvml.NVMLError_FunctionNotFound,
            pynvml.NVMLError_NoPermission,
            pynvml.NVMLError_InvalidArgument,
        )

    def read(self) -> Sequence[DeviceState]:
        """Returns the state of each GPU."""
        return [self._state(gpu) for gpu in self._session.gpus]

    def close(self) -> None:
        """Closes the session."""
        self._session.close()

    def _state(self, gpu: "Gpu") -> DeviceState:
        nvml, handle = self._pynvml, gpu.handle
        try:
            rates = self._value(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
            memory = self._value(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
            return DeviceState(
                device=str(gpu.domain),
                power_w=self._power_w(gpu),
                utilisation=None if rates is None else rates.gpu / 100,
                memory_utilisation=None if rates is None else rates.memory / 100,
                memory_used_bytes=None if memory is None else int(memory.used),
                clock_mhz=self._value(lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))),
                memory_clock_mhz=self._value(lambda: float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM))),
                temperature_c=self._temperature_c(handle),
            )
        except nvml.NVMLError as error:
            raise MeterError(f"the state of {gpu.domain} ({gpu.name}) cannot be read ({error})") from error

    def _value(self, read: Callable[[], Value]) -> Value | None:
        with contextlib.suppress(*self._missing):
            return read()
        return None

    def _power_w(self, gpu: "Gpu") -> float | None:
        for source in self._sources:
            sample = self._value(partial(source.read, self._pynvml, gpu.handle, gpu.domain))
            if isinstance(sample, PowerSample):
                return sample.power_w
        return None

    def _temperature_c(self, handle: Any) -> float | None:
        """By the newer call, else by the older one, which CUDA 14 will not have."""
        nvml = self._pynvml
        for name in ("nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature"):
            if (read := getattr(nvml, name, None)) is not None:
                found = self._value(partial(read, handle, nvml.NVML_TEMPERATURE_GPU))
                if found is not None:
                    return float(found)
        return None
