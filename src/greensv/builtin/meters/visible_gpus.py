"""Which GPUs CUDA would show to a program started now, worked out without CUDA, and so without torch.

The rules are NVIDIA's: CUDA programming guide, "CUDA Environment Variables", CUDA_VISIBLE_DEVICES. An entry is a
number, as far as its leading digits go, or `GPU-` with enough of a UUID to be the only one; all are of the kind of the
first. An entry that names no GPU hides itself and those after it; a GPU named twice hides all.

What cannot be known: CUDA numbers GPUs from the fastest to the slowest unless CUDA_DEVICE_ORDER=PCI_BUS_ID, by a
measure of its own; the driver (NVML) numbers them by PCI slot. Only for GPUs of one model are both the same.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"
PCI_ORDER = "PCI_BUS_ID"
DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")
"""One entry per GPU; of the whole machine, in a container without GPUs, too."""
CONTROL_FILE = Path("/dev/nvidiactl")
"""Not in a container without GPUs."""
_NUMBER = re.compile(r"\s*\+?(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGpu:
    """A GPU in the driver's list, which is in order of PCI slots."""

    uuid: str | None
    """None where it does not answer."""
    name: str | None
    problem: str | None = None
    """Why it does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleGpus:
    """The UUIDs of the GPUs that CUDA would show, in its order as far as that is known."""

    uuids: tuple[str, ...]
    note: str | None = None
    """What of CUDA_VISIBLE_DEVICES names no GPU, and what that hides."""


class CannotTellError(Exception):
    """Which GPUs are visible cannot be told, or one of them cannot be measured: why, and what to do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def hides_all(environment: Mapping[str, str]) -> bool:
    """Says whether CUDA_VISIBLE_DEVICES shows no GPU whichever there are, as where it is empty or -1."""
    value = environment.get(VARIABLE)
    return value is not None and not (_NUMBER.match(value) or value.startswith(("GPU-", "MIG-")))


def gpus_are_visible() -> bool:
    """Says whether CUDA would show a GPU to a program started now, as far as files and environment tell."""
    return not hides_all(os.environ) and CONTROL_FILE.exists() and any(DRIVER_FOLDER.glob("*"))


def visible_gpus(listed: Sequence[ListedGpu], environment: Mapping[str, str]) -> VisibleGpus:
    """Returns the GPUs that CUDA would show to a program with this environment.

    Args:
        listed: the GPUs that the driver lists, in its order.
        environment: the environment variables.

    Raises:
        CannotTellError: a visible GPU does not answer, is a MIG slice, or cannot be told from others.
    """
    value = environment.get(VARIABLE)
    if value is None:
        return VisibleGpus(uuids=tuple(_uuid(gpu, number) for number, gpu in enumerate(listed)))
    if not value:
        return VisibleGpus(uuids=())
    if value.startswith("MIG-"):
        raise CannotTellError(
            f"{VARIABLE}={value} names a MIG slice, and NVML measures whole GPUs only",
            "use a whole GPU: switch MIG off (`nvidia-smi -mig 0`), or name one by its number or UUID",
        )
    entries = value.split(",")
    numbers = _by_uuid(listed, entries) if value.startswith("GPU-") else _by_number(listed, entries)
    if len(set(numbers)) < len(numbers):
        return VisibleGpus(uuids=(), note=f"{VARIABLE}={value} names a GPU twice, which hides all")
    if not value.startswith("GPU-"):
        _refuse_unknown_order(listed, numbers, value, environment)
    uuids = tuple(_uuid(listed[number], number) for number in numbers)
    if len(numbers) == len(entries):
        return VisibleGpus(uuids=uuids)
    stranger = entries[len(numbers)].strip()
    hides = " and hides those after it" if len(entries) > len(numbers) + 1 else ""
    return VisibleGpus(uuids=uuids, note=f"{VARIABLE}={value}: {stranger!r} names no GPU{hides}")


def _by_number(listed: Sequence[ListedGpu], entries: Sequence[str]) -> list[int]:
    numbers: list[int] = []
    for entry in entries:
        found = _NUMBER.match(entry)
        if found is None or int(found[1]) >= len(listed):
            break
        numbers.append(int(found[1]))
    return numbers


def _by_uuid(listed: Sequence[ListedGpu], entries: Sequence[str]) -> list[int]:
    numbers: list[int] = []
    for entry in entries:
        prefix = entry.strip()
        fitting = [n for n, gpu in enumerate(listed) if gpu.uuid is not None and gpu.uuid.startswith(prefix)]
        if not prefix.startswith("GPU-") or len(fitting) > 1:
            break
        if not fitting:
            _refuse_silent(listed, prefix)
            break
        numbers += fitting
    return numbers


def _refuse_silent(listed: Sequence[ListedGpu], prefix: str) -> None:
    """A UUID that no GPU has may be that of the one that does not answer."""
    for number, gpu in enumerate(listed):
        if gpu.uuid is None:
            raise CannotTellError(
                f"no GPU that answers is {prefix}, and GPU {number} does not answer ({gpu.problem})", LOST_REMEDY
            )


def _refuse_unknown_order(
    listed: Sequence[ListedGpu], numbers: Sequence[int], value: str, environment: Mapping[str, str]
) -> None:
    """CUDA's numbers are the driver's where it is told so; nor do they matter where all are meant, or all are alike."""
    models = {gpu.name for gpu in listed}
    if not numbers or environment.get(ORDER_VARIABLE) == PCI_ORDER or len(numbers) == len(listed) or len(models) == 1:
        return
    raise CannotTellError(
        f"{VARIABLE}={value} cannot be told: of several models ({', '.join(sorted(map(str, models)))}) CUDA calls the "
        "fastest 0, the driver the first by PCI slot",
        f"set {ORDER_VARIABLE}={PCI_ORDER}, or name the GPUs by UUID (`nvidia-smi -L`)",
    )


def _uuid(gpu: ListedGpu, number: int) -> str:
    if gpu.uuid is None:
        raise CannotTellError(f"GPU {number} does not answer ({gpu.problem})", LOST_REMEDY)
    return gpu.uuid


LOST_REMEDY = "look at the kernel's log (dmesg) for the GPU's Xid"
