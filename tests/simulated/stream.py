"""A device that works through a queue, as a CUDA stream does, and the events recorded on it; no clock but its own."""

from dataclasses import dataclass


@dataclass
class SimulatedStream:
    """The host gives work to the device and goes on; the device does it when it comes to it."""

    host_s: float = 100.0
    device_free_s: float = 0.0
    num_events: int = 0

    def host_works(self, seconds: float) -> None:
        """The host is busy, or waits."""
        self.host_s += seconds

    def launch(self, seconds: float) -> None:
        """The device is given work of that many seconds."""
        self.device_free_s = max(self.device_free_s, self.host_s) + seconds

    def event(self) -> "SimulatedEvent":
        """Makes an event, as `torch.cuda.Event(enable_timing=True)` does."""
        self.num_events += 1
        return SimulatedEvent(self)


class SimulatedEvent:
    """What CUDA does: `elapsed_time` is an error until the device has come to both events."""

    def __init__(self, stream: SimulatedStream) -> None:
        self._stream = stream
        self._at_s: float | None = None

    def record(self) -> None:
        self._at_s = max(self._stream.host_s, self._stream.device_free_s)

    def query(self) -> bool:
        assert self._at_s is not None, "asked for an event that was never recorded"
        return self._at_s <= self._stream.host_s

    def elapsed_time(self, end_event: "SimulatedEvent", /) -> float:
        assert self.query(), "CUDA error: device not ready"
        assert end_event.query(), "CUDA error: device not ready"
        assert self._at_s is not None
        assert end_event._at_s is not None
        return 1e3 * (end_event._at_s - self._at_s)
