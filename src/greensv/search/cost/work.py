"""The work of a network, and what such work costs before anything has been measured on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one forward pass: MACs and activations per second of speech, and how many layers run."""

    macs: float
    activations: float
    """Values that a training step keeps for the gradients (`Complexity.kept_values`): what it writes, moves and reads.

    Outputs of convolutions alone tell less: what lies between two convolutions differs from family to family.
    """
    num_layers: float = 0.0
    """Convolutions and linear layers that run in a pass, however long the speech; 0 where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Joules of training on one second of speech, by its work; all three passes of a step included.

    A sum, since that is how the parts of a step add up: matrix products, activations that are moved, layers that are
    started, and what has nothing to do with the network (reading audio, features). Only the ratios are trusted much.
    """

    per_gmac: float
    per_mega_activation: float
    per_layer: float
    per_second: float
    level_log_std: float
    """Standard deviation of ln(scale), from one machine to another."""

    @property
    def weights(self) -> NDArray[np.float64]:
        """The four figures in the order of `parts_of`."""
        return np.array([self.per_gmac, self.per_mega_activation, self.per_layer, self.per_second])


def parts_of(works: Sequence[Work]) -> NDArray[np.float64]:
    """Returns GMACs, millions of activations, layers and 1 for each work, shape (works, 4)."""
    return np.array([(work.macs / 1e9, work.activations / 1e6, work.num_layers, 1.0) for work in works]).reshape(-1, 4)
