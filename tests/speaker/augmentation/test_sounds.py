from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks, welch

from greensv.speaker.augmentation.sounds import make_music, make_noise
from greensv.speaker.augmentation.white_noise import POOL_SAMPLES, white_noise

RATE = 16_000
UNIFORM = torch.rand(24, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("make", [make_noise, make_music])
def test_sounds_do_not_depend_on_which_others_are_made_with_them(make: Callable[..., torch.Tensor]):
    whole = make(UNIFORM, num_samples=9_999, sample_rate_hz=RATE)
    parts = [make(part, num_samples=9_999, sample_rate_hz=RATE) for part in UNIFORM.split([5, 7, 12])]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=1e-5)
    assert whole.dtype == torch.float32


@pytest.mark.parametrize("make", [make_noise, make_music])
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_sounds_are_audible_and_all_different(make: Callable[..., torch.Tensor], rate: int):
    sounds = make(UNIFORM, num_samples=rate, sample_rate_hz=rate)
    assert sounds.isfinite().all()
    assert (sounds.square().mean(1) > 1e-3).all()
    likeness = np.corrcoef(sounds.numpy()) - np.eye(len(sounds))
    assert np.abs(likeness).max() < 0.9


def noise(*, tilt: float, depth: float, seconds: int = 20) -> np.ndarray:
    parameters = torch.tensor([[0.3, tilt, 0.5, depth, 0.0]])
    return make_noise(parameters, num_samples=seconds * RATE, sample_rate_hz=RATE)[0].double().numpy()


@pytest.mark.parametrize(("tilt", "slope"), [(0.0, 0.0), (0.5, -1.0), (0.999, -2.0)])
def test_the_power_of_noise_falls_with_frequency_as_the_tilt_says(tilt: float, slope: float):
    frequency, power = welch(noise(tilt=tilt, depth=0.0), fs=RATE, nperseg=4096)
    chosen = (frequency > 100) & (frequency < 7_000)
    assert np.polyfit(np.log(frequency[chosen]), np.log(power[chosen]), 1)[0] == pytest.approx(slope, abs=0.05)


def test_noise_swells_and_fades_by_ten_decibels_at_the_most():
    # Rate 0.5 is 2.1 Hz: the level of pieces of 1/21 s reaches +10 dB and -10 dB around the mean level.
    pieces = noise(tilt=0.0, depth=0.9999).reshape(-1, RATE // 20)
    level_db = 10 * np.log10(np.mean(pieces**2, axis=1))
    still = 10 * np.log10(np.mean(noise(tilt=0.0, depth=0.0) ** 2))
    assert level_db.max() - still == pytest.approx(10.0, abs=1.0)
    assert level_db.min() - still == pytest.approx(-10.0, abs=1.0)


def test_music_is_made_of_harmonic_tones():
    # Key 0 is 80 Hz, progression 0 begins with its own chord, minor, one beat a second: bass 40, root 80, third 96 and
    # fifth 120 Hz, of which only these and their harmonics sound. No even harmonics.
    parameters = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.999, 0.0]])
    music = make_music(parameters, num_samples=RATE, sample_rate_hz=RATE)[0].numpy()
    spectrum = np.abs(np.fft.rfft(music * np.hanning(RATE)))  # one Hz a bin
    peaks = set(find_peaks(spectrum, height=spectrum.max() / 20)[0])
    assert peaks == {tone * harmonic for tone in (40, 80, 96, 120) for harmonic in (1, 3, 5)}


def test_music_is_struck_anew_at_each_beat():
    # Tempo 0 is one beat a second, the quickest decay.
    parameters = torch.tensor([[0.3, 0.4, 0.7, 0.0, 0.0, 0.5, 0.0, 0.5]])
    music = make_music(parameters, num_samples=4 * RATE, sample_rate_hz=RATE)[0]
    power = music.reshape(4, 10, -1).square().mean(2)
    assert (power[:, 0] > 100 * power[:, 5]).all()


def test_white_noise_is_gaussian_of_deviation_one_and_cut_where_it_is_told():
    pieces = white_noise(torch.tensor([0.0, 0.25, 0.25, 0.9999999]), num_samples=100_000)
    assert pieces.mean(1).abs().max() < 0.02
    assert (pieces.std(1) - 1).abs().max() < 0.02
    assert torch.equal(pieces[1], pieces[2])
    assert not torch.equal(pieces[0], pieces[1])


def test_white_noise_longer_than_the_pool_repeats():
    long = white_noise(torch.tensor([0.5]), num_samples=POOL_SAMPLES + 10)[0]
    assert torch.equal(long[:10], long[POOL_SAMPLES:])
