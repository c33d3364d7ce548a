"""The ways of reading a GPU's energy through NVML, from the best to the worst."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greensv.energy.meter import CounterSample, Domain, PowerSample, Sample

UNIT_J = 1e-3
MILLIWATTS_PER_WATT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A way of reading a GPU: in words, and as a function of (pynvml, handle, domain) that returns a sample."""

    label: str
    is_power: bool
    read: Callable[[Any, Any, Domain], Sample]


def _energy_counter(pynvml: Any, handle: Any, domain: Domain) -> Sample:
    count = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    return CounterSample(domain=domain, taken_at_s=time.monotonic(), count=count, unit_j=UNIT_J)


def _instant_power(pynvml: Any, handle: Any, domain: Domain) -> Sample:
    """Field 186, scope GPU: on Ampere and later nvmlDeviceGetPowerUsage is an average over the last second."""
    wanted = [(pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_POWER_SCOPE_GPU)]
    value = pynvml.nvmlDeviceGetFieldValues(handle, wanted)[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return PowerSample(domain=domain, taken_at_s=time.monotonic(), power_w=value.value.uiVal / MILLIWATTS_PER_WATT)


def _power(pynvml: Any, handle: Any, domain: Domain) -> Sample:
    power_mw = pynvml.nvmlDeviceGetPowerUsage(handle)
    return PowerSample(domain=domain, taken_at_s=time.monotonic(), power_w=power_mw / MILLIWATTS_PER_WATT)


SOURCES = (
    Source(label="energy counter", is_power=False, read=_energy_counter),
    Source(label="instantaneous power", is_power=True, read=_instant_power),
    Source(label="power", is_power=True, read=_power),
)
"""From the best to the worst."""
