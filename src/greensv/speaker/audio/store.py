"""The audio of a corpus by index, decoded at most once where it fits in memory; and how one file is read.

See `audio_file` for the formats, and what becomes of several channels and of values beyond full scale.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Float32, Int16

from greensv.errors import DataError
from greensv.speaker.audio.file import (
    as_floats,
    probe_audio,
    read_audio,
    read_integers,
    read_resampled,
    read_resampled_integers,
    wrong_sample_rate,
)
from greensv.speaker.audio.header import AudioError, AudioInfo
from greensv.speaker.dataset import Progress, Utterances, ignore_progress

__all__ = [
    "AudioError",
    "AudioInfo",
    "AudioStore",
    "probe_audio",
    "read_audio",
    "read_resampled",
    "wrong_sample_rate",
]

OnUnreadable = Callable[[int, DataError], None]
"""Called with the index of an utterance and what reading it raised."""

_FILLED_AT_ONCE = 128
"""Utterances decoded between two reports of progress."""


class AudioStore:
    """The audio of `utterances` by index, decoded at most once while it fits in `cache_bytes`.

    All audio passes through 16-bit integers, cached or not, so that a value never depends on what the cache holds; for
    16-bit files this loses nothing. What does not fit is read again each time. Safe to share between threads.

    Example:
        >>> store = AudioStore(corpus.train)
        >>> store.crop(0, start=8000, num_samples=32_000).shape
        (32000,)
    """

    def __init__(self, utterances: Utterances, *, cache_bytes: int = 2 << 30) -> None:
        self.utterances = utterances
        self._cache: dict[int, Int16[np.ndarray, " samples"]] = {}
        self._free_bytes = cache_bytes
        self._lock = threading.Lock()

    def whole(self, index: int) -> Float32[np.ndarray, " samples"]:
        """Returns utterance `index` from start to end. Raises as `read_audio` does."""
        return as_floats(self._whole(index))

    def crop(self, index: int, *, start: int, num_samples: int) -> Float32[np.ndarray, " samples"]:
        """Returns `num_samples` samples of utterance `index` from `start` on.

        An utterance shorter than the crop is repeated: value k is sample (start + k) modulo its length. Raises as
        `read_audio` does.
        """
        length = int(self.utterances.num_samples[index])
        if length < num_samples:
            return as_floats(np.take(self._whole(index), np.arange(start, start + num_samples), mode="wrap"))
        assert 0 <= start <= length - num_samples, f"crop {start}+{num_samples} of {length} samples"
        if index not in self._cache and not self._fits(length):
            return as_floats(self._read(index, start=start, num_samples=num_samples))
        return as_floats(self._whole(index)[start : start + num_samples])

    def fill(self, progress: Progress = ignore_progress, *, on_unreadable: OnUnreadable | None = None) -> bool:
        """Decodes everything now, on all cores, where it fits in the cache; returns whether it did.

        Measurements of training steps are then alike from the first epoch on, and an unreadable file is found before
        any training: it raises as `read_audio` does, or `on_unreadable` is called with its index and what was raised.

        Where it does not fit, nothing is cached from now on: a step would cost more while the cache fills, by decoding
        whole utterances for their crops, than later. What is measured of the first steps would not hold for the rest.
        """
        num = len(self.utterances)
        if not self._fits(int(self.utterances.num_samples.sum())):
            with self._lock:
                self._free_bytes = 0
            return False

        def decode(index: int) -> None:
            try:
                self._whole(index)
            except DataError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(index, error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for begin in range(0, num, _FILLED_AT_ONCE):
                list(pool.map(decode, range(begin, min(begin + _FILLED_AT_ONCE, num))))
                progress("decoding audio", min(begin + _FILLED_AT_ONCE, num), num)
        return True

    def try_all(self, progress: Progress = ignore_progress) -> None:
        """Decodes everything once and keeps nothing: for what must be readable and does not fit in the cache.

        Raises as `read_audio` does.
        """
        num = len(self.utterances)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for begin in range(0, num, _FILLED_AT_ONCE):
                list(pool.map(self._read, range(begin, min(begin + _FILLED_AT_ONCE, num))))
                progress("trying audio", min(begin + _FILLED_AT_ONCE, num), num)

    def _whole(self, index: int) -> Int16[np.ndarray, " samples"]:
        if index in self._cache:
            return self._cache[index]
        samples = self._read(index)
        with self._lock:
            if index not in self._cache and samples.nbytes <= self._free_bytes:
                self._free_bytes -= samples.nbytes
                self._cache[index] = samples
        return samples

    def _fits(self, num_samples: int) -> bool:
        return num_samples * np.dtype(np.int16).itemsize <= self._free_bytes

    def _read(self, index: int, *, start: int = 0, num_samples: int | None = None) -> Int16[np.ndarray, " samples"]:
        utterances = self.utterances
        read = read_resampled_integers if utterances.is_resampled else read_integers
        path, rate = utterances.paths[index], utterances.sample_rate_hz
        return read(path, sample_rate_hz=rate, start=start, num_samples=num_samples)
