"""How long an MP3 file is where it does not say so itself: its frames are counted.

libsndfile guesses the length of such a file from its first frames, and decodes no more than it guessed. Frame headers:
ISO/IEC 11172-3 section 2.4.2.3 and ISO/IEC 13818-3 section 2.4.2.3.
"""

_SEARCHED = 256
"""Bytes of the first frame in which its Xing, Info or VBRI tag begins."""
_KBPS_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
_KBPS_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
_RATES_HZ = (44_100, 48_000, 32_000, 0)


def says_its_length(data: bytes) -> bool:
    """Returns whether the first frame of an MP3 file holds a tag that tells how many frames follow."""
    start = _first_frame(data)
    return any(tag in data[start : start + _SEARCHED] for tag in (b"Xing", b"Info", b"VBRI"))


def count_samples(data: bytes) -> int:
    """Returns the samples of one channel in the frames of a whole MP3 file, as a decoder would give them."""
    offset, num_samples = _first_frame(data), 0
    while (frame := _frame(data[offset : offset + 4])) is not None:
        size, samples = frame
        offset += size
        if offset > len(data):
            break
        num_samples += samples
    return num_samples


def _first_frame(data: bytes) -> int:
    """Returns where the ID3v2 tag ends, its size being four times seven bits."""
    if data[:3] != b"ID3" or len(data) < 10:
        return 0
    size = 0
    for byte in data[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size


def _frame(header: bytes) -> tuple[int, int] | None:
    """Returns bytes and samples of a Layer III frame; None where there is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version = header[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    is_first = version == 3
    kbps = (_KBPS_V1 if is_first else _KBPS_V2)[header[2] >> 4]
    rate_hz = _RATES_HZ[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}.get(version, 31)
    if not kbps or not rate_hz:
        return None
    samples = 1_152 if is_first else 576
    return samples // 8 * kbps * 1_000 // rate_hz + (header[2] >> 1 & 1), samples
