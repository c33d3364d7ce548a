"""From a batch's crops to features on the device, all of it in fp32: speed, disturbances, dither, filterbank, masks."""

import torch
from jaxtyping import Float
from torch import Tensor

from greensv.config import FeatureConfig, Recipe
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.augmentation.white_noise import white_noise
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.training.batch_maker import Batch
from greensv.speaker.training.spec_augment import mask
from greensv.speaker.training.speed import play_faster
from greensv.speaker.training.streams import Stream, torch_seed

_STEPS_OF_16_BITS = 32_768


class FrontEnd:
    """What happens to the crops of a training before the network sees them; whole batches at once."""

    def __init__(
        self,
        recipe: Recipe,
        features: FeatureConfig,
        *,
        seed: int,
        rows: slice,
        augmenter: Augmenter | None,
        device: torch.device,
    ) -> None:
        self._recipe, self._seed, self._rows, self._augmenter = recipe, seed, rows, augmenter
        self._fbank = Fbank(features).to(device)

    @torch.no_grad()
    def waveforms(self, batch: Batch) -> Float[Tensor, "crops samples"]:
        """Returns the crops at their speeds, disturbed and dithered; `batch` is on the device."""
        waveforms = _played(batch)
        if self._augmenter is not None and batch.drawn is not None:
            waveforms = self._augmenter.apply(waveforms, batch.drawn)
        if self._recipe.dither:
            waveforms = waveforms + self._noise(batch) * (self._recipe.dither / _STEPS_OF_16_BITS)
        return waveforms

    @torch.no_grad()
    def features(
        self, waveforms: Float[Tensor, "crops samples"], masks: Float[Tensor, "5 crops"]
    ) -> Float[Tensor, "crops frames features"]:
        """Returns the masked features of all crops of a batch, or of some."""
        return mask(subtract_mean(self._fbank(waveforms)[0]), self._recipe.spec_augment, masks)

    def _noise(self, batch: Batch) -> Tensor:
        """Its places are drawn for the crops of all processes: a crop's noise does not depend on their number."""
        generator = torch.Generator().manual_seed(torch_seed(self._seed, Stream.DITHER, batch.step))
        where = torch.rand(self._recipe.batch_size, generator=generator, dtype=torch.float64)[self._rows]
        return white_noise(where.to(batch.waveforms.device), num_samples=batch.crop_samples)


def _played(batch: Batch) -> Float[Tensor, "crops samples"]:
    if not batch.speeds:
        return batch.waveforms
    waveforms = batch.waveforms.new_empty(len(batch.waveforms), batch.crop_samples)
    for speed, rows in batch.speeds:
        waveforms[rows] = play_faster(batch.waveforms[rows], speed=speed, num_samples=batch.crop_samples)
    return waveforms
