import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.audio import compressed as compressed_audio
from greensv.speaker.audio.store import AudioInfo, AudioStore, probe_audio, read_audio
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.corpora.manifest import measure

RATE = 16_000
NUM_SAMPLES = 2 * RATE + 345

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")
needs_torchcodec = pytest.mark.skipif(
    not compressed_audio._has_torchcodec(), reason="needs torchcodec (greensv[m4a]) and FFmpeg's libraries"
)


def tone(num_channels: int = 1) -> np.ndarray:
    time_s = np.arange(NUM_SAMPLES) / RATE
    chirp = 0.4 * np.sin(2 * np.pi * (200 + 300 * time_s) * time_s)
    return np.stack([chirp, *[np.zeros(NUM_SAMPLES)] * (num_channels - 1)], axis=1)


@cache
def encoded(suffix: str, *options: str, num_channels: int = 1) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.wav", Path(folder) / f"a{suffix}"
        soundfile.write(source, tone(num_channels), RATE)
        command = ["ffmpeg", "-nostdin", "-v", "error", "-i", source, *options, target]
        subprocess.run(command, check=True)
        return target.read_bytes()


def encode(folder: Path, name: str, *options: str, num_channels: int = 1) -> Path:
    (folder / name).write_bytes(encoded(Path(name).suffix, *options, num_channels=num_channels))
    return folder / name


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.M4A"])
@pytest.mark.parametrize("options", [(), ("-movflags", "+faststart")])
def test_an_mp4_file_is_as_long_as_what_was_encoded(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    path = encode(tmp_path, name, "-f", "mp4", *options)
    assert probe_audio(path) == AudioInfo(sample_rate_hz=RATE, num_samples=NUM_SAMPLES, num_channels=1)
    whole = read_audio(path, sample_rate_hz=RATE)
    assert whole.shape == (NUM_SAMPLES,)
    assert np.corrcoef(whole[1_000:-1_000], tone()[1_000:-1_000, 0])[0, 1] > 0.99


@needs_ffmpeg
def test_a_stream_of_aac_is_as_long_as_its_frames(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.aac")
    info = probe_audio(path)
    assert info.num_samples % 1_024 == 0
    assert NUM_SAMPLES < info.num_samples < NUM_SAMPLES + 3 * 1_024
    assert (info.sample_rate_hz, info.num_channels) == (RATE, 1)
    assert read_audio(path, sample_rate_hz=RATE).shape == (info.num_samples,)


@needs_ffmpeg
def test_a_part_of_an_m4a_file_equals_the_part_of_the_whole(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.m4a")
    whole = read_audio(path, sample_rate_hz=RATE)
    for start, num in ((0, 500), (1, 8_000), (12_345, 9_876), (NUM_SAMPLES - 10, 10)):
        assert (read_audio(path, sample_rate_hz=RATE, start=start, num_samples=num) == whole[start : start + num]).all()
    utterances = build_utterances(
        ids=["a"], paths=[str(path)], speaker_of=["anna"], num_samples=np.array([NUM_SAMPLES])
    )
    stores = AudioStore(utterances), AudioStore(utterances, cache_bytes=0)
    crops = [store.crop(0, start=777, num_samples=16_000) for store in stores]
    assert (crops[0] == crops[1]).all()
    np.testing.assert_allclose(crops[0], whole[777:16_777], atol=1 / 32_768)


@needs_ffmpeg
def test_the_first_channel_of_several_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.m4a", num_channels=2)
    assert probe_audio(path).num_channels == 2
    samples = read_audio(path, sample_rate_hz=RATE)
    assert np.corrcoef(samples[1_000:-1_000], tone()[1_000:-1_000, 0])[0, 1] > 0.99


@needs_ffmpeg
@needs_torchcodec
def test_torchcodec_and_ffmpeg_decode_alike(tmp_path: Path) -> None:
    for name in ("a.m4a", "a.aac"):
        path = encode(tmp_path, name)
        info = probe_audio(path)
        decoded = [f(str(path), info) for f in (compressed_audio._by_torchcodec, compressed_audio._by_ffmpeg)]
        num = min(map(len, decoded))
        np.testing.assert_allclose(decoded[0][:num], decoded[1][:num], atol=1e-6)


@needs_ffmpeg
def test_another_sample_rate_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.m4a", "-ar", "44100")
    with pytest.raises(DataError, match="sample rate of 44100 Hz"):
        read_audio(path, sample_rate_hz=RATE)


@needs_ffmpeg
@pytest.mark.parametrize("name", ["a.m4a", "a.aac"])
@pytest.mark.parametrize("options", [(), ("-movflags", "+faststart")])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.97])
def test_a_cut_off_file_is_named(tmp_path: Path, name: str, options: tuple[str, ...], keep: float) -> None:
    path = encode(tmp_path, name, *(options if name == "a.m4a" else ()))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        probe_audio(path)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def track_with_descriptors(descriptors: bytes) -> bytes:
    """A track of sound without a time scale, whose `esds` holds the descriptors."""
    description = box(b"stsd", bytes(8) + box(b"mp4a", bytes(28) + box(b"esds", bytes(4) + descriptors)))
    media = box(b"mdhd", bytes(20)) + box(b"hdlr", bytes(8) + b"soun") + box(b"minf", box(b"stbl", description))
    return box(b"moov", box(b"trak", box(b"mdia", media)))


@pytest.mark.parametrize(
    "data",
    [
        b"text that is no audio at all",
        b"\xff\xf1",
        b"\0\0\0\x10ftypM4A ",
        b"\0\0\0\x0cmoov\0\0\0\x08",
        b"\0\0\0\x20moov\0\0\0\x18trak\0\0\0\x10mdia" + b"\0\0\0\x08hdlr",
        track_with_descriptors(b"\x03"),
        track_with_descriptors(b"\x03\x80\x80\x80"),
    ],
)
def test_what_is_no_mp4_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.m4a").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.m4a is damaged"):
        probe_audio(tmp_path / "a.m4a")


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no audio file .*gone\.m4a"):
        probe_audio(tmp_path / "gone.m4a")
    (tmp_path / "zero.m4a").write_bytes(b"")
    with pytest.raises(DataError, match=r"zero\.m4a is damaged"):
        probe_audio(tmp_path / "zero.m4a")


