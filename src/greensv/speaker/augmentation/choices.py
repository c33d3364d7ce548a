"""What happens to each crop, as a function of one row of uniform random numbers: vectorised, and the same in any part.

A crop's row of numbers is, in this order: which way it is disturbed; how many sounds are added; and for each sound
which one, where in it, at which ratio, and the parameters of a sound that is made rather than read.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from greensv.config import Augmentation

NUM_PARAMETERS = 8
"""Numbers that a built-in sound or room is made from."""

_NUM_BEFORE, _NUM_PER_SOUND = 2, 3 + NUM_PARAMETERS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sounds:
    """The sounds of one way of disturbing, one entry each; all but `rows` and `snr_db` uniform in [0, 1)."""

    rows: Int64[np.ndarray, " sounds"]
    """The crop, ascending."""
    which: Float64[np.ndarray, " sounds"]
    where: Float64[np.ndarray, " sounds"]
    snr_db: Float64[np.ndarray, " sounds"]
    parameters: Float64[np.ndarray, "sounds parameters"]

    def __len__(self) -> int:
        return len(self.rows)


def num_columns(config: Augmentation) -> int:
    """Returns how many uniform random numbers a crop takes."""
    most = max((way.num_files[1] for way in config.disturbances), default=0)
    return _NUM_BEFORE + most * _NUM_PER_SOUND


def choose(config: Augmentation, uniform: Float64[np.ndarray, "crops columns"]) -> list[Sounds]:
    """Returns, for each of the disturbances of `config`, the sounds it gives to which crops.

    Args:
        config: disturbance i takes the crops whose first number lies between the sums of the probabilities before and
            up to it; beyond them all, a crop stays as it is.
        uniform: `num_columns` numbers in [0, 1) for each crop.
    """
    edges = np.cumsum([way.probability for way in config.disturbances])
    chosen = np.searchsorted(edges, uniform[:, 0], side="right")
    per_sound = uniform[:, _NUM_BEFORE:].reshape(len(uniform), -1, _NUM_PER_SOUND)
    sounds = []
    for number, way in enumerate(config.disturbances):
        fewest, most = way.num_files
        num_sounds = fewest + np.floor(uniform[:, 1] * (most - fewest + 1)).astype(np.int64)
        is_heard = np.arange(per_sound.shape[1]) < np.where(chosen == number, num_sounds, 0)[:, None]
        rows, slots = np.nonzero(is_heard)
        numbers = per_sound[rows, slots]
        low, high = way.snr_db
        sounds.append(
            Sounds(
                rows=rows,
                which=numbers[:, 0],
                where=numbers[:, 1],
                snr_db=low + (high - low) * numbers[:, 2],
                parameters=numbers[:, 3:],
            )
        )
    return sounds


def pick(uniform: Float64[np.ndarray, " sounds"], num: Int64[np.ndarray, " sounds"] | int) -> Int64[np.ndarray, " s"]:
    """Returns whole numbers from 0 to `num - 1`, each as likely as the others."""
    picked: Int64[np.ndarray, " s"] = np.minimum((uniform * num).astype(np.int64), np.asarray(num) - 1)
    return picked
