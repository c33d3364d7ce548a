"""Adds sounds to crops at signal-to-noise ratios, a whole batch at once."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

SILENCE = 1e-12
"""Mean square below which a sound is silent: -120 dB of full scale, less than half a step of 16 bits."""


def power(waveforms: Float[Tensor, "crops samples"]) -> Float[Tensor, " crops"]:
    """Returns the mean square of each waveform; in one pass, without an array of squares."""
    mean_square: Tensor = torch.linalg.vector_norm(waveforms, dim=1).square() / waveforms.shape[1]
    return mean_square


def add_at_ratio(
    crops: Float[Tensor, "crops samples"],
    crop_power: Float[Tensor, " crops"],
    sounds: Float[Tensor, "sounds samples"],
    *,
    rows: Int[Tensor, " sounds"],
    snr_db: Float[Tensor, " sounds"],
) -> None:
    """Adds `sounds[i]` to `crops[rows[i]]` in place, so much weaker than `crop_power[rows[i]]` as `snr_db[i]` says.

    The ratio is that of the mean squares over the whole crop. Where a crop gets several sounds, each has its ratio to
    the clean crop, so that together they are louder than the weakest ratio says. A silent sound adds nothing, and a
    silent crop gets nothing.

    Args:
        crops: what is added to.
        crop_power: the power of each crop when it was clean.
        sounds: what is added.
        rows: to which crop; crops may come more than once.
        snr_db: signal-to-noise ratio of each sound.
    """
    sound_power = power(sounds)
    gain = (crop_power[rows] / sound_power.clamp(min=SILENCE) * 10.0 ** (-snr_db / 10.0)).sqrt()
    gain = torch.where(sound_power > SILENCE, gain, 0.0)
    crops.index_add_(0, rows, sounds * gain[:, None])
