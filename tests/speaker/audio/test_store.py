import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from jaxtyping import Int16

from greensv.errors import DataError
from greensv.speaker.audio.store import AudioInfo, AudioStore, probe_audio, read_audio
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Utterances

RATE = 16_000


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.arange(-8_000, 8_000, dtype=np.int16), RATE)
    return path


def utterances_of(*paths: Path) -> Utterances:
    num_samples = np.array([probe_audio(path).num_samples for path in paths])
    names = [path.name for path in paths]
    return build_utterances(ids=names, paths=[str(p) for p in paths], speaker_of=names, num_samples=num_samples)


def test_probe_tells_what_the_header_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.flac", np.zeros((4_410, 2)), 44_100)
    assert probe_audio(tmp_path / "stereo.flac") == AudioInfo(sample_rate_hz=44_100, num_samples=4_410, num_channels=2)


def test_sixteen_bit_samples_are_fractions_of_32768(ramp: Path) -> None:
    samples = read_audio(ramp, sample_rate_hz=RATE)
    assert samples.dtype == np.float32
    assert (samples == np.arange(-8_000, 8_000) / 32_768).all()


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_part_equals_the_same_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 40_000), RATE)
    whole = read_audio(path, sample_rate_hz=RATE)
    for start in (1, 4_095, 4_096, 20_011):
        part = read_audio(path, sample_rate_hz=RATE, start=start, num_samples=5_000)
        assert (part == whole[start : start + 5_000]).all()


def test_a_part_of_an_opus_file_equals_the_same_part_of_the_whole(speechocean762: Path) -> None:
    path = speechocean762 / "audio" / "0001" / "000010011.opus"
    assert probe_audio(path) == AudioInfo(sample_rate_hz=RATE, num_samples=41_280, num_channels=1)
    whole = read_audio(path, sample_rate_hz=RATE)
    for start in (1_000, 12_345, 30_001):
        assert (
            read_audio(path, sample_rate_hz=RATE, start=start, num_samples=8_000) == whole[start : start + 8_000]
        ).all()


def test_the_first_channel_is_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(2_000, 0.25), np.full(2_000, -0.5)], axis=1), RATE)
    samples = read_audio(tmp_path / "a.wav", sample_rate_hz=RATE)
    assert samples.shape == (2_000,)
    assert (samples == 0.25).all()


def test_values_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.5, -3.0]), RATE, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav", sample_rate_hz=RATE).tolist() == [0.5, 1.0, -1.0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no audio file .*gone\.wav"):
        probe_audio(tmp_path / "gone.wav")


def test_a_folder_is_not_audio(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        probe_audio(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "zero.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"zero\.wav is empty \(0 bytes\)"):
        read_audio(tmp_path / "zero.wav", sample_rate_hz=RATE)


def test_audio_of_length_zero_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "header.wav", np.zeros(0), RATE)
    with pytest.raises(DataError, match=r"header\.wav holds no samples"):
        probe_audio(tmp_path / "header.wav")


def test_a_file_that_is_no_audio_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.flac").write_text("this is not audio")
    with pytest.raises(DataError, match=r"text\.flac is damaged or no audio file"):
        probe_audio(tmp_path / "text.flac")


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_file_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 40_000), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=r"cut\.flac is damaged"):
        read_audio(path, sample_rate_hz=RATE)


def test_another_sample_rate_is_refused_with_a_way_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8_000)
    with pytest.raises(DataError, match=r"a\.wav has a sample rate of 8000 Hz, 16000 Hz is needed; .* -ar 16000"):
        read_audio(tmp_path / "a.wav", sample_rate_hz=RATE)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.0]), RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav holds values that are no numbers"):
        read_audio(tmp_path / "nan.wav", sample_rate_hz=RATE)


def test_a_part_beyond_the_end_is_refused(ramp: Path) -> None:
    with pytest.raises(DataError, match="has 16000 samples, samples 15000 to 17000 were asked for"):
        read_audio(ramp, sample_rate_hz=RATE, start=15_000, num_samples=2_000)


def test_store_gives_the_crop_and_the_whole(ramp: Path) -> None:
    store = AudioStore(utterances_of(ramp))
    assert (store.whole(0) * 32_768 == np.arange(-8_000, 8_000)).all()
    crop = store.crop(0, start=100, num_samples=50)
    assert crop.dtype == np.float32
    assert (crop * 32_768 == np.arange(-7_900, -7_850)).all()


