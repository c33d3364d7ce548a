import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import resample_poly

from greensv.speaker.training.speed import play_faster, samples_needed

RATE = 16_000


@pytest.mark.parametrize(("speed", "up", "down"), [(0.9, 10, 9), (1.1, 10, 11), (2.0, 1, 2), (0.5, 2, 1)])
def test_it_is_a_resampling_by_the_inverse_speed(speed: float, up: int, down: int):
    # A sound below 2 kHz: what the two filters do near half the sample rate is theirs.
    rng = np.random.default_rng(1)
    spectrum = np.zeros(8001, dtype=complex)
    spectrum[:1000] = rng.normal(size=1000) + 1j * rng.normal(size=1000)
    sound = np.fft.irfft(spectrum)
    played = play_faster(torch.tensor(sound[None]), speed=speed, num_samples=int(7_000 / speed))[0].numpy()
    expected = resample_poly(sound, up, down)[: int(7_000 / speed)]
    inner = slice(200, -200)
    assert np.abs(played[inner] - expected[inner]).max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.37])
def test_pitch_and_tempo_change_together(speed: float):
    needed = samples_needed(RATE, speed)
    tone = torch.sin(2 * torch.pi * 500 * torch.arange(needed) / RATE)[None]
    played = play_faster(tone, speed=speed, num_samples=RATE)[0].numpy()
    assert len(played) == RATE
    assert np.argmax(np.abs(np.fft.rfft(played * np.hanning(RATE)))) == round(500 * speed)


def test_speed_one_returns_the_samples():
    waveforms = torch.randn(2, 300)
    assert torch.equal(play_faster(waveforms, speed=1.0, num_samples=250), waveforms[:, :250])


@given(num_samples=st.integers(1, 5000), speed=st.floats(0.5, 2.0))
def test_what_is_needed_suffices(num_samples: int, speed: float):
    needed = samples_needed(num_samples, speed)
    assert needed == pytest.approx(num_samples * speed, abs=1 + num_samples * 5e-4)


@pytest.mark.parametrize("speed", [0.5, 0.9, 0.953, 1.1, 1.27, 2.0])
@pytest.mark.parametrize("num_samples", [1, 17, 4000])
def test_as_many_samples_come_out_as_asked(speed: float, num_samples: int):
    waveforms = torch.randn(3, samples_needed(num_samples, speed))
    assert play_faster(waveforms, speed=speed, num_samples=num_samples).shape == (3, num_samples)


def test_too_few_samples_are_refused():
    with pytest.raises(AssertionError):
        play_faster(torch.randn(1, 100), speed=1.1, num_samples=100)
