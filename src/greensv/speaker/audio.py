"""Audio files as arrays, through libsndfile: headers, samples, and a store that keeps decoded audio in memory.

A file with several channels is read as its first channel, as the field's toolkits do. Values beyond full scale, which
float files and lossy codecs can hold, are clipped to [-1, 1].
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NoReturn

import numpy as np
import soundfile
from jaxtyping import Float32, Int16

from greensv.errors import DataError
from greensv.speaker.dataset import Progress, Utterances, ignore_progress

_FULL_SCALE = 32_768
_UNKNOWN_LENGTH = 2**62  # libsndfile says 2**63 - 1 of a file without a length
# Opus, Vorbis and MP3 decoders need what comes before: after a seek they give other values than decoding from the
# start (up to 0.002 of full scale in libsndfile 1.2.2's Opus). PCM, FLAC among it, is exact.
_EXACT_SEEK = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What the header of an audio file says; `num_samples` counts the samples of one channel."""

    sample_rate_hz: int
    num_samples: int
    num_channels: int


def probe_audio(path: str | PathLike[str]) -> AudioInfo:
    """Returns what the header of an audio file says.

    Raises:
        DataError: naming the file: it is missing, unreadable, no audio file that libsndfile knows, or holds no samples.
    """
    with _open(path) as file:
        return _info(path, file)


def read_audio(
    path: str | PathLike[str], *, sample_rate_hz: int, start: int = 0, num_samples: int | None = None
) -> Float32[np.ndarray, " samples"]:
    """Returns the first channel of an audio file, or a part of it, with values in [-1, 1].

    Args:
        path: any file libsndfile reads: WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3, AIFF, NIST SPHERE.
        sample_rate_hz: the rate the file must have; nothing is resampled silently.
        start: the first sample to return.
        num_samples: how many samples to return; None for all up to the end.

    Raises:
        DataError: naming the file: it is missing, unreadable, no audio, of length zero, of another sample rate, shorter
            than what is asked or than its header says, or holds values that are no numbers.
    """
    with _open(path) as file:
        info = _info(path, file)
        if info.sample_rate_hz != sample_rate_hz:
            raise wrong_sample_rate(path, found_hz=info.sample_rate_hz, needed_hz=sample_rate_hz)
        stop = info.num_samples if num_samples is None else start + num_samples
        if stop > info.num_samples:
            raise DataError(f"{path} has {info.num_samples} samples, samples {start} to {stop} were asked for")
        try:
            if start and file.subtype.startswith(_EXACT_SEEK):
                file.seek(start)
                samples = file.read(stop - start, dtype="float32", always_2d=True)
                num_missing = stop - start - len(samples)
            else:
                samples = file.read(stop, dtype="float32", always_2d=True)
                num_missing = stop - len(samples)
                samples = samples[start:]
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise DataError(f"{path} is damaged: it cannot be decoded ({error}); replace the file") from error
    if num_missing:
        raise DataError(f"{path} is damaged: {num_missing} of {stop} samples are missing at its end; replace the file")
    channel: Float32[np.ndarray, " samples"] = samples[:, 0]
    if not np.isfinite(channel).all():
        raise DataError(f"{path} holds values that are no numbers (NaN or infinite); write the file again")
    clipped: Float32[np.ndarray, " samples"] = np.clip(channel, -1.0, 1.0)
    return clipped


def wrong_sample_rate(path: str | PathLike[str], *, found_hz: int, needed_hz: int) -> DataError:
    """Returns the error for a file of another sample rate; says how to resample."""
    return DataError(
        f"{path} has a sample rate of {found_hz} Hz, {needed_hz} Hz is needed; "
        f"resample it, for example: ffmpeg -i {Path(path).name} -ar {needed_hz} {Path(path).stem}-{needed_hz}.flac"
    )


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
        return _to_float(self._whole(index))

    def crop(self, index: int, *, start: int, num_samples: int) -> Float32[np.ndarray, " samples"]:
        """Returns `num_samples` samples of utterance `index` from `start` on.

        An utterance shorter than the crop is repeated: value k is sample (start + k) modulo its length. Raises as
        `read_audio` does.
        """
        length = int(self.utterances.num_samples[index])
        if length < num_samples:
            return _to_float(np.take(self._whole(index), np.arange(start, start + num_samples), mode="wrap"))
        assert 0 <= start <= length - num_samples, f"crop {start}+{num_samples} of {length} samples"
        if index not in self._cache and not self._fits(length):
            return _to_float(_to_int16(self._read(index, start=start, num_samples=num_samples)))
        return _to_float(self._whole(index)[start : start + num_samples])

    def fill(self, progress: Progress = ignore_progress) -> bool:
        """Decodes everything now, on all cores, where it fits in the cache; returns whether it did.

        Measurements of training steps are then alike from the first epoch on, and an unreadable file is found before
        any training. Raises as `read_audio` does.
        """
        num = len(self.utterances)
        if not self._fits(int(self.utterances.num_samples.sum())):
            return False
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for begin in range(0, num, _FILLED_AT_ONCE):
                list(pool.map(self._whole, range(begin, min(begin + _FILLED_AT_ONCE, num))))
                progress("decoding audio", min(begin + _FILLED_AT_ONCE, num), num)
        return True

    def _whole(self, index: int) -> Int16[np.ndarray, " samples"]:
        if index in self._cache:
            return self._cache[index]
        samples = _to_int16(self._read(index))
        with self._lock:
            if index not in self._cache and samples.nbytes <= self._free_bytes:
                self._free_bytes -= samples.nbytes
                self._cache[index] = samples
        return samples

    def _fits(self, num_samples: int) -> bool:
        return num_samples * np.dtype(np.int16).itemsize <= self._free_bytes

    def _read(self, index: int, *, start: int = 0, num_samples: int | None = None) -> Float32[np.ndarray, " samples"]:
        rate = self.utterances.sample_rate_hz
        return read_audio(self.utterances.paths[index], sample_rate_hz=rate, start=start, num_samples=num_samples)


def _to_int16(samples: Float32[np.ndarray, " samples"]) -> Int16[np.ndarray, " samples"]:
    scaled = np.clip(np.rint(samples * np.float32(_FULL_SCALE)), -_FULL_SCALE, _FULL_SCALE - 1)
    quantised: Int16[np.ndarray, " samples"] = scaled.astype(np.int16)
    return quantised


def _to_float(samples: Int16[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    return samples.astype(np.float32) / np.float32(_FULL_SCALE)


def _open(path: str | PathLike[str]) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        _raise_unreadable(Path(path), error)


def _raise_unreadable(path: Path, error: Exception) -> NoReturn:
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError:
        raise DataError(f"no audio file {path}") from None
    except OSError as reason:
        raise DataError(f"audio file {path} cannot be read: {reason.strerror}") from reason
    if is_empty:
        raise DataError(f"audio file {path} is empty (0 bytes); replace the file or remove the utterance") from None
    raise DataError(
        f"{path} is damaged or no audio file that libsndfile reads ({error}); "
        "replace the file, or convert it to WAV or FLAC"
    ) from error


def _info(path: str | PathLike[str], file: soundfile.SoundFile) -> AudioInfo:
    if file.frames <= 0:
        raise DataError(f"audio file {path} holds no samples; replace the file or remove the utterance")
    if file.frames >= _UNKNOWN_LENGTH:
        raise DataError(f"audio file {path} does not say how long it is; it is a stream or damaged; write it again")
    return AudioInfo(sample_rate_hz=file.samplerate, num_samples=file.frames, num_channels=file.channels)
