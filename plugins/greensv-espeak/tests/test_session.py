import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from greensv_espeak.session import fast_length, record, resample

RATE = 16_000


def tone(frequency_hz: float, *, rate_hz: int, num_samples: int) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / rate_hz).astype(np.float32)


def test_resampling_keeps_a_tone_s_frequency_and_amplitude() -> None:
    resampled = resample(tone(1_000, rate_hz=22_050, num_samples=44_100), from_hz=22_050, to_hz=RATE)
    assert len(resampled) == 32_000
    expected = tone(1_000, rate_hz=RATE, num_samples=32_000)
    assert np.abs(resampled - expected)[500:-500].max() < 2e-3


def test_resampling_agrees_with_scipy_inside_the_signal() -> None:
    noise = np.random.default_rng(0).standard_normal(22_050)
    low = scipy.signal.sosfiltfilt(scipy.signal.butter(8, 4_000, fs=22_050, output="sos"), noise).astype(np.float32)
    ours = resample(low, from_hz=22_050, to_hz=RATE)
    theirs = scipy.signal.resample(low, RATE)
    assert np.abs(ours - theirs)[1_000:-1_000].max() < 2e-2 * np.abs(theirs).max()


def test_frequencies_above_the_new_limit_are_removed() -> None:
    resampled = resample(tone(9_000, rate_hz=22_050, num_samples=44_100), from_hz=22_050, to_hz=RATE)
    assert np.abs(resampled)[500:-500].max() < 1e-2


@given(st.integers(5, 5_000_000))
def test_fast_lengths_are_long_enough_and_smooth(minimum: int) -> None:
    length = fast_length(minimum)
    assert minimum <= length < 2 * minimum
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    assert length == 1


@pytest.mark.parametrize("seed", range(8))
def test_a_recording_is_as_long_as_the_speech_and_never_clips(seed: int) -> None:
    clean = tone(300, rate_hz=RATE, num_samples=20_000)
    recorded = record(clean, np.random.default_rng(seed), sample_rate_hz=RATE, min_snr_db=0, max_snr_db=20)
    assert recorded.dtype == np.float32
    assert recorded.shape == clean.shape
    assert np.abs(recorded).max() < 1
    level_db = 20 * np.log10(np.sqrt(np.mean(recorded**2)))
    assert -36 < level_db < -14


def test_less_noise_leaves_a_cleaner_tone() -> None:
    clean = tone(1_000, rate_hz=RATE, num_samples=32_000)

    def share_of_tone(snr_db: float) -> float:
        rng = np.random.default_rng(1)
        recorded = record(clean, rng, sample_rate_hz=RATE, min_snr_db=snr_db, max_snr_db=snr_db)
        spectrum = np.abs(np.fft.rfft(recorded * np.hanning(len(recorded)))) ** 2
        return float(spectrum[1_990:2_011].sum() / spectrum.sum())

    shares = [share_of_tone(snr_db) for snr_db in (-10, 0, 10, 30)]
    assert shares == sorted(shares)
    assert shares[0] < 0.5
    assert shares[-1] > 0.98


def test_silence_stays_a_number() -> None:
    recorded = record(
        np.zeros(8_000, dtype=np.float32), np.random.default_rng(0), sample_rate_hz=RATE, min_snr_db=0, max_snr_db=0
    )
    assert np.isfinite(recorded).all()
