"""Other sample rates: torchaudio's windowed-sinc interpolation, in blocks, so that a part equals the part of the whole.

Each second of the result is computed from the same samples in a call of the same shape, whatever part was asked for.
Converted at once, the last bits of a sample depend on how many others are converted with it.
"""

from collections.abc import Callable
from functools import cache
from math import ceil, gcd

import numpy as np
from jaxtyping import Float32

_LOWPASS_FILTER_WIDTH = 6
_ROLLOFF = 0.99

Read = Callable[[int, int], Float32[np.ndarray, " samples"]]
"""Called with the first sample and how many; returns them, at the file's own rate."""


def resampled_length(num_samples: int, *, from_hz: int, to_hz: int) -> int:
    """Returns how many samples `num_samples` become, rounded up as torchaudio does."""
    return -(-num_samples * to_hz // from_hz)


def resample(
    read: Read, *, num_samples: int, from_hz: int, to_hz: int, start: int, stop: int
) -> Float32[np.ndarray, " samples"]:
    """Returns samples `start` to `stop`, counted at `to_hz`, of a signal of `num_samples` samples at `from_hz`.

    What `torchaudio.transforms.Resample` gives with its defaults (Smith, "Digital Audio Resampling": a sinc of six zero
    crossings in a Hann window, cut-off at 0.99 of half the lower rate), up to rounding. `read` is asked once, for the
    whole seconds that the part lies in and a little about them.
    """
    first, last = start // to_hz, (stop - 1) // to_hz  # blocks of one second
    context = _context(from_hz, to_hz)
    begin, end = max(first * from_hz - context, 0), min((last + 1) * from_hz + context, num_samples)
    source = np.zeros((last + 1 - first) * from_hz + 2 * context, dtype=np.float32)
    offset = begin - (first * from_hz - context)
    source[offset : offset + end - begin] = read(begin, end - begin)
    converter, skipped = _converter(from_hz, to_hz), context * to_hz // from_hz
    blocks = [
        converter(source[block * from_hz : (block + 1) * from_hz + 2 * context])[skipped : skipped + to_hz]
        for block in range(last + 1 - first)
    ]
    return np.concatenate(blocks)[start - first * to_hz : stop - first * to_hz]


def _context(from_hz: int, to_hz: int) -> int:
    """Returns how many samples before and after a block it depends on, in whole periods of both rates."""
    divisor = gcd(from_hz, to_hz)
    period, new_period = from_hz // divisor, to_hz // divisor
    width = ceil(_LOWPASS_FILTER_WIDTH * period / (min(period, new_period) * _ROLLOFF))
    return ceil(width / period + 1) * period


@cache
def _converter(from_hz: int, to_hz: int) -> Callable[[Float32[np.ndarray, " n"]], Float32[np.ndarray, " m"]]:
    """Returns the conversion, its filter computed once."""
    import torch
    from torchaudio.transforms import Resample

    transform = Resample(from_hz, to_hz, lowpass_filter_width=_LOWPASS_FILTER_WIDTH, rolloff=_ROLLOFF)

    def convert(block: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " m"]:
        with torch.inference_mode():
            converted: Float32[np.ndarray, " m"] = transform(torch.from_numpy(block)).numpy()
        return converted

    return convert
