from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.transforms import Resample

from greensv.speaker.audio.resampling import resample, resampled_length
from greensv.speaker.audio.store import AudioStore, probe_audio, read_audio, read_resampled
from greensv.speaker.corpora.corpus import build_utterances

RATES = [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000]


def noise(num_samples: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.5, 0.5, num_samples).astype(np.float32)


@pytest.mark.parametrize("from_hz", RATES)
@pytest.mark.parametrize("seconds", [0.013, 0.5, 2.0, 3.3])
def test_resampling_agrees_with_torchaudio_on_the_whole(from_hz: int, seconds: float) -> None:
    samples = noise(int(seconds * from_hz))
    expected = Resample(from_hz, 16_000)(torch.from_numpy(samples)).numpy()
    length = resampled_length(len(samples), from_hz=from_hz, to_hz=16_000)
    got = resample(
        lambda begin, num: samples[begin : begin + num],
        num_samples=len(samples),
        from_hz=from_hz,
        to_hz=16_000,
        start=0,
        stop=length,
    )
    assert len(got) == length == len(expected)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(from_hz=st.sampled_from(RATES), start=st.integers(0, 40_000), num_samples=st.integers(1, 30_000))
def test_a_part_equals_the_part_of_the_whole_bit_by_bit(from_hz: int, start: int, num_samples: int) -> None:
    samples = noise(4 * from_hz + 123)
    length = resampled_length(len(samples), from_hz=from_hz, to_hz=16_000)
    stop = min(start + num_samples, length)
    asked: list[int] = []

    def read(begin: int, num: int) -> np.ndarray:
        asked.append(num)
        assert 0 <= begin <= begin + num <= len(samples)
        return samples[begin : begin + num]

    known = {"num_samples": len(samples), "from_hz": from_hz, "to_hz": 16_000}
    whole = resample(read, **known, start=0, stop=length)
    part = resample(read, **known, start=start, stop=stop)
    assert (part == whole[start:stop]).all()
    assert asked[1] <= ((stop - start) / 16_000 + 3) * from_hz, "a part costs its own length, not the file's"


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_a_file_of_another_rate_is_read_at_the_rate_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    time_s = np.arange(3 * 48_000) / 48_000
    soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * time_s), 48_000)
    whole = read_resampled(path, sample_rate_hz=16_000)
    assert len(whole) == 48_000
    middle = slice(2_000, -2_000)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000)
    np.testing.assert_allclose(whole[middle], expected[middle], atol=0.02)
    part = read_resampled(path, sample_rate_hz=16_000, start=20_001, num_samples=9_000)
    assert (part == whole[20_001:29_001]).all()


def test_a_file_of_the_right_rate_is_not_touched(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(5_000), 16_000)
    arguments = {"sample_rate_hz": 16_000, "start": 10, "num_samples": 100}
    assert (read_resampled(tmp_path / "a.wav", **arguments) == read_audio(tmp_path / "a.wav", **arguments)).all()


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_the_store_gives_resampled_crops_cached_or_not(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(3 * 44_100), 44_100)
    length = resampled_length(probe_audio(path).num_samples, from_hz=44_100, to_hz=16_000)
    utterances = build_utterances(
        ids=["a"], paths=[str(path)], speaker_of=["anna"], num_samples=np.array([length]), is_resampled=True
    )
    cached, uncached = AudioStore(utterances), AudioStore(utterances, cache_bytes=0)
    assert len(cached.whole(0)) == length
    for start in (0, 1, 15_999, length - 8_000):
        crops = [store.crop(0, start=start, num_samples=8_000) for store in (cached, uncached)]
        assert (crops[0] == crops[1]).all()
