"""Rooms: convolution with impulse responses, and simulated impulse responses."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from greensv.speaker.augmentation.mixing import SILENCE, power
from greensv.speaker.augmentation.white_noise import white_noise

MAX_ROOM_S = 1.0
"""Seconds of an impulse response that are used; of rooms that echo for longer, the last echoes are left out."""
SPEED_OF_SOUND_M_S = 343.0
ROOM_SIDES_M = ((1.0, 10.0), (10.0, 30.0))
"""Range of length and width of small and of medium rooms, as in RIRS_NOISES."""
ROOM_HEIGHT_M = (2.0, 5.0)
ABSORPTION = (0.2, 0.8)
"""Range of the share of the sound energy that the walls take."""
MAX_DISTANCE_M = 5.0
MIN_DISTANCE_M = 0.3


def reverberate(
    crops: Float[Tensor, "crops samples"], impulse_responses: Float[Tensor, "crops taps"]
) -> Float[Tensor, "crops samples"]:
    """Returns each crop as heard in its room: as loud as before, and not delayed.

    The strongest tap of an impulse response, its direct path, is taken for time zero: what comes before it is heard
    earlier. Echoes beyond the end of the crop are cut off. The mean square is made that of the dry crop; where nothing
    remains, for a silent impulse response or crop, the crop is returned as it was.
    """
    num_samples, num_taps = crops.shape[1], impulse_responses.shape[1]
    fft_size = fast_fft_size(num_samples + num_taps - 1)
    peaks = impulse_responses.abs().argmax(dim=1)
    spectrum = torch.fft.rfft(crops, n=fft_size) * torch.fft.rfft(impulse_responses, n=fft_size)
    wet = torch.fft.irfft(spectrum, n=fft_size)
    wet = wet.gather(1, peaks[:, None] + torch.arange(num_samples, device=crops.device))
    wet_power, dry_power = power(wet), power(crops)
    gain = (dry_power / wet_power.clamp(min=SILENCE)).sqrt()
    return torch.where((wet_power > SILENCE)[:, None], wet * gain[:, None], crops)


def make_rooms(parameters: Float[Tensor, "rooms parameters"], *, sample_rate_hz: int) -> Float[Tensor, "rooms taps"]:
    """Returns simulated impulse responses: a direct path and, later, Gaussian noise that decays exponentially.

    This is Polack's statistical model (La transmission de l'énergie sonore dans les salles, 1988), which also the
    diffuse part of Lehmann and Johansson's fast image method is made of (Diffuse reverberation model for efficient
    image-source simulation of room impulse responses, IEEE TASLP 2010). Single early reflections are not modelled.

    A room is a box of small or medium size with one absorption for all walls, drawn as Ko et al. did for RIRS_NOISES
    (A study on data augmentation of reverberant speech for robust speech recognition, ICASSP 2017). From it follow, by
    statistical acoustics (Kuttruff, Room Acoustics, chapter 5): the reverberation time by Eyring's formula, 0.07 to
    0.68 s in nine of ten rooms and 1.3 s at the most; the direct-to-reverberant ratio from the distance between speaker
    and microphone, -9 to 16 dB in nine of ten; and the gap before the noise, the mean free path between two walls. The
    distance is ours: 0.3 to 5 m, at most half the floor's diagonal.

    Args:
        parameters: for each room: the size (small or medium), length, width, height, absorption, distance, and where
            the noise begins; uniform in [0, 1).
        sample_rate_hz: taps per second.
    """
    size, length, width, height, absorption, distance, offset = parameters.double().unbind(dim=1)[:7]
    (small, medium), is_small = ROOM_SIDES_M, size < 0.5
    length, width = (torch.where(is_small, _between(small, side), _between(medium, side)) for side in (length, width))
    height, absorption = _between(ROOM_HEIGHT_M, height), _between(ABSORPTION, absorption)
    volume_m3 = length * width * height
    surface_m2 = 2 * (length * width + length * height + width * height)
    farthest = (0.5 * torch.hypot(length, width)).clamp(max=MAX_DISTANCE_M)
    distance_m = MIN_DISTANCE_M + (farthest - MIN_DISTANCE_M) * distance
    decay_s = 24 * math.log(10) / SPEED_OF_SOUND_M_S * volume_m3 / (-surface_m2 * torch.log1p(-absorption))
    direct_ratio = surface_m2 * absorption / (1 - absorption) / (16 * math.pi * distance_m.square())
    gap_s = 4 * volume_m3 / surface_m2 / SPEED_OF_SOUND_M_S

    num_taps = round(MAX_ROOM_S * sample_rate_hz)
    time_s = torch.arange(num_taps, device=parameters.device) / sample_rate_hz
    envelope = torch.exp((-3 * math.log(10) / decay_s)[:, None] * (time_s - gap_s[:, None])).float()
    envelope = torch.where(time_s >= gap_s[:, None], envelope, 0.0)
    envelope[:, 0] = 0.0  # the direct path's
    echoes_energy = envelope.square().sum(dim=1).clamp(min=SILENCE)
    gain = (1.0 / (direct_ratio.float() * echoes_energy)).sqrt()
    taps = envelope * gain[:, None] * white_noise(offset, num_samples=num_taps)
    taps[:, 0] = 1.0
    return taps


def fast_fft_size(at_least: int) -> int:
    """Returns the smallest size from `at_least` on that is a product of 2, 3 and 5 and even: quick to transform."""
    best = 1 << (at_least - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            doubled = threes << max(1, (-(-at_least // threes) - 1).bit_length())
            best = min(best, doubled) if doubled >= at_least else best
            threes *= 3
        fives *= 5
    return max(best, 2)


def _between(bounds: tuple[float, float], uniform: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * uniform
