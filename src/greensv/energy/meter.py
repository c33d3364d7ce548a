"""The interface of a meter: raw counters with their range, or watts, per domain; the monitor unwraps and integrates.

Constructing a meter touches no hardware; `probe` looks, `open` starts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from greensv.energy.devices.device_state import DeviceReader
from greensv.errors import MeterError

Quality = Literal["measured", "attributed", "estimated"]
DomainKind = Literal["cpu", "dram", "gpu", "host", "node"]
Role = Literal["charged", "part", "beside"]
"""What a domain's joules are for: the account; to tell the parts of a charged node; to be shown beside ours."""


@dataclass(frozen=True, slots=True, order=True)
class Domain:
    """A part of a machine whose energy is metered: its kind, and which one.

    `index` is the socket for `cpu` and `dram`, the UUID for `gpu`; `all` covers every part of that kind. `node` is
    everything in the machine, its GPUs included; `host` everything but its GPUs.
    """

    kind: DomainKind
    index: str = "all"

    def __str__(self) -> str:
        return self.kind if self.index == "all" else f"{self.kind}:{self.index}"

    def overlaps(self, other: "Domain") -> bool:
        """Says whether both would count the same joules."""
        kinds = {self.kind, other.kind}
        if "node" in kinds:
            return True
        if "host" in kinds:
            return "gpu" not in kinds
        return self.kind == other.kind and (self.index == other.index or "all" in (self.index, other.index))

    def contains(self, other: "Domain") -> bool:
        """Says whether `other` is a part of it that is metered apart: the host or a GPU of a node, a CPU of a host."""
        if self.kind == "node":
            return other.kind != "node"
        return self.kind == "host" and other.kind in ("cpu", "dram")


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSample:
    """A cumulative energy counter as read: `count` units of `unit_j` joules, wrapping to 0 after `range_count`.

    `range_count` None: the counter does not wrap. `taken_at_s` is `time.monotonic()` at the moment of reading.
    """

    domain: Domain
    taken_at_s: float
    count: int
    unit_j: float
    range_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """Instantaneous power in watts; `taken_at_s` is `time.monotonic()` at the moment of reading."""

    domain: Domain
    taken_at_s: float
    power_w: float


Sample = CounterSample | PowerSample


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRequest:
    """What is to be measured: the GPUs in use, by UUID (`GPU-…`), and the meter's own options from study.toml."""

    gpu_uuids: tuple[str, ...] = ()
    uses_visible_gpus: bool = False
    """The GPUs in use are those that CUDA would show to a program started now (`CUDA_VISIBLE_DEVICES`), and the meter
    finds them; `gpu_uuids` is then empty. For measuring without torch."""
    process_ids: tuple[int, ...] = ()
    """Other processes of this machine that work with this one, for a meter that tells processes apart."""
    options: Any = None
    """An instance of the meter's `options_type`; None stands for its defaults."""
    leave_out: frozenset[DomainKind] = frozenset()
    """Kinds of domains that other chosen meters measure already: the meter announces and samples none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What a meter can measure here. Without domains, `reason` says why not and `remedy` what to do about it."""

    domains: tuple[Domain, ...] = ()
    reason: str | None = None
    remedy: str | None = None
    resolution_s: float = 0.0
    """How often the underlying counter or sensor changes, in seconds."""
    gain_uncertainty: float = 0.0
    """Relative standard uncertainty of the meter's scale: 0.05 for ±5 %."""
    max_power_w: float = 20_000.0
    """No single domain draws more, in watts. Tells the wrap of a counter from a reset, and one wrap from two."""
    counts_others: bool = True
    """The readings hold what other programs use, too: those of a socket, a board or a node. False where they are of the
    processes of the request alone."""
    poll_interval_s: float | None = None
    """How often it wants to be read, in seconds: power that changes quickly is lost between readings that are rare.
    None: as often as the monitor reads."""
    is_dated: bool = False
    """`taken_at_s` of its samples is when they were true, though they may be read long after: scraped ones."""
    since_process_start: bool = False
    """The counters start at 0 with this process, so that their first reading is energy this process has used."""
    rest_power_w: Mapping[Domain, float] = field(default_factory=dict)
    """What a domain draws at rest, in watts, where the meter's own model says it: there is nothing to measure then."""
    unmeasured: tuple[Domain, ...] = ()
    """What is in use and cannot be measured, for `reason`: another meter must, or its energy would be left out."""
    notes: tuple[str, ...] = field(default=())

    @property
    def is_available(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.domains)


class MeterSession(ABC):
    """An open meter. `read` may be called from one thread at a time; `close` is called once."""

    @abstractmethod
    def read(self) -> Sequence[Sample]:
        """Returns one sample per domain.

        Raises:
            MeterError: the hardware could not be read. Never returns a zero in its place.
        """

    def notes(self) -> Sequence[str]:
        """Returns what is to be noted since the last call and is no failure, such as a gap that was bridged."""
        return ()

    def close(self) -> None:
        """Releases what `open` took."""
        return None


class Meter(ABC):
    """A source of energy readings.

    A complete meter::

        class WallPlug(Meter):
            name = "wall-plug"
            quality = "measured"

            def probe(self, request):
                if not Path("/dev/ttyUSB0").exists():
                    return Availability(reason="no /dev/ttyUSB0", remedy="connect the plug and set its serial port")
                return Availability(domains=(Domain("node"),), resolution_s=1.0, gain_uncertainty=0.01)

            def open(self, request):
                return WallPlugSession(Path("/dev/ttyUSB0"))
    """

    name: ClassVar[str]
    quality: ClassVar[Quality]
    options_type: ClassVar[type | None] = None
    """A frozen dataclass whose fields are the keys of `[energy.options.<name>]`, or None when there are none."""
    is_beside_only: ClassVar[bool] = False
    """Its figures are another tool's, to compare with and never to charge: it is taken as `--also-meter` only."""

    @abstractmethod
    def probe(self, request: MeterRequest) -> Availability:
        """Looks at the hardware and says what can be measured. Never raises for missing hardware."""

    @abstractmethod
    def open(self, request: MeterRequest) -> MeterSession:
        """Starts measuring the domains that `probe` announced.

        Raises:
            MeterError: the meter is not available, saying why and what to do.
        """

    def require(self, request: MeterRequest) -> Availability:
        """Returns what `probe` says, for an `open` that needs nothing else.

        Raises:
            MeterError: there is nothing to measure, saying why and what to do.
        """
        about = self.probe(request)
        if not about.is_available:
            raise MeterError(f"meter {self.name!r} is not available: {about.reason}; {about.remedy}")
        return about

    def open_device_reader(self, request: MeterRequest) -> DeviceReader | None:
        """Returns what reads the utilisation, clocks and temperature of the request's devices, for the telemetry.

        None where the meter knows none of them, or where the hardware is not there. The reader has a thread of its own
        and does not depend on an open session.
        """
        return None
