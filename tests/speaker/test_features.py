import math

import pytest
import torch
from torch import Tensor

from greensv.config import FeatureConfig
from greensv.errors import ConfigError, DataError
from greensv.speaker.features import CPU_GROUP_VALUES, Fbank, subtract_mean

kaldi = pytest.importorskip("torchaudio.compliance.kaldi")


def reference(waveform: Tensor, **changes: float | bool | str) -> Tensor:
    settings = {"num_mel_bins": 80, "use_energy": True, "high_freq": -400, "energy_floor": 1e-10, **changes}
    settings = {"window_type": "povey", **settings}
    features: Tensor = kaldi.fbank(waveform[None], snip_edges=False, dither=0, **settings)
    return features


def voices(num_samples: int = 24_000, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Three synthetic voices: harmonics under a moving envelope, a little noise, and an offset."""
    time_s = torch.arange(num_samples, dtype=torch.float64) / 16_000
    noise = torch.randn(3, num_samples, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pitches = torch.tensor([97.0, 143.0, 218.0], dtype=torch.float64)[:, None]
    harmonics = sum(torch.sin(2 * math.pi * k * pitches * time_s) / k for k in range(1, 25))
    assert isinstance(harmonics, Tensor)
    return (0.1 * harmonics * torch.sin(5 * time_s).abs() + 1e-4 * noise + 0.01).to(dtype)


def test_features_equal_kaldis_in_double_precision() -> None:
    waveforms = voices()
    features, lengths = Fbank(FeatureConfig())(waveforms)
    assert features.dtype == torch.float64
    assert lengths.tolist() == [150, 150, 150]
    for item, waveform in zip(features, waveforms, strict=True):
        torch.testing.assert_close(item, reference(waveform), rtol=0, atol=1e-6)


def test_features_equal_kaldis_in_single_precision_on_average() -> None:
    waveforms = voices(dtype=torch.float32)
    features, _ = Fbank(FeatureConfig())(waveforms)
    assert features.dtype == torch.float32
    for item, waveform in zip(features, waveforms, strict=True):
        assert (item - reference(waveform)).abs().mean() < 1e-5


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (FeatureConfig(num_mel_bins=40, use_energy=False), {"num_mel_bins": 40, "use_energy": False}),
        (FeatureConfig(frame_length_ms=32, frame_shift_ms=8), {"frame_length": 32, "frame_shift": 8}),
        (FeatureConfig(frame_length_ms=20, frame_shift_ms=20), {"frame_length": 20, "frame_shift": 20}),
        (FeatureConfig(low_freq_hz=100.0, high_freq_hz=3_800.0), {"low_freq": 100, "high_freq": 3800}),
        (FeatureConfig(high_freq_hz=0.0), {"high_freq": 0}),
        (FeatureConfig(sample_rate_hz=8_000, num_mel_bins=23), {"sample_frequency": 8_000, "num_mel_bins": 23}),
        (FeatureConfig(sample_rate_hz=22_050), {"sample_frequency": 22_050}),
    ],
)
def test_every_setting_is_kaldis(config: FeatureConfig, changes: dict[str, float | bool]) -> None:
    waveforms = voices()
    features, _ = Fbank(config)(waveforms)
    assert features.shape[2] == config.num_features
    for item, waveform in zip(features, waveforms, strict=True):
        torch.testing.assert_close(item, reference(waveform, **changes), rtol=0, atol=1e-6)


def test_items_of_a_padded_batch_equal_items_alone() -> None:
    waveforms = voices()
    lengths = torch.tensor([24_000, 17_345, 400])
    for item, length in enumerate(lengths.tolist()):
        waveforms[item, length:] = torch.nan
    features, frame_lengths = Fbank(FeatureConfig())(waveforms, lengths)
    assert frame_lengths.tolist() == [150, 108, 3]
    for item, (length, num_frames) in enumerate(zip(lengths.tolist(), frame_lengths.tolist(), strict=True)):
        alone = reference(waveforms[item, :length])
        torch.testing.assert_close(features[item, :num_frames], alone, rtol=0, atol=1e-6)
        assert bool((features[item, num_frames:] == 0).all())


def test_an_item_shorter_than_a_window_is_mirrored_until_it_fills_it() -> None:
    short = voices()[:1, :100]
    features, lengths = Fbank(FeatureConfig())(short)
    assert lengths.tolist() == [1]
    # The only frame reaches from sample -120 to 279; written out by hand and framed by torchaudio without its mirror.
    frame = torch.cat((short[0, 80:], short[0].flip(0), short[0], short[0].flip(0), short[0, :80]))
    expected = kaldi.fbank(
        frame[None],
        num_mel_bins=80,
        use_energy=True,
        window_type="povey",
        dither=0,
        high_freq=-400,
        energy_floor=1e-10,
        snip_edges=True,
    )
    assert frame.shape == (400,)
    torch.testing.assert_close(features[0], expected, rtol=0, atol=1e-6)


def test_hammings_window_is_kaldis() -> None:
    waveforms = voices()
    features, _ = Fbank(FeatureConfig(window="hamming"))(waveforms)
    for waveform, found in zip(waveforms, features, strict=True):
        torch.testing.assert_close(found, reference(waveform, window_type="hamming"), rtol=0, atol=1e-6)


def test_silence_has_kaldis_floor() -> None:
    features, _ = Fbank(FeatureConfig())(torch.zeros(1, 1_600))
    torch.testing.assert_close(features, torch.full((1, 10, 81), math.log(2**-23)))


def test_groups_of_items_do_not_show_in_the_features() -> None:
    waveforms = voices(16_000).repeat(4, 1) * torch.linspace(0.1, 1, 12, dtype=torch.float64)[:, None]
    assert 12 * 100 * 400 < CPU_GROUP_VALUES < 36 * 100 * 400
    fbank = Fbank(FeatureConfig())
    many = waveforms.repeat(3, 1)
    torch.testing.assert_close(fbank(many)[0][:12], fbank(waveforms)[0], rtol=0, atol=1e-9)


def test_features_are_single_precision_under_autocast() -> None:
    waveforms = voices(dtype=torch.float32)
    fbank = Fbank(FeatureConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, _ = fbank(waveforms)
    assert torch.equal(features, fbank(waveforms)[0])


def test_half_precision_waveforms_are_computed_in_single_precision() -> None:
    waveforms = voices(dtype=torch.float32).bfloat16()
    fbank = Fbank(FeatureConfig())
    assert torch.equal(fbank(waveforms)[0], fbank(waveforms.float())[0])


def test_the_filterbank_is_no_part_of_a_checkpoint() -> None:
    assert Fbank(FeatureConfig()).state_dict() == {}


def test_a_batch_too_short_for_a_frame_is_refused() -> None:
    with pytest.raises(DataError, match="79 samples make no frame; an utterance must have 160 or more"):
        Fbank(FeatureConfig())(torch.zeros(2, 79))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FeatureConfig(frame_shift_ms=30.0), "400 samples every 480"),
        (FeatureConfig(frame_shift_ms=0.01), "every 0;"),
        (FeatureConfig(high_freq_hz=8_001.0), "half the sample rate of 16000 Hz"),
        (FeatureConfig(high_freq_hz=-7_990.0), "filters from 20.0 Hz to 10.0 Hz"),
        (FeatureConfig(sample_rate_hz=8_000, high_freq_hz=7_600.0), "<= 4000"),
    ],
)
def test_settings_that_make_no_filterbank_are_refused(config: FeatureConfig, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Fbank(config)
    assert message in str(caught.value)


def test_the_mean_of_each_item_becomes_zero() -> None:
    features = torch.randn(3, 40, 5) + torch.randn(3, 1, 5)
    torch.testing.assert_close(subtract_mean(features).mean(dim=1), torch.zeros(3, 5), rtol=0, atol=1e-6)


def test_the_mean_is_that_of_valid_frames() -> None:
    features = torch.tensor([[[1.0], [3.0], [torch.nan]], [[1.0], [2.0], [6.0]]])
    centred = subtract_mean(features, torch.tensor([2, 3]))
    assert centred.tolist() == [[[-1.0], [1.0], [0.0]], [[-2.0], [-1.0], [3.0]]]
