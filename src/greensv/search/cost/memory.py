"""The memory that a training step needs at its peak, before it runs; and what a device has."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from greensv.builtin.meters.machine import available_memory_bytes
from greensv.config import Phase, Recipe

if TYPE_CHECKING:
    import torch

    from greensv.speaker.device import Precision

FLOAT_BYTES = 4
KEPT_BYTES = {"fp32": 4.0, "bf16": 2.2, "fp16": 2.2}
"""Bytes of a value kept for the gradients; autocast leaves some in fp32."""
TRANSIENT_SHARE = 0.5
"""Beyond what is kept: gradients on their way back, work space, gaps between the allocator's pieces."""
BASE_BYTES = 6e7
"""Of threads, batches read ahead, and libraries that are loaded at the first step."""
FRONT_END_BYTES = 6e5
"""Of a second of speech on its way to features: frames of 25 ms each 10 ms, their spectra."""
LOGITS_PER_CLASS = 6
"""Values of fp32 per crop and class in the margin softmax, forwards and backwards."""
FIRST_MARGIN, LEAST_MARGIN = 1.25, 1.1
"""What is needed is reckoned so many times as much: before a step was measured here, and at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSize:
    """What a training step consists of, in one process."""

    num_parameters: int
    """Of the network and of its head."""
    kept_values: float
    """Values that one crop keeps for the gradients; `count_kept_values` counts them."""
    num_crops: int
    """Computed at once: the batch, over processes and micro-batches."""
    num_loaded: int
    """Crops of this process in a step, whose waveforms are all on the device."""
    num_classes: int
    crop_s: float


def step_bytes(size: StepSize, recipe: Recipe, *, precision: "Precision", sample_rate_hz: int = 16_000) -> float:
    """Returns the bytes that a step holds at its peak: of weights and all that goes with them, and of activations.

    An estimate: kernels' own work space is not known, and `MemoryModel` corrects it by what was measured.
    """
    moments = 2 if recipe.optimizer == "adamw" else int(recipe.momentum > 0)
    is_averaged = any(phase.num_averaged_epochs for phase in recipe.phases)
    is_cast = precision != "fp32"
    lasting = size.num_parameters * (FLOAT_BYTES * (2 + moments + is_averaged) + 2 * is_cast)
    kept = size.kept_values * KEPT_BYTES[precision] * (1 + TRANSIENT_SHARE)
    kept += LOGITS_PER_CLASS * FLOAT_BYTES * size.num_classes
    passing = size.num_crops * max(kept, FRONT_END_BYTES * size.crop_s)
    waveforms = 2 * FLOAT_BYTES * size.num_loaded * size.crop_s * sample_rate_hz
    return BASE_BYTES + lasting + passing + waveforms


def longest_phase(recipe: Recipe) -> Phase:
    """Returns the phase with the longest crop, whose steps need the most memory."""
    return max(recipe.phases, key=lambda phase: phase.crop_s)


@dataclass(slots=True)
class MemoryModel:
    """Corrects reckoned bytes by the peaks that were measured on this device, in ln."""

    _errors: list[float] = field(default_factory=list)

    def add(self, reckoned_bytes: float, measured_bytes: float) -> None:
        """Learns the measured peak of a step that `reckoned_bytes` had been reckoned for."""
        if measured_bytes > 0:
            self._errors.append(math.log(measured_bytes / reckoned_bytes))

    def needed_bytes(self, reckoned_bytes: float) -> float:
        """Returns what should be free for a step, margin included: more than half of what is measured lies below."""
        # As if one more had been measured as reckoned: a single probe does not settle it.
        correction = math.exp(sum(self._errors) / (len(self._errors) + 1))
        spread = max((abs(error - math.log(correction)) for error in self._errors), default=0.0)
        margin = max(LEAST_MARGIN, math.exp(spread)) if self._errors else FIRST_MARGIN
        return reckoned_bytes * correction * margin


class DeviceMemory:
    """What a device has for trainings, seen from this process. Made before the first of them."""

    def __init__(self, device: "torch.device", *, num_processes: int = 1, proc: Path = Path("/proc")) -> None:
        """Remembers what this process holds already.

        Args:
            device: computes.
            num_processes: of a team, which share a CPU's memory; each has a GPU of its own.
            proc: where Linux tells of memory.
        """
        self._device, self._num_processes, self._proc = device, num_processes, proc
        self._held_before = resident_bytes(proc)

    def available_bytes(self) -> float | None:
        """Returns what a training may hold: what is free, and what this process keeps from earlier ones.

        None where the system does not tell.
        """
        if self._device.type == "cuda":
            import torch

            free, _ = torch.cuda.mem_get_info(self._device)
            return float(free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device))
        held, free_bytes = resident_bytes(self._proc), free_host_bytes(self._proc)
        if held is None or free_bytes is None:
            return None
        # Freed memory stays with the process (`greensv.speaker.memory`), and the next training uses it again.
        return free_bytes / self._num_processes + max(0.0, held - (self._held_before or held))


def resident_bytes(proc: Path = Path("/proc")) -> float | None:
    """Returns the memory that this process holds; None where the system does not tell."""
    try:
        return int((proc / "self" / "statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        return None


def free_host_bytes(proc: Path = Path("/proc")) -> float | None:
    """Returns the memory that is free or can be freed, within this process's control groups; None where unknown."""
    try:
        lines = (proc / "meminfo").read_text().splitlines()
        free = next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        limit = available_memory_bytes(proc)
    except (OSError, ValueError, StopIteration):
        return None
    held = resident_bytes(proc) or 0.0
    return max(0.0, min(free, limit - held))
