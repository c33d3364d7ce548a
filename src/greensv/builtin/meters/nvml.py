"""The meter `nvml`: the energy of NVIDIA GPUs, by UUID, through the pynvml of nvidia-ml-py.

Facts about the readings: NVIDIA's NVML reference (energy since the driver was loaded, in mJ; power in mW), and Yang et
al., "Part-time Power Measurements: nvidia-smi's Lack of Attention" (arXiv 2312.02741): readings change every 20 to
100 ms and are off by about 5 %, on some boards by up to 13 %.
"""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from greensv.energy.meter import (
    Availability,
    CounterSample,
    Domain,
    Meter,
    MeterRequest,
    MeterSession,
    PowerSample,
    Quality,
    Sample,
)
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl

RESOLUTION_S = 0.1
GAIN_UNCERTAINTY = 0.05
UNIT_J = 1e-3
MILLIWATTS_PER_WATT = 1000
DRIVER_REMEDY = "install the NVIDIA driver, or in a container start it with access to the GPUs (`--gpus`)"


class NvmlMeter(Meter):
    """The GPUs in use: their energy counters (Volta and later), or else their power."""

    name: ClassVar[str] = "nvml"
    quality: ClassVar[Quality] = "measured"

    def probe(self, request: MeterRequest) -> Availability:
        """Asks the driver for each GPU in use and reads it once."""
        try:
            session = _open(request)
        except _UnavailableError as error:
            return error.availability
        session.close()
        return Availability(
            domains=tuple(gpu.domain for gpu in session.gpus),
            resolution_s=RESOLUTION_S,
            gain_uncertainty=GAIN_UNCERTAINTY,
            notes=tuple(f"{gpu.domain} ({gpu.name}): {gpu.source.label}" for gpu in session.gpus),
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Opens NVML and finds how each GPU in use is read."""
        try:
            return _open(request)
        except _UnavailableError as error:
            raise MeterError(
                f"meter 'nvml' is not available: {error.availability.reason}; {error.availability.remedy}"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A way of reading a GPU: in words, and as a function of (pynvml, handle, domain) that returns a sample."""

    label: str
    read: Callable[[Any, Any, Domain], Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU in use, and how it is read."""

    domain: Domain
    name: str
    handle: Any
    source: Source


class NvmlSession(MeterSession):
    """NVML, opened once more than it was before."""

    def __init__(self, pynvml: Any, gpus: Sequence[Gpu]) -> None:
        self.gpus = gpus
        self._pynvml = pynvml

    def read(self) -> Sequence[Sample]:
        """Returns the energy counter of each GPU in millijoules, or its power."""
        return [self._sample(gpu) for gpu in self.gpus]

    def close(self) -> None:
        """Shuts NVML down, unless others in this process have it open too. A lost GPU does not make it fail."""
        try:
            self._pynvml.nvmlShutdown()
        except self._pynvml.NVMLError as error:
            raise MeterError(f"meter 'nvml' could not be closed: {error}") from error

    def _sample(self, gpu: Gpu) -> Sample:
        try:
            return gpu.source.read(self._pynvml, gpu.handle, gpu.domain)
        except self._pynvml.NVMLError as error:
            remedy = "look at the kernel's log (dmesg) for the GPU's Xid"
            raise MeterError(f"meter 'nvml': {gpu.domain} ({gpu.name}) cannot be read ({error}); {remedy}") from error


class _UnavailableError(Exception):
    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.availability = Availability(reason=reason, remedy=remedy)


def _open(request: MeterRequest) -> NvmlSession:
    pynvml = _import()
    with _mapped_errors(pynvml, "the NVIDIA driver does not answer", DRIVER_REMEDY):
        pynvml.nvmlInit()
    try:
        _refuse_no_gpus(pynvml, request)
        return NvmlSession(pynvml, [_gpu(pynvml, uuid) for uuid in request.gpu_uuids])
    except BaseException:
        pynvml.nvmlShutdown()
        raise


def _import() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the abandoned package pynvml warns on import that it is abandoned
            import pynvml
    except ImportError as error:
        raise _UnavailableError(
            f"the package nvidia-ml-py cannot be imported ({error})", "install nvidia-ml-py"
        ) from error
    if not hasattr(pynvml, "NVML_FI_DEV_POWER_INSTANT"):
        remedy = "uninstall the package pynvml and reinstall nvidia-ml-py"
        raise _UnavailableError(f"{pynvml.__file__} is not NVIDIA's binding but an old package that hides it", remedy)
    return pynvml


def _refuse_no_gpus(pynvml: Any, request: MeterRequest) -> None:
    if "gpu" in request.leave_out:
        raise _UnavailableError("other meters measure the GPUs", "leave one of them out")
    if not request.gpu_uuids:
        with _mapped_errors(pynvml, "the NVIDIA driver does not list its GPUs", DRIVER_REMEDY):
            num_gpus = pynvml.nvmlDeviceGetCount()
        raise _UnavailableError(f"no GPU is in use (the driver lists {num_gpus})", "use --device cuda")


def _gpu(pynvml: Any, uuid: str) -> Gpu:
    full_uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    mig_remedy = "use a whole GPU: switch MIG off (`nvidia-smi -mig 0`), or use --device cpu"
    if full_uuid.startswith("MIG-"):
        raise _UnavailableError(f"{full_uuid} is a MIG slice, and NVML measures whole GPUs only", mig_remedy)
    with _mapped_errors(pynvml, f"{full_uuid} is not found", "compare with `nvidia-smi -L`"):
        handle = pynvml.nvmlDeviceGetHandleByUUID(full_uuid)
        name = pynvml.nvmlDeviceGetName(handle)
    if _is_mig_enabled(pynvml, handle):
        raise _UnavailableError(f"{full_uuid} is split by MIG, and NVML measures whole GPUs only", mig_remedy)
    domain = Domain("gpu", full_uuid)
    return Gpu(domain=domain, name=name, handle=handle, source=_source(pynvml, handle, domain))


def _is_mig_enabled(pynvml: Any, handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False  # a GPU or a driver from before MIG
    except pynvml.NVMLError as error:
        raise _UnavailableError(f"the GPU's MIG mode cannot be read ({error})", DRIVER_REMEDY) from error


def _source(pynvml: Any, handle: Any, domain: Domain) -> Source:
    """Returns the best way of reading a GPU. Tried, not inferred from its generation: virtual GPUs have less."""
    refusals = []
    for source in SOURCES:
        try:
            sample = source.read(pynvml, handle, domain)
        except pynvml.NVMLError as error:
            refusals.append(f"{source.label}: {error}")
            continue
        if isinstance(sample, CounterSample) and sample.count == 0:
            refusals.append(f"{source.label}: stands at 0")
            continue
        return source
    raise _UnavailableError(
        f"{domain} reports neither energy nor power ({'; '.join(refusals)})",
        "virtual GPUs often do not: ask the host's owner, or use --device cpu",
    )


@contextmanager
def _mapped_errors(pynvml: Any, reason: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError as error:
        raise _UnavailableError(f"{reason} ({error})", remedy) from error


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
    Source(label="energy counter", read=_energy_counter),
    Source(label="instantaneous power", read=_instant_power),
    Source(label="power", read=_power),
)
"""From the best to the worst."""


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `nvml`."""
    return (NvmlMeter(),)
