"""Plays waveforms faster or slower, pitch and tempo together, as sox's `speed` does."""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torchaudio.transforms import Resample

MAX_DENOMINATOR = 1000
"""A speed is taken for the nearest fraction with at most this denominator: exact to three decimals, 0.9 is 9/10."""


def samples_needed(num_samples: int, speed: float) -> int:
    """Returns how many samples become `num_samples` when they are played at `speed`."""
    return math.ceil(num_samples * _fraction(speed))


def play_faster(
    waveforms: Float[Tensor, "batch needed"], *, speed: float, num_samples: int
) -> Float[Tensor, "batch samples"]:
    """Returns the waveforms as they sound at `speed`: value t is the waveform at time speed × t.

    Resampled with a windowed sinc (torchaudio's defaults: six zero crossings, Hann window); beyond their ends the
    waveforms count as silent.

    Args:
        waveforms: `samples_needed(num_samples, speed)` samples each, or more.
        speed: above 1 is faster and higher; 1 returns the samples as they are.
        num_samples: how many samples to return.
    """
    assert waveforms.shape[1] >= samples_needed(num_samples, speed), (waveforms.shape, num_samples, speed)
    ratio = _fraction(speed)
    if ratio == 1:
        return waveforms[:, :num_samples]
    with torch.autocast(waveforms.device.type, enabled=False):
        return _resampler(ratio, waveforms.device)(waveforms.float())[:, :num_samples]


@cache
def _resampler(ratio: Fraction, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Keeps its filter, which takes longer to compute than a batch takes to filter."""
    resampler: Callable[[Tensor], Tensor] = Resample(ratio.numerator, ratio.denominator).to(device)
    return resampler


def _fraction(speed: float) -> Fraction:
    return Fraction(speed).limit_denominator(MAX_DENOMINATOR)
