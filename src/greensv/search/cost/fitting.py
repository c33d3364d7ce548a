"""Whether a candidate's training fits the memory of the device: asked before it starts, corrected by what was seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from greensv.search.candidate import Candidate
from greensv.search.cost.memory import DeviceMemory, MemoryModel, StepSize, longest_phase, step_bytes

if TYPE_CHECKING:
    from greensv.config import FeatureConfig, Recipe
    from greensv.search.workbench import NetworkWork, Workbench
    from greensv.speaker.device import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCheck:
    """The memory of one worker's device, and of its trainings. Made before the first of them."""

    bench: "Workbench"
    model: MemoryModel
    device: DeviceMemory

    @classmethod
    def of(cls, bench: "Workbench") -> Self:
        """Returns the check for a workbench."""
        device = DeviceMemory(bench.device, num_processes=bench.crew.team.size)
        return cls(bench=bench, model=MemoryModel(), device=device)

    def refusal(self, candidate: Candidate) -> str | None:
        """Says why a candidate is not started: its training would not fit the memory; None where it does.

        That of the whole recipe, whose longest crops need the most: what cannot be retrained is not worth a search.
        """
        return refusal(
            needed_bytes=self.model.needed_bytes(self._reckoned(candidate)),
            available_bytes=self.device.available_bytes(),
        )

    @contextmanager
    def learning(self, candidate: Candidate, *, crop_s: float) -> Iterator[None]:
        """Learns the peak of the steps in the block, on a GPU: a CPU's allocator does not tell one training's."""
        if self.bench.device.type != "cuda":
            yield
            return
        import torch

        torch.cuda.reset_peak_memory_stats(self.bench.device)
        yield
        peak = float(torch.cuda.max_memory_allocated(self.bench.device))
        self.model.add(self._reckoned(candidate, crop_s=crop_s), peak)

    def _reckoned(self, candidate: Candidate, *, crop_s: float | None = None) -> float:
        from greensv.speaker.device import resolve_precision

        bench = self.bench
        return reckoned_bytes(
            bench.work(candidate),
            recipe=bench.config.recipe,
            features=bench.config.features,
            num_speakers=bench.corpus.train.num_speakers,
            precision=resolve_precision(bench.config.recipe.precision, bench.device),
            num_processes=bench.crew.team.size,
            crop_s=crop_s,
        )


def refusal(*, needed_bytes: float, available_bytes: float | None) -> str | None:
    """Says that a training does not fit, or None where it does or where nobody knows what is free."""
    if available_bytes is None or needed_bytes <= available_bytes:
        return None
    return (
        f"its training needs about {needed_bytes / 1e9:.3g} GB of memory, {available_bytes / 1e9:.3g} GB are free; "
        "more recipe.num_micro_batches need less"
    )


def reckoned_bytes(
    work: "NetworkWork",
    *,
    recipe: "Recipe",
    features: "FeatureConfig",
    num_speakers: int,
    precision: "Precision",
    num_processes: int = 1,
    crop_s: float | None = None,
) -> float:
    """Returns what a step of a recipe's training is reckoned to hold in each process; see `step_bytes`.

    Args:
        work: of the network.
        recipe: of the training.
        features: what the network is fed.
        num_speakers: that are trained.
        precision: as resolved.
        num_processes: of the team.
        crop_s: of the phase that is asked about; None: the longest of the recipe.
    """
    crop_s = longest_phase(recipe).crop_s if crop_s is None else crop_s
    num_classes = num_speakers * max(len(phase.speeds) for phase in recipe.phases)
    num_loaded = -(-recipe.batch_size // num_processes)
    size = StepSize(
        num_parameters=work.num_parameters + num_classes * work.embedding_dim,
        kept_values=work.per_second.activations * crop_s,
        num_crops=-(-num_loaded // recipe.num_micro_batches),
        num_loaded=num_loaded,
        num_classes=num_classes,
        crop_s=crop_s,
    )
    return step_bytes(size, recipe, precision=precision, sample_rate_hz=features.sample_rate_hz)
