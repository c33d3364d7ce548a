"""Random voices, as espeak-ng voice variants.

The keys of a variant file are described in espeak-ng's docs/voices.md. Means and spreads here are choices: two sexes
that overlap (about 115 and 200 Hz, common values for adults; shorter vocal tracts raise female formants by some
15 %), and within a sex enough overlap that no single cue tells two voices apart.
"""

from dataclasses import dataclass

import numpy as np

_NUM_FORMANTS = 9  # number 0 shapes the fundamental


@dataclass(frozen=True, slots=True, kw_only=True)
class Formant:
    """A formant relative to espeak-ng's default voice, in percent: its frequency, strength and width."""

    frequency: int
    strength: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One speaker's voice; percentages are relative to espeak-ng's default voice."""

    low_pitch_hz: int
    high_pitch_hz: int
    formants: tuple[Formant, ...]
    flutter: int
    roughness: int
    """0 (none) to 7."""
    breath: int
    voicing: int
    consonants: int
    speed: int


def random_voice(rng: np.random.Generator, *, spread: float) -> Voice:
    """Returns a random voice; `spread` scales how far its parameters lie from the mean of its sex."""

    def around(mean: float, deviation: float, low: float, high: float) -> int:
        return round(float(np.clip(rng.normal(mean, deviation * spread), low, high)))

    is_female = bool(rng.integers(2))
    pitch_hz = (200.0 if is_female else 115.0) * np.exp(rng.normal(0.0, 0.15 * spread))
    tract = (1.15 if is_female else 1.0) * np.exp(rng.normal(0.0, 0.035 * spread))
    low_pitch_hz = round(float(np.clip(pitch_hz, 60, 320)))
    return Voice(
        low_pitch_hz=low_pitch_hz,
        high_pitch_hz=low_pitch_hz * around(140, 12, 110, 190) // 100,
        formants=tuple(
            Formant(
                frequency=around(100 * tract, 2.5, 75, 145),
                strength=around(100, 18, 40, 170),
                width=around(100, 15, 50, 170),
            )
            for _ in range(_NUM_FORMANTS)
        ),
        flutter=around(4, 3, 0, 15),
        roughness=around(2, 1.5, 0, 7),
        breath=around(0, 4, 0, 12),
        voicing=around(100, 15, 50, 150),
        consonants=around(100, 15, 50, 150),
        speed=around(100, 8, 75, 130),
    )


def variant_file(voice: Voice, *, name: str) -> str:
    """Returns the text of an espeak-ng voice variant."""
    lines = [
        "language variant",
        f"name {name}",
        f"pitch {voice.low_pitch_hz} {voice.high_pitch_hz}",
        *(f"formant {i} {f.frequency} {f.strength} {f.width}" for i, f in enumerate(voice.formants)),
        f"flutter {voice.flutter}",
        f"roughness {voice.roughness}",
        "breath 0" + f" {voice.breath}" * 7,
        f"voicing {voice.voicing}",
        f"consonants {voice.consonants} {voice.consonants}",
        f"speed {voice.speed}",
    ]
    return "\n".join(lines) + "\n"
