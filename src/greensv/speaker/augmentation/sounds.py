"""Built-in noise and music, made on the device from a few random numbers each."""

import math
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from greensv.speaker.augmentation.rooms import fast_fft_size
from greensv.speaker.augmentation.white_noise import white_noise

MAX_TILT = 2.0
"""Noise power falls with frequency to the power of 0 (white) to -2 (brown)."""
FLAT_BELOW_HZ = 60.0
"""Below it noise power no longer rises: there is hardly speech, and brown noise would have all its power there."""
MODULATION_HZ = (0.2, 4.0)
MAX_SWELL_DB = 10.0
"""Noise swells and fades by up to so many dB around its mean level, as a sine of one of the above frequencies."""

CHORDS = ((0, 5, 7, 0), (0, 9, 5, 7), (0, 7, 9, 5), (0, 2, 7, 0), (0, 5, 10, 3), (0, 8, 3, 10))
"""Roots of common progressions of four chords, in semitones above the key."""
MINOR, MAJOR = (5, 10, 12, 15), (2, 4, 5, 6)
"""Bass, root, third and fifth of a chord in just intonation: whole multiples of one frequency, so that a chord is
periodic and one table holds it."""
NUM_HARMONICS = 6
LOWEST_KEY_HZ, KEY_SEMITONES = 80.0, 24
"""Keys are spread evenly over two octaves; at sample rates below 16 kHz, lower in proportion."""
BEATS_PER_S = (1.0, 4.0)
DECAY_S = (0.1, 1.5)
ATTACK_S = 0.01
_TABLE_BITS, _PHASE_BITS = 12, 32
_KEYS_PER_SEMITONE = 16
_NUM_KEYS = KEY_SEMITONES * _KEYS_PER_SEMITONE


