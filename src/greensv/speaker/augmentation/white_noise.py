"""White Gaussian noise that is the same on every device and in every process, and costs nothing to draw.

Device generators differ between a CPU and a GPU, and a batch drawn in two halves gets other numbers than one drawn
whole. So all white noise is cut from one long piece, at a random place.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

POOL_SAMPLES = 2**21
"""131 s at 16 kHz; 8 MB."""
_SEED = 20_260_301


def white_noise(where: Float[Tensor, " sounds"], *, num_samples: int) -> Float[Tensor, "sounds samples"]:
    """Returns Gaussian noise of mean 0 and deviation 1, on the device of `where`.

    Args:
        where: the place in the long piece, uniform in [0, 1): equal places give equal noise.
        num_samples: samples of each noise; noise longer than the long piece repeats.
    """
    pool = _pool(where.device)
    num_places = POOL_SAMPLES - num_samples + 1
    if num_places < 1:
        start = (where.double() * POOL_SAMPLES).long()
        return pool[(start[:, None] + torch.arange(num_samples, device=where.device)) % POOL_SAMPLES]
    start = (where.double() * num_places).long().clamp(max=num_places - 1)
    return pool.unfold(0, num_samples, 1)[start]


@cache
def _pool(device: torch.device) -> Float[Tensor, " samples"]:
    noise = np.random.default_rng(_SEED).standard_normal(POOL_SAMPLES, dtype=np.float32)
    return torch.from_numpy(noise).to(device)
