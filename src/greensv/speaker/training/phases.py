"""Times what training steps do (wait for data, copy, forward, backward, optimise) without ever waiting for the device.

On a GPU the marks between the phases are CUDA events: the GPU notes the time when it comes to them, and what it noted
is looked up later, when it is known to be there. So the seconds are those of the GPU's own time line. "data-wait" is
the time for which the GPU had nothing to do because no batch was ready: while the host waits and the GPU still works
on the step before, nothing is lost. Within the other phases the GPU may be idle too, where the host is slow to start
kernels. On a CPU the host's time line is the device's, and all is wall time.

What lies between steps (showing the progress, saving the state, averaging weights) is in no phase.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args

if TYPE_CHECKING:
    import torch

StepPhase = Literal["data-wait", "host-to-device", "forward", "backward", "optimiser"]
"""What a training step does, one after the other; with micro-batches, forward and backward by turns.

`forward` includes disturbances and features, `backward` the exchange of gradients between processes.
"""
STEP_PHASES: tuple[StepPhase, ...] = get_args(StepPhase)

_S_PER_MS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds by phase, summed over whole steps.

    Attributes:
        seconds: of the device's time line, by phase; each phase is there.
        host_wait_s: for how long the training loop waited for batches, also while the device still worked.
        num_steps: how many steps.
    """

    seconds: Mapping[StepPhase, float]
    host_wait_s: float
    num_steps: int

    def __sub__(self, earlier: "StepTimes") -> "StepTimes":
        return StepTimes(
            seconds={phase: self.seconds[phase] - earlier.seconds[phase] for phase in STEP_PHASES},
            host_wait_s=self.host_wait_s - earlier.host_wait_s,
            num_steps=self.num_steps - earlier.num_steps,
        )


class Mark(Protocol):
    """A moment on a device's time line: what `torch.cuda.Event` offers."""

    def record(self) -> Any:
        """Has the device note the time when it comes here."""

    def query(self) -> bool:
        """Says whether it has come here; does not wait."""
        ...

    def elapsed_time(self, end_event: Any, /) -> float:
        """Returns milliseconds from this mark to a later one."""
        ...


class HostMark:
    """A moment on the host's time line."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def record(self) -> None:
        """Notes the time."""
        self.at_s = time.perf_counter()

    def query(self) -> bool:
        """Says that the time is noted."""
        return True

    def elapsed_time(self, end_event: "HostMark", /) -> float:
        """Returns milliseconds to a later mark."""
        return (end_event.at_s - self.at_s) / _S_PER_MS


class _Step:
    """The marks of one step, kept and used again; `phases[k]` lies between marks k and k + 1."""

    def __init__(self) -> None:
        self.marks: list[Mark] = []
        self.phases: list[StepPhase] = []
        self.wait_began_s = self.wait_ended_s = 0.0


class PhaseTimer:
    """Adds up the seconds of each phase: `begin`, a `mark` at the end of each phase, `end`; one call each per step.

    A step that was begun and not ended counts for nothing. For one thread.

    Args:
        make_mark: makes a mark on the device's time line; as many are made as steps the device is behind, times the
            phases of one.
    """

    def __init__(self, make_mark: Callable[[], Mark] = HostMark) -> None:
        self._make_mark = make_mark
        self._seconds = dict.fromkeys(STEP_PHASES, 0.0)
        self._host_wait_s = 0.0
        self._num_steps = 0
        self._step = _Step()
        self._ended: deque[_Step] = deque()
        self._spare: list[_Step] = []

    @classmethod
    def of(cls, device: "torch.device") -> Self:
        """Returns the timer of a training on that device, whose work goes to the stream current when it marks."""
        if device.type != "cuda":
            return cls()
        import torch

        return cls(lambda: torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """The loop begins to wait for a batch."""
        self._harvest()
        self._step.phases.clear()
        self._step.wait_began_s = time.perf_counter()
        self._stamp(0)

    def mark(self, phase: StepPhase) -> None:
        """What was begun since the last mark was `phase`."""
        phases = self._step.phases
        phases.append(phase)
        self._stamp(len(phases))
        if phase == "data-wait":
            self._step.wait_ended_s = time.perf_counter()

    def end(self) -> None:
        """The step is complete."""
        self._ended.append(self._step)
        self._step = self._spare.pop() if self._spare else _Step()

    @property
    def times(self) -> StepTimes:
        """The seconds of all steps that the device has done by now: of all, once it was waited for."""
        self._harvest()
        return StepTimes(seconds=dict(self._seconds), host_wait_s=self._host_wait_s, num_steps=self._num_steps)

    def _stamp(self, index: int) -> None:
        marks = self._step.marks
        if index == len(marks):
            marks.append(self._make_mark())
        marks[index].record()

    def _harvest(self) -> None:
        while self._ended and self._ended[0].marks[len(self._ended[0].phases)].query():
            step = self._ended.popleft()
            for index, phase in enumerate(step.phases):
                self._seconds[phase] += step.marks[index].elapsed_time(step.marks[index + 1]) * _S_PER_MS
            self._host_wait_s += step.wait_ended_s - step.wait_began_s
            self._num_steps += 1
            self._spare.append(step)
