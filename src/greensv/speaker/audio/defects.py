"""Decodes audio from start to end and says what is wrong with it, file by file, counted by kind."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int16

from greensv.speaker.audio.file import read_integers, read_resampled_integers
from greensv.speaker.audio.header import AudioError
from greensv.speaker.dataset import Progress, Utterances, ignore_progress

NUM_EXAMPLES = 3
"""Files of a kind that are named."""
_FILES_AT_ONCE = 256
_CLIPPED_RUN = 3
"""So many samples at full scale, one after the other, are no peak."""

SILENT = "is silent: all samples are equal"
CLIPPED = f"is clipped: {_CLIPPED_RUN} samples at full scale follow each other"
CHANGED = "is not as long as its header says"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """Something that is wrong with some files."""

    reason: str
    num_files: int
    examples: tuple[str, ...]
    """The first few paths."""
    is_unusable: bool
    """Whether reading such a file is an error; silent and clipped files are trained on."""


def find_defects(utterances: Utterances, *, progress: Progress = ignore_progress) -> tuple[Defect, ...]:
    """Decodes each file, on all cores, and returns what is wrong, the commonest first."""
    paths: dict[tuple[str, bool], list[str]] = {}
    num = len(utterances)
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="greensv-decode") as pool:
        for begin in range(0, num, _FILES_AT_ONCE):
            indices = range(begin, min(begin + _FILES_AT_ONCE, num))
            for index, found in zip(indices, pool.map(lambda i: list(_defects(utterances, i)), indices), strict=True):
                for defect in found:
                    paths.setdefault(defect, []).append(utterances.paths[index])
            progress("decoding audio", indices.stop, num)
    defects = [
        Defect(reason=reason, num_files=len(some), examples=tuple(some[:NUM_EXAMPLES]), is_unusable=is_unusable)
        for (reason, is_unusable), some in paths.items()
    ]
    return tuple(sorted(defects, key=lambda defect: -defect.num_files))


def _defects(utterances: Utterances, index: int) -> Iterator[tuple[str, bool]]:
    read = read_resampled_integers if utterances.is_resampled else read_integers
    try:
        samples = read(utterances.paths[index], sample_rate_hz=utterances.sample_rate_hz)
    except AudioError as error:
        yield error.reason, True
        return
    if len(samples) != utterances.num_samples[index]:
        yield CHANGED, True
    if (samples == samples[0]).all():
        yield SILENT, False
    elif _is_clipped(samples):
        yield CLIPPED, False


def _is_clipped(samples: Int16[np.ndarray, " samples"]) -> bool:
    is_full = (samples == np.iinfo(np.int16).max) | (samples == np.iinfo(np.int16).min)
    return bool((is_full[2:] & is_full[1:-1] & is_full[:-2]).any())
