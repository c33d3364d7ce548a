"""AAC in MP4 files (.m4a, .mp4) and as a stream (.aac): VoxCeleb2's form, which libsndfile does not read.

Lengths come from the files' own tables, decoded by nobody: a million of them in minutes. Samples come from torchcodec
(`pip install 'greensv[m4a]'`) or, without it, from the `ffmpeg` command, forty times as slow. Both decode a file from
its start, since AAC's frames depend on those before; a part equals the part of the whole. What a decoder adds or leaves
out at the end, if less than `_TOLERANCE` samples, is cut or filled with zeros: decoders differ in it.

Formats: ISO/IEC 14496-12 (boxes, edit lists), 14496-14 and 14496-3 section 1.A.2 (ADTS).
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from math import ceil

import numpy as np
from jaxtyping import Float32

from greensv.errors import DataError
from greensv.speaker.audio.header import AudioError, AudioInfo

SUFFIXES = (".m4a", ".mp4", ".aac")
_TOLERANCE = 2_048
"""Two frames of AAC."""
_SAMPLES_PER_FRAME = 1_024
_ADTS_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_MAX_MOOV_BYTES = 64 << 20
_DAMAGED = "is damaged or no MP4 or AAC file"


def is_compressed(path: str) -> bool:
    """Returns whether the file's name says that it is read here."""
    return path.lower().endswith(SUFFIXES)


def check_decoder() -> None:
    """Raises DataError, saying what to install or how to convert the files, where nothing here decodes AAC."""
    if _has_torchcodec() or shutil.which("ffmpeg"):
        return
    raise DataError(
        "nothing here decodes .m4a, .mp4 and .aac files; install torchcodec (pip install 'greensv[m4a]', it needs "
        "FFmpeg's libraries) or the ffmpeg command, or convert the files once, which is the quickest to train on: "
        "find DIR -name '*.m4a' -print0 | xargs -0 -P 8 -I{} sh -c "
        '\'ffmpeg -nostdin -v error -xerror -y -i "$1" -ar 16000 -ac 1 -f flac "${1%.m4a}.part" '
        '&& mv "${1%.m4a}.part" "${1%.m4a}.flac"\' _ {}; then remove the .m4a files'
    )


def probe_compressed(path: str, fd: int) -> AudioInfo:
    """Returns what the tables of a file, open as `fd`, say; `num_samples` is what decoding yields.

    Raises:
        OSError: it cannot be read.
        AudioError: it is damaged, or has no sound.
    """
    try:
        info = _adts(path, os.pread(fd, os.fstat(fd).st_size, 0)) if _is_adts(os.pread(fd, 2, 0)) else _mp4(fd)
    except (struct.error, IndexError, ZeroDivisionError) as error:
        raise AudioError(f"{path} {_DAMAGED}: its tables cannot be read; replace it", reason=_DAMAGED) from error
    if info is None:
        raise AudioError(f"{path} {_DAMAGED}: no sound is found in it; replace it", reason=_DAMAGED)
    return info


def decode_compressed(path: str, info: AudioInfo) -> Float32[np.ndarray, " samples"]:
    """Returns the first channel of a whole file, at the rate and of the length that its tables say.

    Raises:
        DataError: nothing here decodes it.
        AudioError: it is damaged.
    """
    check_decoder()
    samples = _by_torchcodec(path, info) if _has_torchcodec() else _by_ffmpeg(path, info)
    num_missing = info.num_samples - len(samples)
    if num_missing >= _TOLERANCE:
        raise AudioError(
            f"{path} is damaged: {num_missing} of {info.num_samples} samples are missing; replace the file",
            reason="is damaged: samples are missing at its end",
        )
    whole: Float32[np.ndarray, " samples"] = np.pad(samples[: info.num_samples], (0, max(num_missing, 0)))
    return whole


@cache
def _has_torchcodec() -> bool:
    """Whether it is installed and finds FFmpeg's libraries."""
    if find_spec("torchcodec") is None:
        return False
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def _by_torchcodec(path: str, info: AudioInfo) -> Float32[np.ndarray, " samples"]:
    from torchcodec.decoders import AudioDecoder

    try:
        decoded = AudioDecoder(path, sample_rate=info.sample_rate_hz).get_all_samples()
    except (RuntimeError, ValueError) as error:
        raise _undecodable(path, str(error)) from error
    channel: Float32[np.ndarray, " samples"] = decoded.data[0].numpy()
    return channel


def _by_ffmpeg(path: str, info: AudioInfo) -> Float32[np.ndarray, " samples"]:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"file:{path}", "-map", "0:a:0"]
    command += ["-af", "pan=mono|c0=c0", "-ar", str(info.sample_rate_hz), "-f", "f32le", "-"]
    run = subprocess.run(command, capture_output=True, check=False)
    if run.returncode:
        last = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise _undecodable(path, last[0] if last else f"ffmpeg ended with {run.returncode}")
    return np.frombuffer(run.stdout, dtype="<f4")


def _undecodable(path: str, why: str) -> AudioError:
    return AudioError(
        f"{path} is damaged: it cannot be decoded ({why}); replace the file",
        reason="is damaged: it cannot be decoded",
    )


def _is_adts(head: bytes) -> bool:
    return len(head) == 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0


