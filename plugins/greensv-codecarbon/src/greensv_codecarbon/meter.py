"""The meter: what CodeCarbon can measure here, as far as it tells before it is started."""

import importlib.util
import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from greensv.energy.meter import (
    Availability,
    CounterSample,
    Domain,
    DomainKind,
    Meter,
    MeterRequest,
    MeterSession,
    Quality,
)

if TYPE_CHECKING:
    from greensv_codecarbon.tracker import Tracker

REMEASURES_AFTER_S = 0.05
"""CodeCarbon measures anew when it is asked for its figures, unless the last ones are younger than that."""
GAIN_UNCERTAINTY = 0.5
"""Of its models of CPU and memory; our judgement, as for `estimate`. What it reads off RAPL or NVML is better."""
GPU_TOOLS = ("nvidia-smi", "rocm-smi")


class CodeCarbonMeter(Meter):
    """CodeCarbon's offline tracker in its mode `machine`, for `--also-meter codecarbon`."""

    name: ClassVar[str] = "codecarbon"
    quality: ClassVar[Quality] = "estimated"
    is_beside_only: ClassVar[bool] = True

    def probe(self, request: MeterRequest) -> Availability:
        """Says what CodeCarbon will report. Starting it takes seconds and is left to `open`."""
        if importlib.util.find_spec("codecarbon") is None:
            return Availability(reason="codecarbon is not installed", remedy="pip install 'codecarbon>=3.3.2,<4'")
        gpu_problem = _gpu_problem(request)
        kinds: list[DomainKind] = ["cpu", "dram"] if gpu_problem else ["cpu", "dram", "gpu"]
        domains = tuple(Domain(kind) for kind in kinds if kind not in request.leave_out)
        if not domains:
            return Availability(reason="other meters measure what it could", remedy="leave one of them out")
        return Availability(
            domains=domains,
            resolution_s=REMEASURES_AFTER_S,
            gain_uncertainty=GAIN_UNCERTAINTY,
            notes=(f"no GPU: {gpu_problem}",) if gpu_problem else (),
        )

    def open(self, request: MeterRequest) -> MeterSession:
        """Starts CodeCarbon, which finds out about the hardware; that takes seconds."""
        about = self.require(request)
        from greensv_codecarbon.tracker import Tracker

        return CodeCarbonSession(Tracker(needs_gpu=Domain("gpu") in about.domains), about.domains)


class CodeCarbonSession(MeterSession):
    """A started tracker, read as counters of microjoules from its start."""

    def __init__(self, tracker: "Tracker", domains: Sequence[Domain]) -> None:
        self._tracker = tracker
        self._domains = domains

    def read(self) -> Sequence[CounterSample]:
        """Returns the energy of each kind since `open`.

        Raises:
            MeterError: CodeCarbon told nothing.
        """
        energy_uj, taken_at_s = self._tracker.measure()
        return [
            CounterSample(domain=domain, taken_at_s=taken_at_s, count=energy_uj[domain.kind], unit_j=1e-6)
            for domain in self._domains
        ]

    def close(self) -> None:
        """Stops the tracker and its thread."""
        self._tracker.stop()


def _gpu_problem(request: MeterRequest) -> str | None:
    """Returns why CodeCarbon would tell nothing, or 0 J, of GPUs that may be in use; None where it would tell."""
    if not (request.gpu_uuids or request.uses_visible_gpus):
        return "none is in use"
    if not any(map(shutil.which, GPU_TOOLS)):
        return "CodeCarbon looks for GPUs only where nvidia-smi or rocm-smi is installed"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not visible.replace(",", "").strip().isdigit():
        return f"CodeCarbon counts 0 J for CUDA_VISIBLE_DEVICES={visible}: it knows GPUs by their numbers only"
    return None