def test_store_repeats_an_utterance_shorter_than_the_crop(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", np.array([1, 2, 3], dtype=np.int16), RATE)
    store = AudioStore(utterances_of(tmp_path / "short.wav"))
    assert (store.crop(0, start=1, num_samples=7) * 32_768).tolist() == [2, 3, 1, 2, 3, 1, 2]


def test_cached_and_uncached_audio_are_identical(tmp_path: Path) -> None:
    path = tmp_path / "float.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 20_000), RATE, subtype="FLOAT")
    cached, uncached = AudioStore(utterances_of(path)), AudioStore(utterances_of(path), cache_bytes=0)
    cached.whole(0)
    for start in (0, 777, 15_000):
        crops = [store.crop(0, start=start, num_samples=5_000) for store in (cached, uncached)]
        assert (crops[0] == crops[1]).all()
    assert (cached.whole(0) == uncached.whole(0)).all()


def test_store_decodes_again_only_what_does_not_fit(tmp_path: Path) -> None:
    paths = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for path in paths:
        soundfile.write(path, np.ones(1_000, dtype=np.int16), RATE)
    store = AudioStore(utterances_of(*paths), cache_bytes=3_000)
    for index in (0, 1):
        store.crop(index, start=0, num_samples=500)
    for path in paths:
        path.unlink()
    assert len(store.crop(0, start=200, num_samples=500)) == 500
    with pytest.raises(DataError, match=r"no audio file .*b\.wav"):
        store.crop(1, start=0, num_samples=500)


def test_threads_share_a_store(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.wav" for i in range(20)]
    for i, path in enumerate(paths):
        soundfile.write(path, np.full(1_000, i, dtype=np.int16), RATE)
    store = AudioStore(utterances_of(*paths), cache_bytes=10 * 2_000)
    wrong: list[int] = []

    def read_all() -> None:
        for _ in range(5):
            wrong.extend(i for i in range(20) if not (store.crop(i, start=10, num_samples=900) * 32_768 == i).all())

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(samples.nbytes for samples in store._cache.values()) == 10 * 2_000


def test_a_filled_store_has_everything_and_gives_the_same_values(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(paths):
        soundfile.write(path, np.sin(np.arange(1_000 + number) / (number + 2.0)), 16_000)
    filled, empty = AudioStore(utterances_of(*paths)), AudioStore(utterances_of(*paths))
    calls: list[tuple[str, int, int]] = []
    assert filled.fill(lambda *call: calls.append(call))
    assert calls[-1] == ("decoding audio", 3, 3)
    expected = [empty.whole(index) for index in range(3)]
    for path in paths:
        path.unlink()
    for index, samples in enumerate(expected):
        np.testing.assert_array_equal(filled.whole(index), samples)


def test_a_store_too_small_for_everything_is_not_filled(ramp: Path) -> None:
    assert not AudioStore(utterances_of(ramp), cache_bytes=10).fill()


def test_a_store_that_could_not_be_filled_decodes_crops_alone_from_its_first_step_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path in paths:
        soundfile.write(path, np.sin(np.arange(1_000) / 9), RATE)
    store, read = AudioStore(utterances_of(*paths), cache_bytes=2 * 2 * 1_000), []
    original = store._read

    def counted(index: int, *, start: int = 0, num_samples: int | None = None) -> Int16[np.ndarray, " samples"]:
        read.append((index, start, num_samples))
        return original(index, start=start, num_samples=num_samples)

    monkeypatch.setattr(store, "_read", counted)
    store.whole(2)
    assert not store.fill()
    for index in (0, 0, 1, 2):
        store.crop(index, start=100, num_samples=300)
    assert read == [(2, 0, None), (0, 100, 300), (0, 100, 300), (1, 100, 300)]  # what is there already may stay


def test_all_audio_is_tried_without_keeping_any(tmp_path: Path) -> None:
    paths = [tmp_path / "a.wav", tmp_path / "b.flac"]
    for path in paths:
        soundfile.write(path, np.zeros(1_600), 16_000)
    utterances = build_utterances(
        ids=["a", "b"], paths=[str(path) for path in paths], speaker_of=["x", "y"], num_samples=np.full(2, 1_600)
    )
    AudioStore(utterances, cache_bytes=0).try_all()
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    with pytest.raises(DataError, match=r"b\.flac"):
        AudioStore(utterances, cache_bytes=0).try_all()
