"""Recorded noise and rooms: which files a folder holds, and parts of them; only what a crop needs is read."""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from greensv.config import Augmentation, Disturbance
from greensv.errors import DataError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.audio.suffixes import AUDIO_SUFFIXES
from greensv.speaker.augmentation.folders import WHERE_TO_GET, folders_of
from greensv.speaker.corpora.audio_tree import find_audio
from greensv.speaker.corpora.manifest import MAX_SKIPPED_SHARE, measure
from greensv.speaker.dataset import Progress, Utterances, ignore_progress

FEWEST_TOO_MANY = 10
"""So many files may become unreadable in any folder, unless they are all it has."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recordings:
    """The usable audio files of one way of disturbing."""

    num_samples: Int64[np.ndarray, " files"]
    """At the rate of the crops."""
    skipped: dict[str, str]
    """Files that could not be used at first or be read later, by path, and why."""
    audio: AudioStore
    name: str
    """What they are and where they lie, for errors."""
    num_listed: int
    """Files found, usable or not."""

    def __len__(self) -> int:
        return len(self.num_samples)

    def path(self, number: int) -> str:
        """Returns where file `number` lies."""
        return self.audio.utterances.paths[number]

    def part(self, number: int, *, where: float, num_samples: int) -> Float32[np.ndarray, " samples"]:
        """Returns so many samples of a file, beginning anywhere that leaves them whole.

        A file that is shorter is repeated from its beginning on; the noise then starts anywhere in it.

        Args:
            number: which file.
            where: the place, uniform in [0, 1).
            num_samples: how many samples.

        Raises:
            DataError: the file cannot be read.
        """
        length = int(self.num_samples[number])
        num_places = length - num_samples + 1 if length >= num_samples else length
        return self.audio.crop(number, start=min(int(where * num_places), num_places - 1), num_samples=num_samples)

    def beginning(self, number: int, *, num_samples: int) -> Float32[np.ndarray, " samples"]:
        """Returns so many samples from the beginning of a file, silence behind its end. Raises as `part`."""
        length = min(int(self.num_samples[number]), num_samples)
        samples = np.zeros(num_samples, dtype=np.float32)
        samples[:length] = self.audio.crop(number, start=0, num_samples=length)
        return samples

    def refuse_too_many(self) -> None:
        """Does nothing while few files cannot be read: crops without their sound are an accident then.

        Raises:
            DataError: naming the commonest reasons; more than a tenth of the files (and more than 10) cannot be read,
                or none can. What is trained would be a clean training that nobody asked for.
        """
        num = len(self.skipped)
        if num <= max(FEWEST_TOO_MANY, MAX_SKIPPED_SHARE * self.num_listed) and num < self.num_listed:
            return
        commonest = Counter(reason.replace(path, "the file") for path, reason in self.skipped.items())
        told = "; ".join(f"{count} times: {reason}" for reason, count in commonest.most_common(3))
        raise DataError(
            f"{num} of {self.num_listed} files of {self.name} cannot be read, such as {next(iter(self.skipped))} "
            f"({told}); put them back or take them away: training would go on without the sounds asked for"
        )


def open_recordings(
    way: Disturbance,
    config: Augmentation,
    *,
    sample_rate_hz: int,
    cache_bytes: int = 0,
    cache_dir: Path | None = None,
    progress: Progress = ignore_progress,
) -> Recordings:
    """Returns the audio files below the folders of a way of disturbing, sorted by path, their lengths known.

    Args:
        way: the way of disturbing, which is not built in.
        config: says where the folders lie.
        sample_rate_hz: of the crops; files of other rates are resampled as they are read.
        cache_bytes: decoded audio that is kept in memory.
        cache_dir: where lengths are kept between runs; None: nowhere.
        progress: called as the headers are read.

    Raises:
        DataError: there is no audio, or more than a tenth of the files cannot be used.
    """
    folders = folders_of(way, config)
    paths = sorted({path for folder in folders for path in find_audio(folder, AUDIO_SUFFIXES)})
    names = ", ".join(str(folder) for folder in folders)
    if not paths:
        key = "rir_root" if way.kind == "reverb" else "noise_root"
        raise DataError(f"{names}: no audio files ({', '.join(AUDIO_SUFFIXES)}) for {way.kind}; {WHERE_TO_GET[key]}")
    with tempfile.TemporaryDirectory() as nowhere:
        measured = measure(
            paths,
            sample_rate_hz=sample_rate_hz,
            cache_dir=cache_dir or Path(nowhere),
            is_resampled=True,
            progress=progress,
        )
    if len(measured.skipped) > MAX_SKIPPED_SHARE * len(paths):
        first = measured.skipped[0]
        raise DataError(
            f"{names}: {len(measured.skipped)} of {len(paths)} files cannot be used, the first is {first.path}: "
            f"{first.reason}; replace or remove them"
        )
    usable = np.flatnonzero(measured.num_samples > 0)
    utterances = Utterances(
        ids=tuple(paths[i] for i in usable),
        paths=tuple(paths[i] for i in usable),
        speakers=np.zeros(len(usable), dtype=np.int32),
        speaker_names=(way.kind,),
        num_samples=measured.num_samples[usable],
        sample_rate_hz=sample_rate_hz,
        is_resampled=True,
    )
    audio = AudioStore(utterances, cache_bytes=cache_bytes)
    return Recordings(
        num_samples=utterances.num_samples,
        skipped={file.path: file.reason for file in measured.skipped},
        audio=audio,
        name=f"{way.kind} below {names}",
        num_listed=len(paths),
    )
