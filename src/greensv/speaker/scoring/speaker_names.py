"""Speakers of utterances known by name only: from a `utt2spk` file, or from names that hold their speaker."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.corpora.text_lines import read_lines

_SPEAKER_IN_NAME = re.compile(r"(?:^|/)(id\d{5})(?=[/_.-])")
"""`id10270/5r0dWxy17C8/00001.wav` of VoxCeleb, `test/id00800-singing-01-005.wav` of CN-Celeb, `id10270_…` of Kiwano."""


def speakers_of_names(names: Sequence[str]) -> NDArray[np.int32] | None:
    """Returns a number for the speaker of each name as VoxCeleb and CN-Celeb write it; None if any name has none."""
    found = [_SPEAKER_IN_NAME.search(name) for name in names]
    if not all(found):
        return None
    return _numbers([match[1] for match in found if match])


def read_speakers(path: Path, names: Sequence[str]) -> NDArray[np.int32]:
    """Returns a number for the speaker of each name as a Kaldi `utt2spk` tells it; other lines of it are ignored.

    A name may also be the audio file of an utterance, as a `wav.scp` beside the `utt2spk` writes it.

    Raises:
        DataError: naming the file, and the line where there is one: it cannot be read, a line is not an utterance and a
            speaker, or a name has no speaker or two.
    """
    speaker_of: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if words and len(words) != 2:
            raise DataError(f"{path}:{number}: found {line!r}, expected an utterance and a speaker")
        if words and speaker_of.setdefault(words[0], words[1]) != words[1]:
            raise DataError(
                f"{path}:{number}: {words[0]!r} has two speakers, {speaker_of[words[0]]!r} and {words[1]!r}"
            )
    _add_audio_files(speaker_of, path.with_name("wav.scp"))
    missing = [name for name in names if name not in speaker_of]
    if missing:
        raise DataError(
            f"{path} tells no speaker of {len(missing)} of {len(names)} utterances ({', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''}); add them, or leave out --speakers"
        )
    return _numbers([speaker_of[name] for name in names])


def _add_audio_files(speaker_of: dict[str, str], wav_scp: Path) -> None:
    if not wav_scp.exists():
        return
    for line in read_lines(wav_scp):
        match line.split(maxsplit=1):
            case [utterance, audio] if utterance in speaker_of:
                speaker_of.setdefault(audio.rstrip(), speaker_of[utterance])


def _numbers(speakers: Sequence[str]) -> NDArray[np.int32]:
    number_of = {speaker: number for number, speaker in enumerate(sorted(set(speakers)))}
    return np.array([number_of[speaker] for speaker in speakers], dtype=np.int32)
