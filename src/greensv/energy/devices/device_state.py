"""What a device was doing at a moment: utilisation, clocks, temperature. Kept beside the energy, never charged."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceState:
    """The state of one device; None stands for what it does not tell, never a 0."""

    device: str
    """`gpu:GPU-…`; `cpu`: all of this machine's; `process`: this process and its children on them."""
    power_w: float | None = None
    utilisation: float | None = None
    """0 to 1: the share of time in which a GPU ran at least one kernel, or the share of the CPUs' time in use."""
    memory_utilisation: float | None = None
    """0 to 1: the share of time in which a GPU's memory was read or written, or the share of main memory in use."""
    memory_used_bytes: int | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None


class DeviceReader(ABC):
    """Reads the state of some devices. Used by one thread, and closed once."""

    @abstractmethod
    def read(self) -> Sequence[DeviceState]:
        """Returns the state of each device now.

        Raises:
            MeterError: a device could not be read.
        """

    def close(self) -> None:
        """Releases what opening took."""
        return None
