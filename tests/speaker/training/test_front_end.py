from typing import Any

import numpy as np
import pytest
import torch

from greensv.config import Augmentation, Disturbance, FeatureConfig, Recipe, SpecAugment
from greensv.speaker.augmentation import Augmenter
from greensv.speaker.features import Fbank, subtract_mean
from greensv.speaker.training.batch_maker import Batch
from greensv.speaker.training.front_end import FrontEnd
from greensv.speaker.training.spec_augment import draw_masks, mask
from greensv.speaker.training.speed import play_faster

CPU, FEATURES = torch.device("cpu"), FeatureConfig()


def front_end(rows: slice = slice(0, 6), augmenter: Augmenter | None = None, **recipe: Any) -> FrontEnd:
    made = Recipe(batch_size=6, spec_augment=SpecAugment(probability=1.0), **recipe)
    return FrontEnd(made, FEATURES, seed=2, rows=rows, augmenter=augmenter, device=CPU)


def batch_of(waveforms: torch.Tensor, **changes: Any) -> Batch:
    settings: dict[str, Any] = {
        "step": 9,
        "crop_samples": 4000,
        "waveforms": waveforms,
        "classes": torch.zeros(len(waveforms), dtype=torch.int64),
        "speeds": (),
        "masks": draw_masks(len(waveforms), torch.Generator().manual_seed(1)),
        "drawn": None,
        "skipped": (),
    }
    return Batch(**{**settings, **changes})


@pytest.fixture
def noise() -> torch.Tensor:
    return 0.1 * torch.randn((6, 4400), generator=torch.Generator().manual_seed(0))


def test_features_are_filterbanks_less_their_mean_and_masked(noise: torch.Tensor) -> None:
    batch = batch_of(noise[:, :4000])
    waveforms = front_end().waveforms(batch)
    assert torch.equal(waveforms, noise[:, :4000])
    expected = mask(subtract_mean(Fbank(FEATURES)(waveforms)[0]), SpecAugment(probability=1.0), batch.masks)
    assert torch.equal(front_end().features(waveforms, batch.masks), expected)


def test_some_crops_of_a_batch_have_the_features_they_have_in_all_of_it(noise: torch.Tensor) -> None:
    batch, made = batch_of(noise[:, :4000]), front_end()
    whole = made.features(batch.waveforms, batch.masks)
    part = made.features(batch.waveforms[2:4], batch.masks[:, 2:4])
    assert torch.allclose(part, whole[2:4], atol=1e-5)


def test_crops_are_played_at_their_speeds(noise: torch.Tensor) -> None:
    slow, fast = torch.tensor([0, 3]), torch.tensor([1, 2, 4, 5])
    played = front_end().waveforms(batch_of(noise, speeds=((0.9, slow), (1.1, fast))))
    assert played.shape == (6, 4000)
    for speed, rows in ((0.9, slow), (1.1, fast)):
        assert torch.equal(played[rows], play_faster(noise[rows], speed=speed, num_samples=4000))


def test_dither_is_noise_of_the_deviation_asked_for_and_new_each_step() -> None:
    silence = torch.zeros(6, 4000)
    first, again = (front_end(dither=2.0).waveforms(batch_of(silence)) for _ in range(2))
    other = front_end(dither=2.0).waveforms(batch_of(silence, step=10))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # 24,000 normal draws: their deviation is known to 1 in 200.
    assert first.std().item() * 32_768 == pytest.approx(2.0, rel=0.03)
    assert abs(first.mean().item()) * 32_768 < 0.1


def test_dither_of_a_crop_does_not_depend_on_the_number_of_processes() -> None:
    whole = front_end(dither=1.0).waveforms(batch_of(torch.zeros(6, 4000)))
    share = front_end(slice(2, 4), dither=1.0).waveforms(batch_of(torch.zeros(2, 4000)))
    assert torch.equal(share, whole[2:4])


def test_disturbances_come_before_the_dither(noise: torch.Tensor) -> None:
    config = Augmentation(disturbances=(Disturbance(kind="noise", probability=1.0),))
    augmenter = Augmenter(config, sample_rate_hz=16_000)
    drawn = augmenter.draw(
        num_crops=6, crop_samples=4000, seed=np.random.SeedSequence(3), rows=slice(0, 6), read_crop=None
    )
    clean = noise[:, :4000]
    disturbed = front_end(augmenter=augmenter).waveforms(batch_of(clean, drawn=drawn))
    assert torch.equal(disturbed, augmenter.apply(clean, drawn))
    assert not torch.equal(disturbed, clean)
    both = front_end(augmenter=augmenter, dither=1.0).waveforms(batch_of(clean, drawn=drawn))
    dither = front_end(dither=1.0).waveforms(batch_of(torch.zeros(6, 4000)))
    assert torch.equal(both, disturbed + dither)
