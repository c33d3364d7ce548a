"""Synthetic speakers: a harmonic stack with formants of the speaker's own, on and off, in a little noise."""

import os
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Utterances

SAMPLE_RATE_HZ = 16_000


def render(folder: Path, *, part: str, num_speakers: int, num_utterances: int, seed: int) -> Utterances:
    """Writes what is missing of `part` into `folder` and returns its utterances."""
    part_seed = [seed, *part.encode()]
    paths, names, num_samples = [], [], []
    for speaker in range(num_speakers):
        for number in range(num_utterances):
            random = np.random.default_rng([*part_seed, speaker, number])
            num_samples.append(int(random.integers(6_000, 9_000)))
            path = folder / part / f"{part}{speaker}-{number}.flac"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                voice = np.random.default_rng([*part_seed, speaker])
                mine = path.with_name(f"{os.getpid()}-{path.name}")  # several processes render at once
                soundfile.write(mine, _speech(voice, random, num_samples[-1]), SAMPLE_RATE_HZ)
                mine.replace(path)
            paths.append(str(path))
            names.append(f"{part}{speaker}")
    return build_utterances(
        ids=[Path(path).stem for path in paths], paths=paths, speaker_of=names, num_samples=np.array(num_samples)
    )


def _speech(voice: np.random.Generator, random: np.random.Generator, num_samples: int) -> NDArray[np.float64]:
    pitch_hz, formants_hz = voice.uniform(90, 250), voice.uniform([300, 900, 2200], [800, 2000, 3400])
    pitch_hz *= random.uniform(0.97, 1.03)
    time_s = np.arange(num_samples) / SAMPLE_RATE_HZ
    harmonics_hz = pitch_hz * np.arange(1, int(4_000 / pitch_hz))
    gains = sum(np.exp(-(((harmonics_hz - formant) / 150.0) ** 2)) for formant in formants_hz)
    phases = random.uniform(0, 2 * np.pi, len(harmonics_hz))
    stack = (gains[:, None] * np.sin(2 * np.pi * harmonics_hz[:, None] * time_s + phases[:, None])).sum(0)
    # On and off: what lasts through an utterance leaves with its features' mean.
    stack *= 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(4, 7) * time_s + random.uniform(0, 6))
    return 0.3 * stack / np.abs(stack).max() + random.normal(0, 0.01, num_samples)