def make_noise(
    parameters: Float[Tensor, "sounds parameters"], *, num_samples: int, sample_rate_hz: int
) -> Float[Tensor, "sounds samples"]:
    """Returns coloured Gaussian noise, its level slowly modulated; of no particular power.

    Args:
        parameters: for each noise: where its white noise begins, the tilt of its spectrum, and rate, depth and phase
            of the modulation; uniform in [0, 1).
        num_samples: samples of each noise.
        sample_rate_hz: samples per second.
    """
    where, tilt, rate, depth, phase = (column[:, None] for column in parameters.unbind(dim=1)[:5])
    fft_size = fast_fft_size(num_samples)
    # The spectrum of white noise is white noise too, so only the way back is computed.
    spectrum = torch.view_as_complex(white_noise(where[:, 0], num_samples=fft_size + 2).reshape(len(where), -1, 2))
    frequency = torch.arange(fft_size // 2 + 1, device=parameters.device) * (sample_rate_hz / fft_size)
    octaves = (frequency.clamp(min=FLAT_BELOW_HZ) / FLAT_BELOW_HZ).log()
    noise = torch.fft.irfft(spectrum * torch.exp(-0.5 * MAX_TILT * tilt * octaves), n=fft_size, norm="ortho")[
        :, :num_samples
    ]
    time_s = torch.arange(num_samples, device=parameters.device) / sample_rate_hz
    swing = torch.sin(2 * math.pi * (_between(MODULATION_HZ, rate) * time_s + phase))
    swelling: Tensor = noise * torch.exp(math.log(10) / 20 * MAX_SWELL_DB * depth * swing)
    return swelling


def make_music(
    parameters: Float[Tensor, "sounds parameters"], *, num_samples: int, sample_rate_hz: int
) -> Float[Tensor, "sounds samples"]:
    """Returns chords of decaying harmonic tones, struck in a regular beat; of no particular power.

    Args:
        parameters: for each piece: key, progression, minor or major, beats per second, where in the beat it begins,
            how dull the tones are, how quickly they decay, and how strong their even harmonics are; uniform in [0, 1).
        num_samples: samples of each piece.
        sample_rate_hz: samples per second.
    """
    key, progression, mode, tempo, start, dullness, decay, evenness = parameters.double().unbind(dim=1)[:8]
    # Whole numbers, phases too: a rounding error that moves a note's onset would differ between devices and batches.
    beat_samples = (sample_rate_hz / _between(BEATS_PER_S, tempo)).round().float()[:, None]
    lead = (start[:, None] * 4 * beat_samples).floor().float()
    samples = torch.arange(num_samples, device=parameters.device) + lead
    num_beats = ((samples + 0.5) / beat_samples).floor()
    since = samples - num_beats * beat_samples
    chord_now = num_beats.long() & (len(CHORDS[0]) - 1)

    roots = _chord_roots(parameters.device)[(progression * len(CHORDS)).long().clamp(max=len(CHORDS) - 1)]
    keys = (key * _NUM_KEYS).long().clamp(max=_NUM_KEYS - 1)
    is_minor = (mode < 0.5).long()
    steps = _phase_steps(sample_rate_hz, parameters.device)[is_minor[:, None], keys[:, None] + roots]
    phase = (steps.gather(1, chord_now) * since.long()) & (2**_PHASE_BITS - 1)
    table = _chord(is_minor, dullness=dullness.float(), evenness=evenness.float())
    tones = table.gather(1, phase >> (_PHASE_BITS - _TABLE_BITS))
    since_s = since / sample_rate_hz
    music: Tensor = tones * torch.exp(-since_s / _between(DECAY_S, decay).float()[:, None])
    return music * (since_s / ATTACK_S).clamp(max=1.0)


@cache
def _chord_roots(device: torch.device) -> Int[Tensor, "progressions chords"]:
    return torch.tensor(CHORDS, device=device) * _KEYS_PER_SEMITONE


@cache
def _phase_steps(sample_rate_hz: int, device: torch.device) -> Int[Tensor, "modes keys"]:
    """How far a chord's phase moves each sample, by key: its own frequency is a fraction of its root's."""
    lowest_hz = LOWEST_KEY_HZ * min(1.0, sample_rate_hz / 16_000)
    num_keys = _NUM_KEYS + max(map(max, CHORDS)) * _KEYS_PER_SEMITONE
    frequencies_hz = [lowest_hz * 2 ** (key / _KEYS_PER_SEMITONE / 12) for key in range(num_keys)]
    per_cycle = 2**_PHASE_BITS / sample_rate_hz
    steps = [[round(freq_hz / chord[1] * per_cycle) for freq_hz in frequencies_hz] for chord in (MAJOR, MINOR)]
    return torch.tensor(steps, device=device)


@cache
def _chord_tones(device: torch.device) -> Int[Tensor, "modes tones"]:
    return torch.tensor((MAJOR, MINOR), device=device)


def _chord(
    is_minor: Int[Tensor, " sounds"], *, dullness: Float[Tensor, " sounds"], evenness: Float[Tensor, " sounds"]
) -> Float[Tensor, "sounds phases"]:
    """One period of each piece's chord: harmonic h of a tone has the amplitude h^-(0.5 to 2.5), even ones less."""
    device = dullness.device
    harmonics = torch.arange(1, NUM_HARMONICS + 1, device=device)
    amplitude = harmonics ** -(0.5 + 2 * dullness[:, None])
    amplitude = torch.where(harmonics % 2 == 0, amplitude * evenness[:, None], amplitude)
    multiples = (_chord_tones(device)[is_minor][:, :, None] * harmonics).flatten(1)
    spectrum = torch.zeros(len(dullness), max(MINOR + MAJOR) * NUM_HARMONICS + 1, device=device)
    spectrum.scatter_add_(1, multiples, amplitude.repeat(1, len(MINOR)))
    # irfft of -i/2·n·a at bin m is a·sin(2π m k / n).
    size = 2**_TABLE_BITS
    chord: Tensor = torch.fft.irfft(torch.complex(torch.zeros_like(spectrum), spectrum * (-size / 2)), n=size)
    return chord


def _between(bounds: tuple[float, float], uniform: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * uniform