@needs_ffmpeg
def test_without_a_decoder_it_is_said_what_to_install_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path, "a.m4a")
    monkeypatch.setattr(compressed_audio, "_has_torchcodec", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    advice = r"greensv\[m4a\].* or the ffmpeg command, or convert the files once.*find DIR"
    with pytest.raises(DataError, match=advice):
        read_audio(path, sample_rate_hz=RATE)
    with pytest.raises(DataError, match=advice):
        measure([str(path)], sample_rate_hz=RATE, cache_dir=tmp_path)


def convert(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs the command that the message gives; returns its exit status."""
    with monkeypatch.context() as patch:
        patch.setattr(compressed_audio, "_has_torchcodec", lambda: False)
        patch.setenv("PATH", "")
        with pytest.raises(DataError) as caught:
            compressed_audio.check_decoder()
    command = str(caught.value).partition("train on: ")[2].partition("; then remove")[0]
    run = subprocess.run(command.replace("DIR", str(folder)), shell=True, check=False, capture_output=True)
    return run.returncode


@needs_ffmpeg
def test_the_command_that_the_message_gives_converts_a_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "id 1"
    folder.mkdir()
    encode(folder, "it's.m4a")
    (folder / "it's.part").write_bytes(b"of an interrupted run")
    assert convert(tmp_path, monkeypatch) == 0
    assert abs(probe_audio(folder / "it's.flac").num_samples - NUM_SAMPLES) < 2_048
    assert sorted(path.name for path in folder.iterdir()) == ["it's.flac", "it's.m4a"]


@needs_ffmpeg
def test_a_conversion_that_fails_leaves_no_file_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode(tmp_path, "cut.m4a", "-movflags", "+faststart")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert convert(tmp_path, monkeypatch) != 0
    assert not (tmp_path / "cut.flac").exists()
