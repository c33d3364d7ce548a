"""SpecAugment: hides a stretch of frames and a stretch of bins of the features, each item of a batch its own."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from greensv.config import SpecAugment


def spec_augment(
    features: Float[Tensor, "batch frames features"], config: SpecAugment, generator: torch.Generator
) -> Float[Tensor, "batch frames features"]:
    """Returns the features with one time mask and one frequency mask, both filled with 0, in some items.

    Each item is masked with `config.probability`. A mask's width is uniform from 0 to its maximum (at most the whole
    axis), its place uniform where it fits. Park et al. 2019, "SpecAugment", section 2, without the time warp.

    Args:
        features: features whose mean is 0, so that 0 says nothing.
        config: probability and the largest widths, in frames and bins.
        generator: the only source of randomness; its device may differ from that of the features.
    """
    return mask(features, config, draw_masks(features.shape[0], generator).to(features.device))


def draw_masks(num_items: int, generator: torch.Generator) -> Float[Tensor, "5 items"]:
    """Returns what decides the masks of so many items: uniform numbers in [0, 1), of no size of features yet."""
    # float64: in float32 a draw just below 1 times the size can round up to the size.
    return torch.rand((5, num_items), generator=generator, device=generator.device, dtype=torch.float64)


def mask(
    features: Float[Tensor, "batch frames features"], config: SpecAugment, draws: Float[Tensor, "5 batch"]
) -> Float[Tensor, "batch frames features"]:
    """Returns the features masked as drawn; see `spec_augment`."""
    _, num_frames, num_features = features.shape
    is_masked = draws[0] < config.probability
    in_time = _stretches(draws[1:3], max_width=config.max_time_frames, size=num_frames)
    in_frequency = _stretches(draws[3:5], max_width=config.max_freq_bins, size=num_features)
    hidden = is_masked[:, None, None] & (in_time[:, :, None] | in_frequency[:, None, :])
    return features.masked_fill(hidden, 0.0)


def _stretches(draws: Float[Tensor, "2 batch"], *, max_width: int, size: int) -> Bool[Tensor, "batch size"]:
    width = torch.floor(draws[0] * (min(max_width, size) + 1))
    start = torch.floor(draws[1] * (size - width + 1))
    positions = torch.arange(size, device=draws.device)
    return (positions >= start[:, None]) & (positions < (start + width)[:, None])
