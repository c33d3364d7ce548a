"""Cosine scores of pairs of embeddings; higher means rather the same speaker."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs, Protocol

PAIRS_PER_BLOCK = 16_384
"""Two gathered blocks of 256 float32 values per pair are 32 MiB, whatever the number of pairs."""


def score_pairs(embeddings: Float32[np.ndarray, "utterances embedding"], pairs: Pairs) -> Float32[np.ndarray, "pairs"]:
    """Returns the cosine of each pair's two embeddings, in [−1, 1]; the pairs are of utterances, not of models.

    Raises:
        DataError: an embedding of a pair is zero or not finite, so that it has no direction.
    """
    is_used = np.zeros(len(embeddings), dtype=np.bool_)
    is_used[pairs.enrolment] = is_used[pairs.test] = True
    unit = _directions(embeddings, is_used, what="utterance")
    return _cosines(unit, unit, pairs)


def score_protocol_pairs(
    embeddings: Float32[np.ndarray, "utterances embedding"], protocol: Protocol
) -> Float32[np.ndarray, "pairs"]:
    """Returns the cosine of each pair of a protocol, in [−1, 1], of its models where it has them.

    Raises:
        DataError: an embedding of a pair is zero or not finite, so that it has no direction.
    """
    pairs = protocol.pairs
    if not protocol.models:
        return score_pairs(embeddings, pairs)
    enrolled = enrolment_embeddings(embeddings, protocol)
    is_enrolled, is_tested = np.zeros(len(enrolled), dtype=np.bool_), np.zeros(len(embeddings), dtype=np.bool_)
    is_enrolled[pairs.enrolment] = is_tested[pairs.test] = True
    enrolled = _directions(enrolled, is_enrolled, what="model")
    return _cosines(enrolled, _directions(embeddings, is_tested, what="utterance"), pairs)


def enrolment_embeddings(
    embeddings: Float32[np.ndarray, "utterances embedding"], protocol: Protocol
) -> Float32[np.ndarray, "enrolments embedding"]:
    """Returns what `protocol.pairs.enrolment` points into: the utterances' embeddings, or those of the models.

    A model's is the mean of its utterances' embeddings as the network gives them, as in CN-Celeb's average protocol.
    """
    return group_means(embeddings, protocol.models) if protocol.models else embeddings


def group_means(
    embeddings: Float32[np.ndarray, "utterances embedding"], groups: Sequence[NDArray[np.int32]]
) -> Float32[np.ndarray, "groups embedding"]:
    """Returns the mean embedding of each group of utterances, none empty, not normalised before or after."""
    means = np.empty((len(groups), embeddings.shape[1]), dtype=np.float32)
    for number, group in enumerate(groups):
        means[number] = embeddings[group].mean(axis=0, dtype=np.float64)
    return means


def _directions(
    embeddings: Float32[np.ndarray, "any embedding"], is_used: NDArray[np.bool_], *, what: str
) -> Float32[np.ndarray, "any embedding"]:
    """Returns the embeddings at length 1, and those that no pair uses as they are."""
    norms = np.linalg.norm(embeddings, axis=1)
    without_direction = np.flatnonzero(is_used & ~(np.isfinite(norms) & (norms > 0)))
    if len(without_direction):
        raise DataError(
            f"the embedding of {what} {without_direction[0]} (of {len(embeddings)}, counted from 0) is zero or not "
            "finite and has no cosine; the network is not trained or has diverged"
        )
    unit: Float32[np.ndarray, "any embedding"] = embeddings / np.where(is_used, norms, 1)[:, None]
    return unit


def _cosines(
    enrolled: Float32[np.ndarray, "enrolments embedding"], tested: Float32[np.ndarray, "tests embedding"], pairs: Pairs
) -> Float32[np.ndarray, "pairs"]:
    scores = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        block = slice(start, start + PAIRS_PER_BLOCK)
        np.einsum("pe,pe->p", enrolled[pairs.enrolment[block]], tested[pairs.test[block]], out=scores[block])
    return scores.clip(-1, 1)
