import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.audio.header import WavLayout, read_header
from greensv.speaker.audio.store import AudioInfo, probe_audio, read_audio
from greensv.speaker.corpora.manifest import measure

RATE = 16_000


def header_of(path: Path) -> WavLayout | AudioInfo | None:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_header(fd)
    finally:
        os.close(fd)


def noise(num_samples: int, num_channels: int = 1) -> np.ndarray:
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (num_samples, num_channels))
    return samples[:, 0] if num_channels == 1 else samples


@pytest.mark.parametrize("num_channels", [1, 2, 5])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_wav_headers_say_what_libsndfile_says(tmp_path: Path, form: str, subtype: str, num_channels: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(3_001, num_channels), 22_050, format=form, subtype=subtype)
    layout = header_of(path)
    assert isinstance(layout, WavLayout)
    assert layout.info == AudioInfo(sample_rate_hz=22_050, num_samples=3_001, num_channels=num_channels)
    assert layout.is_pcm16 == (subtype == "PCM_16")
    assert layout.num_missing == 0
    samples = soundfile.read(path, dtype="float32", always_2d=True)[0][:, 0]
    np.testing.assert_array_equal(read_audio(path, sample_rate_hz=22_050), samples)
    np.testing.assert_array_equal(read_audio(path, sample_rate_hz=22_050, start=100, num_samples=7), samples[100:107])


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
def test_flac_headers_say_what_libsndfile_says(tmp_path: Path, rate: int, subtype: str) -> None:
    soundfile.write(tmp_path / "a.flac", noise(70_001, 2), rate, subtype=subtype)
    assert header_of(tmp_path / "a.flac") == AudioInfo(sample_rate_hz=rate, num_samples=70_001, num_channels=2)


@pytest.mark.parametrize(
    ("form", "subtype"), [("WAV", "FLOAT"), ("WAV", "ULAW"), ("AIFF", "PCM_16"), ("OGG", "VORBIS")]
)
def test_other_forms_are_left_to_libsndfile(tmp_path: Path, form: str, subtype: str) -> None:
    path = tmp_path / "a.audio"
    soundfile.write(path, noise(4_000), RATE, format=form, subtype=subtype)
    assert header_of(path) is None
    assert probe_audio(path).num_samples == 4_000


def chunk(name: bytes, data: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


FMT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16))
RAMP = np.arange(100, dtype="<i2").tobytes()


def riff(*chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + sum(map(len, chunks))) + b"WAVE" + b"".join(chunks)


def test_chunks_before_and_after_the_samples_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(
        riff(chunk(b"LIST", b"x" * 1_001), FMT, chunk(b"junk", b""), chunk(b"data", RAMP), chunk(b"id3 ", b"y"))
    )
    assert probe_audio(path).num_samples == 100
    assert (read_audio(path, sample_rate_hz=RATE) * 32_768 == np.arange(100)).all()


def test_a_cut_off_wav_file_is_named_and_its_loss_counted(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(riff(FMT, chunk(b"data", RAMP, size=300)))
    with pytest.raises(DataError, match=r"cut\.wav is damaged: 50 of 150 samples are missing at its end"):
        probe_audio(path)
    with pytest.raises(DataError, match="50 of 150 samples"):
        read_audio(path, sample_rate_hz=RATE, start=0, num_samples=10)


@pytest.mark.parametrize("size", [1, 3])
def test_less_than_one_sample_of_each_channel_is_none(tmp_path: Path, size: int) -> None:
    stereo = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, RATE, 4 * RATE, 4, 16))
    path = tmp_path / "short.wav"
    path.write_bytes(riff(stereo, chunk(b"data", RAMP[:size])))
    with pytest.raises(DataError, match=r"short\.wav holds no samples"):
        probe_audio(path)


@pytest.mark.parametrize(
    ("channels", "rate", "block", "bits"),
    [(1, 2**31, 2, 16), (1, 2**32 - 1, 2, 16), (32_768, RATE, 32_768, 8), (1, RATE, 0, 0)],
)
def test_a_header_that_says_what_no_audio_has_is_an_error(
    tmp_path: Path, channels: int, rate: int, block: int, bits: int
) -> None:
    fmt = chunk(b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, 0, block, bits))
    path = tmp_path / "odd.wav"
    path.write_bytes(riff(fmt, chunk(b"data", bytes(65_536))))
    measured = measure([str(path)], sample_rate_hz=RATE, cache_dir=tmp_path / "cache", is_resampled=True)
    assert [skipped.path for skipped in measured.skipped] == [str(path)]


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000 + 36])
def test_a_stream_of_unknown_length_reaches_to_the_end_of_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "stream.wav"
    path.write_bytes(riff(FMT, chunk(b"data", RAMP, size=size)))
    assert header_of(path) is None
    assert (read_audio(path, sample_rate_hz=RATE) * 32_768 == np.arange(100)).all()


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", riff(), riff(FMT), riff(chunk(b"data", RAMP)), riff(chunk(b"fmt ", b"abc"), chunk(b"data", RAMP))],
)
def test_half_a_header_is_an_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.wav"):
        probe_audio(tmp_path / "a.wav")


def test_any_cut_of_a_header_is_an_error_and_never_another(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", noise(300), RATE)
    soundfile.write(tmp_path / "whole.flac", noise(300), RATE)
    for name in ("whole.wav", "whole.flac"):
        data = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut{Path(name).suffix}"
        for length in range(60):
            cut.write_bytes(data[:length])
            with pytest.raises(DataError):
                read_audio(cut, sample_rate_hz=RATE)
