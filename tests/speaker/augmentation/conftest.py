"""Folders of noise and rooms, made of numbers that tell the files apart."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16_000


@pytest.fixture(scope="session")
def noise_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders: `noise` with four files of 3 s and one of 0.05 s, deeper down, and `music` with one of 2 s."""
    root = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(5)
    for number in range(4):
        _write(root / "noise" / "free-sound" / f"long{number}.wav", rng.normal(0, 0.05 * (number + 1), 3 * RATE))
    _write(root / "noise" / "short.flac", rng.normal(0, 0.1, RATE // 5))
    _write(root / "music" / "tune.wav", 0.3 * np.sin(np.arange(2 * RATE) / 9))
    (root / "noise" / "LICENSE").write_text("not audio")
    return root


@pytest.fixture(scope="session")
def rir_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rooms below `simulated_rirs`: 0.2 s, 0.6 s and 1.5 s of decaying noise, the peak at sample 30."""
    root = tmp_path_factory.mktemp("rooms")
    rng = np.random.default_rng(6)
    for seconds in (0.2, 0.6, 1.5):
        taps = rng.normal(0, 0.02, round(seconds * RATE)) * np.exp(-np.arange(round(seconds * RATE)) / 2000)
        taps[30] = 0.8
        _write(root / "simulated_rirs" / f"room-{seconds}.wav", taps)
    return root


def _write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
