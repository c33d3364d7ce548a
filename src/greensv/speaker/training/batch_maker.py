"""Makes the batches of a training on the CPU, in a background thread: crops read, all that is random drawn."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from greensv.config import FeatureConfig, Phase, Recipe
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.augmentation import Augmenter, Drawn
from greensv.speaker.dataset import Skipped
from greensv.speaker.training import schedule
from greensv.speaker.training.batches import EpochPlan, plan_epoch
from greensv.speaker.training.crops import CropReader, PlannedStep
from greensv.speaker.training.spec_augment import draw_masks
from greensv.speaker.training.speed import samples_needed
from greensv.speaker.training.streams import Stream, sequence, torch_seed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One process's share of a step.

    Attributes:
        step: which.
        crop_samples: samples of a crop, once played at its speed.
        waveforms: as recorded; at a speed above 1 more samples than `crop_samples`, at one below fewer, then zeros.
        classes: the speaker; at speed k of the phase, k times the number of speakers further.
        speeds: which crops are played at which speed; empty where all are played as they are.
        masks: draws for SpecAugment.
        drawn: how the crops are disturbed; None: not at all.
        skipped: utterances that could not be read; others are in their place.
    """

    step: int
    crop_samples: int
    waveforms: Float[Tensor, "crops samples"]
    classes: Int[Tensor, " crops"]
    speeds: tuple[tuple[float, Int[Tensor, " some"]], ...]
    masks: Float[Tensor, "5 crops"]
    drawn: Drawn | None
    skipped: tuple[Skipped, ...]

    def pin_memory(self) -> "Batch":
        """Returns the batch in memory that a GPU copies from by itself."""
        return replace(
            self,
            waveforms=self.waveforms.pin_memory(),
            classes=self.classes.pin_memory(),
            speeds=tuple((speed, rows.pin_memory()) for speed, rows in self.speeds),
            masks=self.masks.pin_memory(),
            drawn=self.drawn.pin_memory() if self.drawn is not None else None,
        )

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device; from pinned memory without waiting."""
        return replace(
            self,
            waveforms=self.waveforms.to(device, non_blocking=True),
            classes=self.classes.to(device, non_blocking=True),
            speeds=tuple((speed, rows.to(device, non_blocking=True)) for speed, rows in self.speeds),
            masks=self.masks.to(device, non_blocking=True),
            drawn=self.drawn.to(device) if self.drawn is not None else None,
        )


class BatchMaker:
    """Makes the batch of any step; which crops it has depends on seed and step alone.

    All that is random is drawn for the whole batch of all processes, then this process's rows are taken: however many
    processes or micro-batches there are, the same crops are disturbed and masked in the same way.
    """

    def __init__(
        self,
        audio: AudioStore,
        *,
        recipe: Recipe,
        phases: Sequence[Phase],
        features: FeatureConfig,
        seed: int,
        rows: slice,
        augmenter: Augmenter | None,
    ) -> None:
        self._audio, self._utterances = audio, audio.utterances
        self._recipe, self._phases, self._rate, self._seed = recipe, phases, features.sample_rate_hz, seed
        self._rows, self._augmenter = range(recipe.batch_size)[rows], augmenter
        self._reader = CropReader(audio, seed=seed)
        self._steps_per_epoch = len(self._utterances) // recipe.batch_size
        self._plan: tuple[int, EpochPlan] | None = None

    def make(self, step: int, *, threads: Executor, pin_memory: bool) -> Batch:
        """Returns this process's share of step `step`; not to be called by two threads at once.

        Raises:
            DataError: so many utterances cannot be read that the data must be gone.
        """
        phase = schedule.place_of(step, phases=self._phases, steps_per_epoch=self._steps_per_epoch).phase
        crop_samples = round(phase.crop_s * self._rate)
        planned, speeds = self._planned(step, phase, crop_samples=crop_samples)
        rows = slice(self._rows.start, self._rows.stop)
        read = self._reader.read(planned, self._rows, threads=threads, pin_memory=pin_memory)
        speakers = self._utterances.speakers[read.utterances].astype(np.int64)
        batch = Batch(
            step=step,
            crop_samples=crop_samples,
            waveforms=read.waveforms,
            classes=torch.from_numpy(speakers + speeds[rows].astype(np.int64) * self._utterances.num_speakers),
            speeds=_rows_of_speeds(phase.speeds, speeds[rows]),
            masks=self._masks(step)[:, rows],
            drawn=self._draw(planned, crop_samples=crop_samples),
            skipped=read.skipped,
        )
        return batch.pin_memory() if pin_memory else batch

    def _planned(self, step: int, phase: Phase, *, crop_samples: int) -> tuple[PlannedStep, NDArray[np.int8]]:
        epoch, row = divmod(step, self._steps_per_epoch)
        needed = [samples_needed(crop_samples, speed) for speed in phase.speeds]
        if self._plan is None or self._plan[0] != epoch:
            plan = plan_epoch(
                self._utterances.num_samples,
                batch_size=self._recipe.batch_size,
                crop_samples=needed,
                seed=self._seed,
                epoch=epoch,
            )
            self._plan = epoch, plan
        plan = self._plan[1]
        planned = PlannedStep(
            step=step,
            utterances=plan.utterances[row],
            starts=plan.starts[row],
            num_samples=np.asarray(needed)[plan.speeds[row]],
        )
        return planned, plan.speeds[row]

    def _masks(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(torch_seed(self._seed, Stream.MASKS, step))
        return draw_masks(self._recipe.batch_size, generator)

    def _draw(self, planned: PlannedStep, *, crop_samples: int) -> Drawn | None:
        if self._augmenter is None:
            return None
        return self._augmenter.draw(
            num_crops=self._recipe.batch_size,
            crop_samples=crop_samples,
            seed=sequence(self._seed, Stream.DISTURBANCES, planned.step),
            rows=slice(self._rows.start, self._rows.stop),
            read_crop=lambda row: self._reader.read_one(planned, row),
        )


def _rows_of_speeds(speeds: Sequence[float], which: NDArray[np.int8]) -> tuple[tuple[float, Tensor], ...]:
    if tuple(speeds) == (1.0,):
        return ()
    rows = [(speed, np.flatnonzero(which == k)) for k, speed in enumerate(speeds)]
    return tuple((speed, torch.from_numpy(found)) for speed, found in rows if len(found))
