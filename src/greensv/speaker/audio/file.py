"""One audio file: what its header says, and its samples as floats or 16-bit integers.

A file with several channels is read as its first channel, as the field's toolkits do. Values beyond full scale, which
float files and lossy codecs can hold, are clipped to [-1, 1]. WAV of 16 bits is read directly, MP4 and AAC as
`compressed_audio` says, everything else through libsndfile.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NoReturn

import numpy as np
import soundfile
from jaxtyping import Float32, Int16

from greensv.speaker.audio.compressed import decode_compressed, is_compressed, probe_compressed
from greensv.speaker.audio.header import (
    MAX_CHANNELS,
    MAX_RATE_HZ,
    MAX_SAMPLES,
    AudioError,
    AudioInfo,
    WavLayout,
    read_header,
)
from greensv.speaker.audio.mp3_length import count_samples, says_its_length
from greensv.speaker.audio.resampling import resample, resampled_length

AnyPath = str | PathLike[str]
Floats = Float32[np.ndarray, " samples"]
Integers = Int16[np.ndarray, " samples"]

_FULL_SCALE = 32_768
_UNKNOWN_LENGTH = 2**62  # libsndfile says 2**63 - 1 of a file without a length
# Opus, Vorbis and MP3 decoders need what comes before: after a seek they give other values than decoding from the
# start (up to 0.002 of full scale in libsndfile 1.2.2's Opus). PCM, FLAC among it, is exact.
_EXACT_SEEK = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def probe_audio(path: AnyPath) -> AudioInfo:
    """Returns what the header of an audio file says.

    Raises:
        AudioError: naming the file: it is missing, unreadable, cut off, of a format that nothing here reads, holds no
            samples, does not tell how many, or tells what no audio has.
    """
    info = _probe(path)
    if info.sample_rate_hz <= MAX_RATE_HZ and info.num_channels <= MAX_CHANNELS and info.num_samples <= MAX_SAMPLES:
        return info
    reason = "is damaged: its header says what no audio has"
    raise AudioError(
        f"{path} {reason} ({info.sample_rate_hz} Hz, {info.num_channels} channels, {info.num_samples} samples); "
        "replace the file",
        reason=reason,
    )


def _probe(path: AnyPath) -> AudioInfo:
    fd = _open_descriptor(path)
    try:
        if is_compressed(name := os.fspath(path)):
            return probe_compressed(name, fd)
        header = read_header(fd)
    except OSError as error:
        _raise_unreadable(Path(path), error)
    finally:
        os.close(fd)
    if isinstance(header, WavLayout):
        _check_whole(path, header)
        return header.info
    if header is not None:
        return header
    with _open(path) as file:
        return _info(path, file)


def read_audio(path: AnyPath, *, sample_rate_hz: int, start: int = 0, num_samples: int | None = None) -> Floats:
    """Returns the first channel of an audio file, or a part of it, with values in [-1, 1].

    Args:
        path: WAV, FLAC, Ogg Opus, Ogg Vorbis, MP3, AIFF, NIST SPHERE and what else libsndfile reads; M4A, MP4 and AAC
            where `compressed_audio` finds a decoder.
        sample_rate_hz: the rate the file must have; nothing is resampled silently.
        start: the first sample to return.
        num_samples: how many samples to return; None for all up to the end.

    Raises:
        AudioError: naming the file: it is missing, unreadable, no audio, of length zero, of another sample rate,
            shorter than what is asked or than its header says, or holds values that are no numbers.
        DataError: nothing here decodes .m4a files.
    """
    return as_floats(_read_at_rate(path, sample_rate_hz, start, num_samples))


def read_resampled(path: AnyPath, *, sample_rate_hz: int, start: int = 0, num_samples: int | None = None) -> Floats:
    """Returns what `read_audio` does, a file of another rate converted to `sample_rate_hz`.

    `start` and `num_samples` count samples after the conversion. A part equals the part of the whole, and costs no more
    than its own length where the file's format allows to begin in the middle. Raises as `read_audio` does.
    """
    return as_floats(_read_resampled(path, sample_rate_hz, start, num_samples))


def read_integers(path: AnyPath, *, sample_rate_hz: int, start: int = 0, num_samples: int | None = None) -> Integers:
    """Returns what `read_audio` does in 16 bits; nothing is lost of files of 16 bits. Raises as `read_audio` does."""
    return as_integers(_read_at_rate(path, sample_rate_hz, start, num_samples))


def read_resampled_integers(
    path: AnyPath, *, sample_rate_hz: int, start: int = 0, num_samples: int | None = None
) -> Integers:
    """Returns what `read_resampled` does, in 16 bits. Raises as `read_audio` does."""
    return as_integers(_read_resampled(path, sample_rate_hz, start, num_samples))


def wrong_sample_rate(path: AnyPath, *, found_hz: int, needed_hz: int) -> AudioError:
    """Returns the error for a file of another sample rate; says how to resample."""
    reason = f"has a sample rate of {found_hz} Hz, {needed_hz} Hz is needed"
    return AudioError(
        f"{path} {reason}; "
        f"resample it, for example: ffmpeg -i {Path(path).name} -ar {needed_hz} {Path(path).stem}-{needed_hz}.flac",
        reason=reason,
    )


def as_integers(samples: Floats | Integers) -> Integers:
    """Returns samples in 16 bits, rounded to the nearest."""
    if samples.dtype == np.int16:
        return samples
    scaled = np.clip(np.rint(samples * np.float32(_FULL_SCALE)), -_FULL_SCALE, _FULL_SCALE - 1)
    quantised: Integers = scaled.astype(np.int16)
    return quantised


def as_floats(samples: Floats | Integers) -> Floats:
    """Returns 16-bit samples as fractions of 32768, floats as they are."""
    if samples.dtype != np.int16:
        return samples
    fractions: Floats = np.multiply(samples, np.float32(1 / _FULL_SCALE), dtype=np.float32)
    return fractions


def _read_at_rate(path: AnyPath, sample_rate_hz: int, start: int, num_samples: int | None) -> Floats | Integers:
    with _opened(path) as (info, read):
        if info.sample_rate_hz != sample_rate_hz:
            raise wrong_sample_rate(path, found_hz=info.sample_rate_hz, needed_hz=sample_rate_hz)
        return read(start, _stop(path, info.num_samples, start, num_samples))


def _read_resampled(path: AnyPath, sample_rate_hz: int, start: int, num_samples: int | None) -> Floats | Integers:
    with _opened(path) as (info, read):
        length = resampled_length(info.num_samples, from_hz=info.sample_rate_hz, to_hz=sample_rate_hz)
        stop = _stop(path, length, start, num_samples)
        if info.sample_rate_hz == sample_rate_hz:
            return read(start, stop)
        resampled: Floats = resample(
            lambda begin, num: as_floats(read(begin, begin + num)),
            num_samples=info.num_samples,
            from_hz=info.sample_rate_hz,
            to_hz=sample_rate_hz,
            start=start,
            stop=stop,
        )
        clipped: Floats = np.clip(resampled, -1.0, 1.0)  # the filter overshoots at steps
        return clipped


def _stop(path: AnyPath, length: int, start: int, num_samples: int | None) -> int:
    stop = length if num_samples is None else start + num_samples
    if stop > length:
        reason = f"has {length} samples, samples {start} to {stop} were asked for"
        raise AudioError(f"{path} {reason}", reason="is shorter than it was when its length was measured")
    return stop


_Read = Callable[[int, int], Floats | Integers]
"""Called with the first sample and the one after the last, at the file's own rate."""


