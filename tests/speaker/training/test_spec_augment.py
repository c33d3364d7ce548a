import pytest
import torch

from greensv.config import SpecAugment
from greensv.speaker.training.spec_augment import draw_masks, mask, spec_augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def masked(config: SpecAugment, *, batch: int = 2000, num_frames: int = 30, num_features: int = 20) -> torch.Tensor:
    return spec_augment(torch.ones(batch, num_frames, num_features), config, generator()) == 0


def test_masks_are_one_stretch_of_frames_and_one_of_bins() -> None:
    hidden = masked(SpecAugment(probability=1.0, max_time_frames=6, max_freq_bins=4))
    in_time, in_frequency = hidden.all(dim=2), hidden.all(dim=1)
    assert torch.equal(hidden, in_time[:, :, None] | in_frequency[:, None, :])
    for stretches in (in_time, in_frequency):
        edges = torch.diff(stretches.int(), prepend=torch.zeros(2000, 1, dtype=torch.int), dim=1).clamp(min=0)
        assert edges.sum(dim=1).max() == 1


def test_every_width_up_to_the_maximum_is_equally_likely() -> None:
    widths = masked(SpecAugment(probability=1.0, max_time_frames=4, max_freq_bins=0)).all(dim=2).sum(dim=1)
    counts = torch.bincount(widths, minlength=5)
    assert len(counts) == 5
    # 400 expected of each, standard deviation 18.
    assert counts.min() > 320
    assert counts.max() < 480


def test_a_mask_reaches_both_edges() -> None:
    hidden = masked(SpecAugment(probability=1.0, max_time_frames=3, max_freq_bins=0)).all(dim=2)
    assert hidden[:, 0].any()
    assert hidden[:, -1].any()


def test_items_are_masked_with_the_probability_each_on_its_own() -> None:
    hidden = masked(SpecAugment(probability=0.6, max_time_frames=30, max_freq_bins=20)).flatten(1).any(dim=1)
    # A masked item has both widths 0 once in 31 · 21 draws.
    assert hidden.float().mean().item() == pytest.approx(0.6 * (1 - 1 / 651), abs=0.045)


def test_probability_zero_changes_nothing() -> None:
    features = torch.randn(8, 20, 5)
    assert torch.equal(spec_augment(features, SpecAugment(probability=0.0), generator()), features)


def test_the_generator_alone_decides() -> None:
    features, config = torch.ones(50, 40, 81), SpecAugment()
    first = spec_augment(features, config, generator(1))
    torch.manual_seed(123)
    assert torch.equal(first, spec_augment(features, config, generator(1)))
    assert not torch.equal(first, spec_augment(features, config, generator(2)))


def test_a_mask_wider_than_the_features_hides_at_most_all_of_them() -> None:
    hidden = masked(SpecAugment(probability=1.0, max_time_frames=100, max_freq_bins=0), num_frames=3)
    assert hidden.all(dim=2).sum(dim=1).max() == 3


def test_the_given_features_stay_as_they_are() -> None:
    features = torch.ones(10, 20, 5)
    spec_augment(features, SpecAugment(probability=1.0), generator())
    assert bool((features == 1).all())


def test_some_items_are_masked_as_they_are_among_all() -> None:
    features = torch.randn(6, 40, 30, generator=torch.Generator().manual_seed(0))
    config = SpecAugment(probability=0.7)
    whole = spec_augment(features, config, torch.Generator().manual_seed(3))
    draws = draw_masks(6, torch.Generator().manual_seed(3))
    assert torch.equal(mask(features[2:5], config, draws[:, 2:5]), whole[2:5])
    assert not torch.equal(whole[2:5], features[2:5])
