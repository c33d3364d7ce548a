"""Independent random streams of one training: each draws from its own, keyed by what it draws for."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The first element of a stream's spawn key; a number, once used, keeps its meaning."""

    CROPS = 0
    HEAD = 1
    NETWORK = 2
    MASKS = 3
    SPEEDS = 4
    DISTURBANCES = 5
    REPLACEMENTS = 6
    DITHER = 7


def sequence(seed: int, stream: Stream, *key: int) -> np.random.SeedSequence:
    """Returns the seed of a stream at `key`, such as the number of a step."""
    return np.random.SeedSequence(seed, spawn_key=(int(stream), *key))


def torch_seed(seed: int, stream: Stream, *key: int) -> int:
    """Returns the same as a number of 64 bits, which torch's generators take."""
    return int(sequence(seed, stream, *key).generate_state(1, np.uint64)[0])