@contextmanager
def _opened(path: AnyPath) -> Iterator[tuple[AudioInfo, _Read]]:
    """Yields what the header says, and how to read the first channel."""
    if is_compressed(name := os.fspath(path)):
        info = probe_audio(path)
        yield info, lambda start, stop: _clipped(path, decode_compressed(name, info)[start:stop])
        return
    fd = _open_descriptor(path)
    try:
        try:
            layout = read_header(fd)
        except OSError as error:
            _raise_unreadable(Path(path), error)
        if isinstance(layout, WavLayout):
            _check_whole(path, layout)
        if isinstance(layout, WavLayout) and layout.is_pcm16:
            yield layout.info, lambda start, stop: _read_pcm16(path, fd, layout, start, stop)
            return
    finally:
        os.close(fd)
    with _open(path) as file:
        yield _info(path, file), lambda start, stop: _read_sndfile(path, file, start, stop)


def _read_pcm16(path: AnyPath, fd: int, layout: WavLayout, start: int, stop: int) -> Integers:
    channels = layout.info.num_channels
    block = 2 * channels
    try:
        data = os.pread(fd, (stop - start) * block, layout.data_offset + start * block)
    except OSError as error:  # a disk or a server that fails in the middle of a training
        _raise_unreadable(Path(path), error)
    if len(data) < (stop - start) * block:
        raise _cut_off(path, stop - start - len(data) // block, stop - start)
    samples: Integers = np.frombuffer(data, dtype="<i2")
    return samples if channels == 1 else np.ascontiguousarray(samples[::channels])


def _read_sndfile(path: AnyPath, file: soundfile.SoundFile, start: int, stop: int) -> Floats | Integers:
    dtype = "int16" if file.subtype == "PCM_16" else "float32"
    skipped = 0
    try:
        if start and file.subtype.startswith(_EXACT_SEEK):
            file.seek(start)
            skipped = start
        samples = file.read(stop - skipped, dtype=dtype, always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise AudioError(
            f"{path} is damaged: it cannot be decoded ({error}); replace the file",
            reason="is damaged: it cannot be decoded",
        ) from error
    if len(samples) < stop - skipped:
        raise _cut_off(path, stop - skipped - len(samples), stop)
    channel: Floats | Integers = np.ascontiguousarray(samples[start - skipped :, 0])
    return channel if dtype == "int16" else _clipped(path, channel)


def _clipped(path: AnyPath, samples: Floats) -> Floats:
    if not np.isfinite(samples).all():
        reason = "holds values that are no numbers (NaN or infinite)"
        raise AudioError(f"{path} {reason}; write the file again", reason=reason)
    clipped: Floats = np.clip(samples, -1.0, 1.0)
    return clipped


def _cut_off(path: AnyPath, num_missing: int, num_samples: int) -> AudioError:
    return AudioError(
        f"{path} is damaged: {num_missing} of {num_samples} samples are missing at its end; replace the file",
        reason="is damaged: samples are missing at its end",
    )


def _check_whole(path: AnyPath, layout: WavLayout) -> None:
    if layout.num_missing:
        raise _cut_off(path, layout.num_missing, layout.info.num_samples)


def _open_descriptor(path: AnyPath) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        _raise_unreadable(Path(path), error)


def _open(path: AnyPath) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(os.fsencode(path))  # as text, names that are not UTF-8 cannot be opened
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        _raise_unreadable(Path(path), error)


def _raise_unreadable(path: Path, error: Exception) -> NoReturn:
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except FileNotFoundError:
        raise AudioError(f"no audio file {path}", reason="is missing") from None
    except OSError as problem:
        reason = f"cannot be read: {problem.strerror}"
        raise AudioError(f"audio file {path} {reason}", reason=reason) from problem
    if is_empty:
        reason = "is empty (0 bytes)"
        raise AudioError(
            f"audio file {path} {reason}; replace the file or remove the utterance", reason=reason
        ) from None
    if isinstance(error, OSError) and error.strerror:
        reason = f"cannot be read: {error.strerror}"
        raise AudioError(f"audio file {path} {reason}", reason=reason) from error
    reason = "is damaged or no audio file that libsndfile reads"
    raise AudioError(f"{path} {reason} ({error}); replace the file, or convert it to WAV or FLAC", reason=reason) from (
        error
    )


def _info(path: AnyPath, file: soundfile.SoundFile) -> AudioInfo:
    num_samples = file.frames
    if num_samples <= 0:
        reason = "holds no samples"
        raise AudioError(f"audio file {path} {reason}; replace the file or remove the utterance", reason=reason)
    if num_samples >= _UNKNOWN_LENGTH:
        reason = "does not say how long it is"
        raise AudioError(f"audio file {path} {reason}; it is a stream or damaged; write it again", reason=reason)
    if file.subtype == "MPEG_LAYER_III":
        num_samples = _mp3_length(path, num_samples)
    return AudioInfo(sample_rate_hz=file.samplerate, num_samples=num_samples, num_channels=file.channels)


def _mp3_length(path: AnyPath, guessed: int) -> int:
    """Returns `guessed` where the file says its length, else the count of its frames, if libsndfile decodes so many."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        _raise_unreadable(Path(path), error)
    if says_its_length(data):
        return guessed
    counted = count_samples(data)
    if guessed < counted:
        reason = "does not say how long it is (MP3 without a Xing or Info header)"
        raise AudioError(
            f"{path} {reason}, and libsndfile reads {guessed} of its {counted} samples; "
            f"write it again: ffmpeg -i {Path(path).name} {Path(path).stem}.flac",
            reason=reason,
        )
    return counted
