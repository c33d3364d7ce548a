"""Small trees of the exact form of the field's corpora, with real audio in every format they come in."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

FORMATS = {
    ".wav": {"format": "WAV", "subtype": "PCM_16"},
    ".flac": {"format": "FLAC", "subtype": "PCM_16"},
    ".ogg": {"format": "OGG", "subtype": "VORBIS"},
    ".opus": {"format": "OGG", "subtype": "OPUS"},
    ".mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
}

WriteSpeech = Callable[..., Path]


@pytest.fixture(scope="session")
def write_speech(tmp_path_factory: pytest.TempPathFactory) -> WriteSpeech:
    """Writes half a second of one of three voices. The suffix of the path decides the format."""
    made: dict[tuple[str, int, int], Path] = {}
    folder = tmp_path_factory.mktemp("voices")

    def write(path: Path, *, sample_rate_hz: int = 16_000) -> Path:
        # Encoding takes longer than all else in these tests: a few files are copied. One .m4a: ffmpeg is slow to start.
        key = (path.suffix, sample_rate_hz, 0 if path.suffix == ".m4a" else sum(path.name.encode()) % 3)
        if key not in made:
            made[key] = folder / f"{sample_rate_hz}-{key[2]}{path.suffix}"
            _make(made[key], sample_rate_hz, seed=key[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made[key], path)
        return path

    return write


def _make(path: Path, sample_rate_hz: int, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(rng.integers(0.4 * sample_rate_hz, 0.6 * sample_rate_hz))) / sample_rate_hz
    pitch_hz = rng.uniform(90, 250)
    stack = sum(np.sin(2 * np.pi * pitch_hz * k * time_s + rng.uniform(0, 6)) / k for k in range(1, 12))
    samples = 0.2 * stack + rng.normal(0, 0.01, len(time_s))
    if path.suffix != ".m4a":
        soundfile.write(path, samples, sample_rate_hz, **FORMATS[path.suffix])
        return
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg to write .m4a files with")
    soundfile.write(path.with_suffix(".wav"), samples, sample_rate_hz)
    command = ["ffmpeg", "-v", "error", "-i", path.with_suffix(".wav"), "-c:a", "aac", "-b:a", "64k", path]
    subprocess.run(command, check=True)