def _adts(path: str, data: bytes) -> AudioInfo:
    num_samples, offset = 0, 0
    while offset + 7 <= len(data) and _is_adts(data[offset : offset + 2]):
        size = (data[offset + 3] & 3) << 11 | data[offset + 4] << 3 | data[offset + 5] >> 5
        num_samples += _SAMPLES_PER_FRAME * ((data[offset + 6] & 3) + 1)
        offset += max(size, 7)
    if offset != len(data):
        raise AudioError(
            f"{path} is damaged: its frames end after {offset} of {len(data)} bytes; replace the file",
            reason="is damaged: its frames end before the file does, or after",
        )
    return AudioInfo(
        sample_rate_hz=_ADTS_RATES_HZ[data[2] >> 2 & 15],
        num_samples=num_samples,
        num_channels=(data[2] & 1) << 2 | data[3] >> 6,
    )


def _mp4(fd: int) -> AudioInfo | None:
    """Finds `moov`, wherever it lies, and in it the first track that is sound."""
    end, offset = os.fstat(fd).st_size, 0
    moov = None
    while offset < end:
        size, name, header = _box(os.pread(fd, 16, offset))
        size = size or end - offset
        if size < header or offset + size > end:
            return None  # cut off: the tables are missing, or what they describe
        if name == b"moov":
            if size > _MAX_MOOV_BYTES:
                return None
            moov = os.pread(fd, size - header, offset + header)
        offset += size
    if moov is None:
        return None
    movie = dict(_boxes(moov))
    movie_rate_hz = _timescale_and_duration(movie[b"mvhd"])[0] if b"mvhd" in movie else 0
    tracks = (_track(body, movie_rate_hz) for name, body in _boxes(moov) if name == b"trak")
    return next((info for info in tracks if info is not None), None)


def _track(body: bytes, movie_rate_hz: int) -> AudioInfo | None:
    track = dict(_boxes(body))
    media = dict(_boxes(track.get(b"mdia", b"")))
    if media.get(b"hdlr", b"")[8:12] != b"soun" or b"mdhd" not in media:
        return None
    information = dict(_boxes(media.get(b"minf", b"")))
    description = dict(_boxes(information.get(b"stbl", b""))).get(b"stsd", b"")
    timescale, duration = _timescale_and_duration(media[b"mdhd"])
    # stsd: version and flags, count; then the sample entry: size, format, 6 reserved, index, 8 reserved, channels,
    # bits, 4 reserved, sample rate in 16.16 bits.
    channels = _configured_channels(description[44:]) or struct.unpack_from(">H", description, 32)[0]
    rate_hz = struct.unpack_from(">I", description, 40)[0] >> 16
    begin, length = _edit(dict(_boxes(track.get(b"edts", b""))).get(b"elst", b""))
    played = duration - begin
    if length and movie_rate_hz:
        played = min(played, ceil(length * timescale / movie_rate_hz))
    num_samples = ceil(played * rate_hz / timescale)
    if num_samples <= 0 or not rate_hz:
        return None
    return AudioInfo(sample_rate_hz=rate_hz, num_samples=num_samples, num_channels=channels)


def _configured_channels(boxes: bytes) -> int:
    """Returns the channels that the decoder's own configuration says: the sample entry often says 2 of one channel.

    It lies in descriptors, each a tag, a length and a body: in ES (3) after 3 bytes, in its DecoderConfig (4) after 13.
    """
    body = dict(_boxes(boxes)).get(b"esds", b"")[4:]
    for tag, skipped in ((3, 3), (4, 13), (5, 0)):
        if not body or body[0] != tag:
            return 0
        end_of_length = next((i for i in range(1, len(body)) if not body[i] & 0x80), None)
        if end_of_length is None:
            return 0
        body = body[end_of_length + 1 + skipped :]
    # AudioSpecificConfig: 5 bits of object type, 4 of the rate's index, 4 of channels; index 15: another form
    return 0 if (body[0] & 7) << 1 | body[1] >> 7 == 15 else body[1] >> 3 & 15


def _edit(elst: bytes) -> tuple[int, int]:
    """Returns where in the media the first edit that is no gap begins, and how long it is in the movie's time."""
    if not elst:
        return 0, 0
    entry = struct.Struct(">QqI" if elst[0] == 1 else ">IiI")
    for number in range(struct.unpack_from(">I", elst, 4)[0]):
        length, begin, _ = entry.unpack_from(elst, 8 + number * entry.size)
        if begin >= 0:
            return begin, length
    return 0, 0


def _timescale_and_duration(header: bytes) -> tuple[int, int]:
    """Of `mvhd` and `mdhd` alike: two dates come before, of four bytes each or, in version 1, of eight."""
    timescale, duration = struct.unpack_from(">IQ" if header[0] == 1 else ">II", header, 20 if header[0] == 1 else 12)
    return timescale, duration


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 0
    while offset + 8 <= len(data):
        size, name, header = _box(data[offset : offset + 16])
        size = size or len(data) - offset
        if size < header:
            return
        yield name, data[offset + header : offset + size]
        offset += size


def _box(head: bytes) -> tuple[int, bytes, int]:
    """Returns the size of a box (0: to the end), its name, and the bytes before its body."""
    size, name = struct.unpack_from(">I4s", head)
    if size == 1:
        return struct.unpack_from(">Q", head, 8)[0], name, 16
    return size, name, 8
