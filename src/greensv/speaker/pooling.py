"""Statistics over time: what turns a sequence of frames into one vector. Frames behind an item's end do not count.

All of them compute in float32 at least: half precision is too coarse for a variance.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from greensv.speaker.masking import hide

MIN_VARIANCE = 1e-7
"""Added to, or the least of, a variance: the square root has no gradient at 0."""

Frames = Float[Tensor, "batch channels frames"]
Padding = Bool[Tensor, "batch 1 frames"] | None
Statistics = tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch channels"]]


def mean_over_time(sequence: Frames, padding: Padding) -> Float[Tensor, "batch channels"]:
    """Returns the mean of each channel over the valid frames, in the sequence's own precision."""
    if padding is None:
        return sequence.mean(dim=2)
    return hide(sequence, padding).sum(dim=2) / (~padding).sum(dim=2)


def at_least_float32(sequence: Frames) -> Frames:
    """Returns the sequence in a precision that the statistics below compute in; itself where it has it already."""
    return sequence.to(torch.promote_types(sequence.dtype, torch.float32))


def mean_and_deviation(sequence: Frames, padding: Padding) -> Statistics:
    """Returns each channel's mean and standard deviation √(s² + 1e-7), s² the unbiased variance; 0 of one frame.

    The statistics pooling of Snyder et al. 2018, "X-Vectors", as WeSpeaker computes it (its class TSTP).
    """
    values = hide(at_least_float32(sequence), padding)
    if padding is None:
        num_valid = torch.full((1, 1), sequence.shape[2], dtype=values.dtype, device=values.device)
    else:
        num_valid = (~padding).sum(dim=2).to(values.dtype)
    mean = values.sum(dim=2) / num_valid
    squares = hide(_centred(values, mean).square(), padding).sum(dim=2)
    variance = squares / (num_valid - 1).clamp(min=1)
    return mean, (variance + MIN_VARIANCE).sqrt()


def weighted_mean_and_deviation(sequence: Frames, logits: Frames, padding: Padding) -> Statistics:
    """Returns each channel's mean and standard deviation with the weights softmax(logits) over the valid frames.

    Okabe et al. 2018, "Attentive Statistics Pooling for Deep Speaker Embedding", equations 5 and 6.
    """
    values = hide(at_least_float32(sequence), padding)
    if padding is not None:
        logits = logits.masked_fill(padding, -torch.inf)
    weights = logits.softmax(dim=2, dtype=values.dtype)
    mean = (weights * values).sum(dim=2)
    variance = (weights * _centred(values, mean).square()).sum(dim=2)
    return mean, variance.clamp(min=MIN_VARIANCE).sqrt()


def _centred(values: Frames, mean: Float[Tensor, "batch channels"]) -> Frames:
    """Returns the values less their mean, through which no gradient goes: that of a variance to its own mean is 0."""
    return values - mean.detach()[:, :, None]
