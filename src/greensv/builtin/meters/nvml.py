"""The meter `nvml`: the energy of NVIDIA GPUs, by UUID, through the pynvml of nvidia-ml-py.

Facts about the readings: NVIDIA's NVML reference (energy since the driver was loaded, in mJ; power in mW), and Yang et
al., "Part-time Power Measurements: nvidia-smi's Lack of Attention" (arXiv 2312.02741): readings change every 20 to
100 ms and are off by about 5 %, on some boards by up to 13 %.
"""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from greensv.builtin.meters.nvml_sources import SOURCES, Source
from greensv.builtin.meters.visible_gpus import (
    LOST_REMEDY,
    VARIABLE,
    CannotTellError,
    ListedGpu,
    gpus_are_visible,
    visible_gpus,
)
from greensv.energy.devices.device_state import DeviceReader
from greensv.energy.meter import (
    Availability,
    CounterSample,
    Domain,
    Meter,
    MeterRequest,
    MeterSession,
    Quality,
    Sample,
)
from greensv.errors import MeterError
from greensv.hookspecs import hookimpl

RESOLUTION_S = 0.1
POLL_INTERVAL_S = 0.05
"""Power is read twice as often as it changes: between readings that are rarer, a burst would be lost."""
GAIN_UNCERTAINTY = 0.05
DRIVER_REMEDY = "install the NVIDIA driver, or in a container start it with access to the GPUs (`--gpus`)"
MIG_REMEDY = "use a whole GPU: switch MIG off (`nvidia-smi -mig 0`), or use --device cpu"


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
            poll_interval_s=POLL_INTERVAL_S if any(gpu.source.is_power for gpu in session.gpus) else None,
            notes=(
                *(f"{gpu.domain} ({gpu.name}): {gpu.source.label}" for gpu in session.gpus),
                *([session.remark] if session.remark else []),
            ),
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Opens NVML and finds how each GPU in use is read."""
        try:
            return _open(request)
        except _UnavailableError as error:
            raise MeterError(
                f"meter 'nvml' is not available: {error.availability.reason}; {error.availability.remedy}"
            ) from error

    def open_device_reader(self, request: MeterRequest) -> DeviceReader | None:
        """Opens NVML once more, for the telemetry; None where there is no driver or no GPU is in use."""
        from greensv.builtin.meters.nvml_state import NvmlReader

        try:
            session = _open(request)
        except _UnavailableError:
            return None
        return NvmlReader(_import(), session, sources=SOURCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU in use, and how it is read."""

    domain: Domain
    name: str
    handle: Any
    source: Source


class NvmlSession(MeterSession):
    """NVML, opened once more than it was before."""

    def __init__(self, pynvml: Any, gpus: Sequence[Gpu], *, remark: str | None = None) -> None:
        self.gpus = gpus
        self.remark = remark
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
            raise MeterError(
                f"meter 'nvml': {gpu.domain} ({gpu.name}) cannot be read ({error}); {LOST_REMEDY}"
            ) from error


class _UnavailableError(Exception):
    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.availability = Availability(reason=reason, remedy=remedy)


class _NoGpuError(_UnavailableError):
    """There is nothing to measure."""


def _open(request: MeterRequest) -> NvmlSession:
    is_in_use = request.uses_visible_gpus and "gpu" not in request.leave_out and gpus_are_visible()
    with _told_as_unmeasured() if is_in_use else nullcontext():
        pynvml = _import()
        with _mapped_errors(pynvml, "the NVIDIA driver does not answer", DRIVER_REMEDY):
            pynvml.nvmlInit()
    try:
        if "gpu" in request.leave_out:
            raise _UnavailableError("other meters measure the GPUs", "leave one of them out")
        if request.uses_visible_gpus:
            with _told_as_unmeasured():
                return _open_visible(pynvml)
        if not request.gpu_uuids:
            raise _UnavailableError(f"no GPU is in use (the driver lists {_num_gpus(pynvml)})", "use --device cuda")
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


def _num_gpus(pynvml: Any) -> int:
    with _mapped_errors(pynvml, "the NVIDIA driver does not list its GPUs", DRIVER_REMEDY):
        num_gpus: int = pynvml.nvmlDeviceGetCount()
    return num_gpus


def _open_visible(pynvml: Any) -> NvmlSession:
    """Opens the GPUs that CUDA would show to a program started now."""
    listed = [_listed(pynvml, number) for number in range(_num_gpus(pynvml))]
    if not listed:
        raise _NoGpuError("the driver lists no GPU", DRIVER_REMEDY)
    try:
        visible = visible_gpus(listed, os.environ)
    except CannotTellError as error:
        raise _UnavailableError(error.reason, error.remedy) from error
    if not visible.uuids:
        why = visible.note or f"{VARIABLE} is empty"
        raise _NoGpuError(f"no GPU is visible: {why} (the driver lists {len(listed)})", f"unset {VARIABLE}")
    return NvmlSession(pynvml, [_gpu(pynvml, uuid) for uuid in visible.uuids], remark=visible.note)


def _listed(pynvml: Any, number: int) -> ListedGpu:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(number)
        return ListedGpu(uuid=pynvml.nvmlDeviceGetUUID(handle), name=pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError as error:
        return ListedGpu(uuid=None, name=None, problem=str(error))


def _gpu(pynvml: Any, uuid: str) -> Gpu:
    full_uuid = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
    if full_uuid.startswith("MIG-"):
        raise _UnavailableError(f"{full_uuid} is a MIG slice, and NVML measures whole GPUs only", MIG_REMEDY)
    with _mapped_errors(pynvml, f"{full_uuid} is not found", "compare with `nvidia-smi -L`"), _lost(pynvml, full_uuid):
        handle = pynvml.nvmlDeviceGetHandleByUUID(full_uuid)
        name = pynvml.nvmlDeviceGetName(handle)
    if _is_mig_enabled(pynvml, handle):
        raise _UnavailableError(f"{full_uuid} is split by MIG, and NVML measures whole GPUs only", MIG_REMEDY)
    domain = Domain("gpu", full_uuid)
    with _lost(pynvml, full_uuid):
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
        except pynvml.NVMLError_GpuIsLost:
            raise
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
def _told_as_unmeasured() -> Iterator[None]:
    """What cannot be measured here is in use: to go on without it would leave its energy out."""
    try:
        yield
    except _NoGpuError:
        raise
    except _UnavailableError as error:
        error.availability = replace(error.availability, unmeasured=(Domain("gpu"),))
        raise


@contextmanager
def _lost(pynvml: Any, uuid: str) -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError_GpuIsLost as error:
        raise _UnavailableError(f"{uuid} is lost ({error})", LOST_REMEDY) from error


@contextmanager
def _mapped_errors(pynvml: Any, reason: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError as error:
        raise _UnavailableError(f"{reason} ({error})", remedy) from error


@hookimpl
def greensv_meters() -> Iterable[Meter]:
    """Provides `nvml`."""
    return (NvmlMeter(),)
