"""What a recording session does to clean speech: a room, noise, a channel and a level, all random.

The room is the statistical model of late reverberation of J.-D. Polack (La transmission de l'énergie sonore dans les
salles, thesis, Le Mans 1988): Gaussian noise under an exponential decay of 60 dB in the reverberation time, after the
direct sound. Filters work on spectra, so numpy alone is enough.
"""

import math

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Reals = NDArray[np.floating]

_EQUALISER_KNOTS_HZ = (50.0, 150.0, 400.0, 1_000.0, 2_500.0, 5_000.0, 8_000.0)


def record(
    clean: Samples, rng: np.random.Generator, *, sample_rate_hz: int, min_snr_db: float, max_snr_db: float
) -> Samples:
    """Returns clean speech as a random session records it: as many samples, within [-1, 1]."""
    size = fast_length(len(clean) + sample_rate_hz // 2)
    frequencies_hz = np.fft.rfftfreq(size, 1 / sample_rate_hz)
    room = np.fft.rfft(_impulse_response(rng, sample_rate_hz=sample_rate_hz), size)
    speech = np.fft.irfft(np.fft.rfft(clean, size) * room, size)[: len(clean)]
    noise = _coloured_noise(rng, frequencies_hz, size=size)[: len(clean)]
    snr_db = rng.uniform(min_snr_db, max_snr_db)
    noise *= _rms(speech) / _rms(noise) * 10 ** (-snr_db / 20)
    channel = _channel_gain(rng, frequencies_hz)
    recorded = np.fft.irfft(np.fft.rfft(speech + noise, size) * channel, size)[: len(clean)]
    level = 10 ** (rng.uniform(-35.0, -15.0) / 20) / _rms(recorded)
    loudest = np.abs(recorded).max() * level
    scaled: Samples = (recorded * (level / max(1.0, loudest / 0.99))).astype(np.float32)
    return scaled


def resample(samples: Samples, *, from_hz: int, to_hz: int) -> Samples:
    """Returns band-limited speech at another rate, by cutting or extending its spectrum.

    The zeros that fill the transform keep the end from reaching the start. Returns floor(n · to / from) samples.
    """
    divisor = math.gcd(from_hz, to_hz)
    up, down = to_hz // divisor, from_hz // divisor
    blocks = fast_length(-(-len(samples) // down) + 1)
    spectrum = np.fft.rfft(samples, blocks * down)
    num_bins = blocks * up // 2 + 1
    resized = np.zeros(num_bins, dtype=spectrum.dtype)
    resized[: min(num_bins, len(spectrum))] = spectrum[:num_bins]
    resampled = np.fft.irfft(resized, blocks * up) * (up / down)
    return resampled[: len(samples) * up // down].astype(np.float32)


def fast_length(minimum: int) -> int:
    """Returns the smallest of 2ᵏ, 3·2ᵏ and 5·2ᵏ that is at least `minimum`: lengths whose transforms are fast."""
    return min(factor << max(0, math.ceil(math.log2(minimum / factor))) for factor in (1, 3, 5))


def _impulse_response(rng: np.random.Generator, *, sample_rate_hz: int) -> Samples:
    reverberation_s = math.exp(rng.uniform(math.log(0.1), math.log(0.5)))
    direct_to_reverberant_db = rng.uniform(0.0, 15.0)
    time_s = np.arange(int(reverberation_s * sample_rate_hz)) / sample_rate_hz
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3.0 * time_s / reverberation_s)
    tail[: int(rng.uniform(0.001, 0.008) * sample_rate_hz)] = 0.0
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail.astype(np.float32)


def _coloured_noise(rng: np.random.Generator, frequencies_hz: Reals, *, size: int) -> Samples:
    """Noise whose power falls as 1/fᵃ above 50 Hz, with a random exponent between white (0) and brown (2)."""
    exponent = rng.uniform(0.0, 2.0)
    white = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    return np.fft.irfft(white * np.maximum(frequencies_hz, 50.0) ** (-exponent / 2), size).astype(np.float32)


def _channel_gain(rng: np.random.Generator, frequencies_hz: Reals) -> Reals:
    """A random equaliser between a high-pass and a low-pass, as gains per frequency (fourth-order Butterworth)."""
    gains_db = rng.normal(0.0, 3.0, size=len(_EQUALISER_KNOTS_HZ))
    audible = np.maximum(frequencies_hz, 1.0)
    equaliser = 10 ** (np.interp(np.log(audible), np.log(_EQUALISER_KNOTS_HZ), gains_db) / 20)
    high_pass_hz = rng.uniform(30.0, 250.0)
    low_pass_hz = rng.uniform(3_400.0, 8_000.0)
    return equaliser / np.sqrt((1 + (high_pass_hz / audible) ** 8) * (1 + (audible / low_pass_hz) ** 8))


def _rms(samples: Reals) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) + 1e-9
