"""Renders one batch of speakers: `python -m greensv_espeak.render JOB`, where JOB is a `Job` as JSON.

A process of its own, because espeak-ng is one global per process, keeps state from one utterance to the next, and must
not take a search down when it crashes.
"""

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from greensv.errors import PluginError
from greensv_espeak.options import EspeakOptions, Split
from greensv_espeak.session import record, resample
from greensv_espeak.synthesizer import Synthesizer
from greensv_espeak.texts import random_text
from greensv_espeak.voices import random_voice

RENDERER_VERSION = 1
"""Grows when the same options give other audio; part of the cache's key."""

SAMPLE_RATE_HZ = 16_000
MANIFEST = "manifest.json"
PLUGIN_ERROR_CODE = 3

_SPLIT_NUMBERS: dict[Split, int] = {"train": 0, "dev": 1, "test": 2}
_MAX_WORDS_PER_SECOND = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to render: speakers `first` up to, not including, `last` of a split, into an existing folder."""

    split: Split
    first: int
    last: int
    folder: str
    options: EspeakOptions

    def to_json(self) -> str:
        """The job as JSON, for `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "options": EspeakOptions(**fields["options"])})


def speaker_name(split: Split, number: int) -> str:
    """Returns the name of a speaker, different in each split."""
    return f"{split}-{number:05d}"


def render(job: Job) -> None:
    """Writes the utterances of a batch as FLAC, then its manifest: a list of [utterance, speaker, samples].

    Raises:
        PluginError: espeak-ng cannot be loaded, or fails.
    """
    manifest = []
    with Synthesizer() as synthesizer:
        for number in range(job.first, job.last):
            seeds = np.random.SeedSequence([job.options.seed, _SPLIT_NUMBERS[job.split], number])
            voice_seed, *seeds_of_utterances = seeds.spawn(1 + job.options.num_utterances(job.split))
            voice = random_voice(np.random.default_rng(voice_seed), spread=job.options.voice_spread)
            synthesizer.set_voice(voice)
            for index, seed in enumerate(seeds_of_utterances):
                name = f"{speaker_name(job.split, number)}-{index:04d}"
                samples = _utterance(synthesizer, np.random.default_rng(seed), job.options)
                soundfile.write(Path(job.folder) / f"{name}.flac", samples, SAMPLE_RATE_HZ, subtype="PCM_16")
                manifest.append([name, speaker_name(job.split, number), len(samples)])
    (Path(job.folder) / MANIFEST).write_text(json.dumps(manifest), encoding="ascii")


def _utterance(synthesizer: Synthesizer, rng: np.random.Generator, options: EspeakOptions) -> NDArray[np.float32]:
    """Says a random text, a little faster or slower, higher or lower each time, and cuts a piece out of it."""
    duration_s = rng.uniform(options.min_duration_s, options.max_duration_s)
    spoken = synthesizer.say(
        random_text(rng, num_words=2 + round(duration_s * _MAX_WORDS_PER_SECOND)),
        seed=int(rng.integers(1, 2**31)),
        words_per_minute=round(float(np.clip(rng.normal(175, 12), 120, 240))),
        pitch=round(float(np.clip(rng.normal(50, 6), 20, 80))),
    )
    length = min(round(duration_s * synthesizer.sample_rate_hz), len(spoken))
    start = int(rng.integers(len(spoken) - length + 1))
    piece = spoken[start : start + length]
    return record(
        resample(piece, from_hz=synthesizer.sample_rate_hz, to_hz=SAMPLE_RATE_HZ),
        rng,
        sample_rate_hz=SAMPLE_RATE_HZ,
        min_snr_db=options.min_snr_db,
        max_snr_db=options.max_snr_db,
    )


if __name__ == "__main__":
    try:
        render(Job.from_json(sys.argv[1]))
    except PluginError as error:
        print(error, file=sys.stderr)
        sys.exit(PLUGIN_ERROR_CODE)
    except KeyboardInterrupt:
        sys.exit(130)
