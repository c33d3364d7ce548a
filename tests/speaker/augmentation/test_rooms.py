import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import next_fast_len
from scipy.signal import fftconvolve

from greensv.speaker.augmentation.rooms import fast_fft_size, make_rooms, reverberate

RATE = 16_000


def test_reverberation_is_the_convolution_from_the_direct_path_on_at_the_power_of_before():
    rng = np.random.default_rng(1)
    crops = 0.1 * rng.normal(size=(4, 5000))
    rooms = 0.02 * rng.normal(size=(4, 1200)) * np.exp(-np.arange(1200) / 300)
    peaks = [0, 40, 700, 1199]
    rooms[range(4), peaks] = [1.0, -0.9, 2.0, 0.5]
    wet = reverberate(torch.tensor(crops), torch.tensor(rooms)).numpy()
    for crop, room, peak, found in zip(crops, rooms, peaks, wet, strict=True):
        expected = fftconvolve(crop, room)[peak : peak + 5000]
        expected *= np.sqrt(np.mean(crop**2) / np.mean(expected**2))
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_room_without_echoes_changes_nothing_however_late_and_quiet_its_direct_path():
    crop = torch.randn(1, 2000)
    room = torch.zeros(1, 300)
    room[0, 170] = 0.01
    torch.testing.assert_close(reverberate(crop, room), crop)


def test_an_impulse_response_may_be_longer_than_the_crop():
    crop, room = torch.randn(1, 100, dtype=torch.float64), torch.randn(1, 900, dtype=torch.float64)
    room[0, 3] = 50.0
    expected = fftconvolve(crop[0].numpy(), room[0].numpy())[3:103]
    found = reverberate(crop, room)[0].numpy()
    assert np.corrcoef(found, expected)[0, 1] == pytest.approx(1.0)
    assert np.mean(found**2) == pytest.approx(float(crop.square().mean()))


def test_silent_crops_and_silent_impulse_responses_leave_the_crop():
    crops = torch.stack([torch.zeros(400), torch.randn(400)])
    rooms = torch.stack([torch.randn(50), torch.zeros(50)])
    assert torch.equal(reverberate(crops, rooms), crops)


@given(st.integers(2, 200_000))
def test_fft_sizes_are_even_products_of_two_three_and_five_and_the_smallest(at_least: int):
    size = fast_fft_size(at_least)
    assert size % 2 == 0
    # scipy's oracle for real transforms knows 2, 3 and 5 too; twice an odd one of its sizes is even.
    assert size == 2 * next_fast_len(math.ceil(at_least / 2), real=True)


def parameters(**numbers: float) -> torch.Tensor:
    names = ("size", "length", "width", "height", "absorption", "distance", "offset", "unused")
    return torch.tensor([[numbers.get(name, 0.5) for name in names]])


def decay_s(taps: torch.Tensor) -> float:
    """Reverberation time by Schroeder's backward integration, fitted from -5 dB to -25 dB of the echoes."""
    energy = taps[1:].double().square().flip(0).cumsum(0).flip(0)
    level_db = 10 * (energy / energy[0]).log10().numpy()
    chosen = np.flatnonzero((level_db < -5) & (level_db > -25))
    slope = np.polyfit(chosen / RATE, level_db[chosen], 1)[0]
    return -60 / slope


def test_echoes_decay_as_eyring_says():
    # A small room of 5.5 m × 5.5 m × 3.5 m with absorption 0.35, by hand: V = 105.875 m³, S = 137.5 m²,
    # T = 24 ln 10 / 343 · 105.875 / (137.5 · -ln 0.65) = 0.2880 s.
    room = make_rooms(parameters(size=0.2, absorption=0.25), sample_rate_hz=RATE)[0]
    assert decay_s(room) == pytest.approx(0.2880, rel=0.1)
    # A medium one, 20 m × 20 m × 3.5 m with absorption 0.5: V = 1400, S = 1080, T = 0.3013 s.
    room = make_rooms(parameters(size=0.8), sample_rate_hz=RATE)[0]
    assert decay_s(room) == pytest.approx(0.3013, rel=0.1)


def test_the_direct_path_is_stronger_than_the_echoes_as_the_distance_says():
    # The small room above at 0.3 + 0.5 · (3.889 - 0.3) = 2.0945 m with absorption 0.5:
    # direct / echoes = S α / (1 - α) / (16 π r²) = 137.5 / 220.5 = 0.6235; the noise adds its own randomness.
    rooms = make_rooms(
        parameters(size=0.2).repeat(20, 1).index_put_((torch.arange(20), torch.tensor(6)), torch.linspace(0, 0.9, 20)),
        sample_rate_hz=RATE,
    )
    ratios = rooms[:, 0].square() / rooms[:, 1:].square().sum(1)
    assert float(ratios.mean()) == pytest.approx(0.6235, rel=0.1)
    near = make_rooms(parameters(size=0.2, distance=0.0), sample_rate_hz=RATE)[0]
    assert float(near[0] ** 2 / near[1:].square().sum()) > 20


def test_echoes_begin_after_the_mean_free_path():
    # 4 V / S / c = 4 · 105.875 / 137.5 / 343 = 8.98 ms: no tap between the direct path and sample 144.
    room = make_rooms(parameters(size=0.2), sample_rate_hz=RATE)[0]
    assert room[0] == 1.0
    assert not room[1:143].any()
    assert room[144:400].abs().min() > 0


def test_all_rooms_are_usable():
    rooms = make_rooms(torch.rand(200, 8, generator=torch.Generator().manual_seed(1)), sample_rate_hz=8_000)
    assert rooms.shape == (200, 8_000)
    assert rooms.isfinite().all()
    assert (rooms[:, 0] == 1.0).all()
    assert (rooms[:, 1:].square().sum(1) > 1e-4).all()
