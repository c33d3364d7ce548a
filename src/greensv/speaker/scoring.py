"""Cosine scores of pairs of embeddings; higher means rather the same speaker."""

import numpy as np
from jaxtyping import Float32

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs

PAIRS_PER_BLOCK = 16_384
"""Two gathered blocks of 256 float32 values per pair are 32 MiB, whatever the number of pairs."""


def score_pairs(embeddings: Float32[np.ndarray, "utterances embedding"], pairs: Pairs) -> Float32[np.ndarray, "pairs"]:
    """Returns the cosine of each pair's two embeddings, in [−1, 1].

    Raises:
        DataError: an embedding of a pair is zero or not finite, so that it has no direction.
    """
    norms = np.linalg.norm(embeddings, axis=1)
    used = np.zeros(len(embeddings), dtype=np.bool_)
    used[pairs.enrolment] = used[pairs.test] = True
    without_direction = np.flatnonzero(used & ~(np.isfinite(norms) & (norms > 0)))
    if len(without_direction):
        raise DataError(
            f"the embedding of utterance {without_direction[0]} (of {len(embeddings)}, counted from 0) is zero or not "
            "finite and has no cosine; the network is not trained or has diverged"
        )
    unit = embeddings / np.where(used, norms, 1)[:, None]
    scores = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        block = slice(start, start + PAIRS_PER_BLOCK)
        np.einsum("pe,pe->p", unit[pairs.enrolment[block]], unit[pairs.test[block]], out=scores[block])
    return scores.clip(-1, 1)
