import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from greensv.errors import DataError
from greensv.speaker.audio.mp3_length import count_samples, says_its_length
from greensv.speaker.audio.store import probe_audio, read_audio

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")


def make(folder: Path, name: str, *arguments: str, rate: int) -> Path:
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * rate)
    samples[rate : 2 * rate] = 0  # variable bit rates then vary
    soundfile.write(folder / "source.wav", samples, rate)
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", folder / "source.wav", *arguments, folder / name]
    subprocess.run(command, check=True)
    return folder / name


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 44_100, 48_000])
def test_frames_are_counted_as_libsndfile_decodes_them(tmp_path: Path, rate: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * rate)
    soundfile.write(tmp_path / "a.mp3", samples, rate)
    data = (tmp_path / "a.mp3").read_bytes()
    assert says_its_length(data)
    assert len(read_audio(tmp_path / "a.mp3", sample_rate_hz=rate)) == probe_audio(tmp_path / "a.mp3").num_samples
    # The frames hold the samples, the decoder's delay, the tag's own frame and what fills the last one.
    assert 0 <= count_samples(data) - 3 * rate < 4 * 1_152


@needs_ffmpeg
def test_a_file_that_does_not_say_its_length_is_counted(tmp_path: Path) -> None:
    path = make(tmp_path, "a.mp3", "-write_xing", "0", "-b:a", "64k", rate=16_000)
    assert not says_its_length(path.read_bytes())
    info = probe_audio(path)
    whole = read_audio(path, sample_rate_hz=16_000)
    assert len(whole) == info.num_samples
    part = read_audio(path, sample_rate_hz=16_000, start=info.num_samples - 500, num_samples=500)
    assert (part == whole[-500:]).all()


@needs_ffmpeg
def test_a_file_that_libsndfile_would_cut_short_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path, "a.mp3", "-write_xing", "0", "-q:a", "4", rate=48_000)
    with soundfile.SoundFile(source) as file:
        assert file.frames < 2.5 * 48_000, "libsndfile guesses no longer, so the refusal can go"
    with pytest.raises(DataError, match=r"a\.mp3 does not say how long it is .*ffmpeg -i a\.mp3 a\.flac"):
        probe_audio(source)
