"""Reads the crops of a step with several threads, and puts others in the place of those that cannot be read."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from greensv.errors import DataError
from greensv.speaker.audio.store import AudioStore
from greensv.speaker.dataset import Skipped
from greensv.speaker.training.streams import Stream, sequence

MOST_THREADS = 16
MOST_REPLACEMENTS = 20
"""So many random utterances in a row that cannot be read are no accident: the disk is gone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedStep:
    """The crops of one step, of all processes: `num_samples[b]` samples of `utterances[b]` from `starts[b]` on."""

    step: int
    utterances: NDArray[np.int64]
    starts: NDArray[np.int64]
    num_samples: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadCrops:
    """Crops as read: each crop's samples from the left, and the utterance they are of in the end."""

    waveforms: Float[Tensor, "crops samples"]
    utterances: NDArray[np.int64]
    skipped: tuple[Skipped, ...]


@contextmanager
def decoding_threads(num_processes: int) -> Iterator[ThreadPoolExecutor]:
    """Yields threads to decode with: one for each core that this process may use, shared among its team."""
    num_threads = max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // num_processes))
    with ThreadPoolExecutor(num_threads, thread_name_prefix="greensv-decode") as pool:
        yield pool


class CropReader:
    """Reads planned crops; what is read for a row depends on the plan, the seed and the files, not on other rows."""

    def __init__(self, audio: AudioStore, *, seed: int) -> None:
        self._audio, self._seed = audio, seed

    def read(self, planned: PlannedStep, rows: Sequence[int], *, threads: Executor, pin_memory: bool) -> ReadCrops:
        """Returns the crops of `rows`, zeros behind those shorter than the longest one of the step.

        Args:
            planned: the step.
            rows: which of its crops.
            threads: share the work.
            pin_memory: puts the waveforms where a GPU copies them from by itself.

        Raises:
            DataError: neither an utterance nor any of those drawn in its place can be read.
        """
        # Not torch.zeros: most batches are filled to the end.
        waveforms = torch.empty((len(rows), int(planned.num_samples.max())), pin_memory=pin_memory)
        filled = waveforms.numpy()
        utterances = np.empty(len(rows), dtype=np.int64)

        def read_some(places: range) -> list[Skipped]:
            skipped = []
            for place in places:
                utterances[place], samples, failed = self._read(planned, rows[place])
                filled[place, : len(samples)] = samples
                filled[place, len(samples) :] = 0.0
                skipped += failed
            return skipped

        # A few long tasks rather than one a crop: from memory a crop is read faster than a task is handed over.
        skipped = [skip for part in threads.map(read_some, _parts(len(rows))) for skip in part]
        return ReadCrops(waveforms=waveforms, utterances=utterances, skipped=tuple(skipped))

    def read_one(self, planned: PlannedStep, row: int) -> Float32[np.ndarray, " samples"]:
        """Returns the crop of one row, the same that `read` finds."""
        return self._read(planned, row)[1]

    def _read(self, planned: PlannedStep, row: int) -> tuple[int, Float32[np.ndarray, " samples"], list[Skipped]]:
        index, start, num_samples = (int(column[row]) for column in _columns(planned))
        lengths, skipped = self._audio.utterances.num_samples, list[Skipped]()
        rng = None
        while True:
            try:
                return index, self._audio.crop(index, start=start, num_samples=num_samples), skipped
            except DataError as error:
                skipped.append(Skipped(path=self._audio.utterances.paths[index], reason=str(error)))
                if len(skipped) > MOST_REPLACEMENTS:
                    raise DataError(
                        f"{len(skipped)} utterances drawn one after the other cannot be read; is the disk still there? "
                        f"The last one: {error}"
                    ) from error
            rng = rng or np.random.default_rng(sequence(self._seed, Stream.REPLACEMENTS, planned.step, row))
            index = int(rng.integers(len(lengths)))
            start = int(rng.integers(max(0, int(lengths[index]) - num_samples), endpoint=True))


def _columns(planned: PlannedStep) -> tuple[NDArray[np.int64], ...]:
    return planned.utterances, planned.starts, planned.num_samples


def _parts(num_rows: int) -> list[range]:
    size = max(1, -(-num_rows // (4 * MOST_THREADS)))
    return [range(first, min(first + size, num_rows)) for first in range(0, num_rows, size)]
