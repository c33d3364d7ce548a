"""Adaptive symmetric score normalisation (AS-norm) against a cohort of other speakers.

A score is compared with those that its two sides have with the N cohort speakers most like them (Cumani et al. 2011,
"Comparison of speaker recognition approaches for real applications"; Matějka et al. 2017, "Analysis of score
normalization in multilingual speaker recognition", there AS-norm1). With the whole cohort instead of the N nearest it
is S-norm. Cohort speakers are means of their embeddings, as in WeSpeaker, which is cheaper and better than utterances.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs
from greensv.speaker.scoring.pairs import group_means

TOP_N = 300
BLOCK_BYTES = 32 << 20
"""Scores against the cohort held at once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CohortStatistics:
    """For each embedding, mean and standard deviation of its scores with the cohort speakers nearest to it."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def speaker_means(
    embeddings: Float32[np.ndarray, "utterances embedding"], speakers: NDArray[np.int32]
) -> Float32[np.ndarray, "speakers embedding"]:
    """Returns the mean embedding of each speaker that has utterances, in the order of the speakers' numbers."""
    order = np.argsort(speakers, kind="stable").astype(np.int32)
    groups = np.split(order, np.flatnonzero(np.diff(speakers[order])) + 1)
    return group_means(embeddings, groups)


def cohort_statistics(
    embeddings: Float32[np.ndarray, "any embedding"],
    cohort: Float32[np.ndarray, "speakers embedding"],
    *,
    used: NDArray[np.int32],
    top_n: int = TOP_N,
) -> CohortStatistics:
    """Returns the statistics of embeddings against a cohort, in blocks: memory does not grow with their number.

    Args:
        embeddings: utterances or models, of any length (norm).
        cohort: a row per speaker, of any length.
        used: indices of the embeddings wanted, repeated or not; the others' statistics are NaN.
        top_n: how many of the cohort's highest scores count; all where the cohort is smaller (S-norm).

    Raises:
        DataError: the cohort has fewer than two speakers or `top_n` is below 2, so that nothing deviates; or an
            embedding has no direction or the same score with all its nearest speakers.
    """
    num = min(top_n, len(cohort))
    if num < 2:
        raise DataError(
            f"score normalisation needs the scores with two speakers at least, found a cohort of {len(cohort)} "
            f"speakers and a top N of {top_n}; give a larger cohort"
        )
    unit_cohort = _unit(cohort, "cohort speaker").T
    mean = np.full(len(embeddings), np.nan, dtype=np.float32)
    std = mean.copy()
    indices = np.unique(used)
    rows = max(1, BLOCK_BYTES // (4 * len(cohort)))
    for start in range(0, len(indices), rows):
        here = indices[start : start + rows]
        scores = _unit(embeddings[here], "embedding") @ unit_cohort
        scores.partition(len(cohort) - num, axis=1)
        nearest = scores[:, len(cohort) - num :]
        mean[here] = nearest.mean(axis=1, dtype=np.float64)
        nearest -= mean[here, None]
        std[here] = np.sqrt(np.einsum("ij,ij->i", nearest, nearest, dtype=np.float64) / num)
    same = indices[std[indices] < 1e-6]
    if len(same):
        raise DataError(
            f"embedding {same[0]} (counted from 0) has the same score with all of the {num} nearest cohort speakers; "
            "the cohort's embeddings do not differ, is the network trained?"
        )
    return CohortStatistics(mean=mean, std=std)


def normalise_scores(
    scores: Float32[np.ndarray, "pairs"], pairs: Pairs, *, enrolment: CohortStatistics, test: CohortStatistics
) -> Float32[np.ndarray, "pairs"]:
    """Returns the mean of each score's distances from both sides' cohort means, in their standard deviations.

    Args:
        scores: cosines, one per pair.
        pairs: whose `enrolment` points into the statistics `enrolment`, and whose `test` into `test`.
        enrolment: of utterances, or of models where the protocol has models.
        test: of utterances.
    """
    normalised = (scores - enrolment.mean[pairs.enrolment]) / enrolment.std[pairs.enrolment]
    normalised += (scores - test.mean[pairs.test]) / test.std[pairs.test]
    normalised *= 0.5
    return normalised


def _unit(embeddings: Float32[np.ndarray, "any embedding"], what: str) -> Float32[np.ndarray, "any embedding"]:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if len(bad):
        raise DataError(f"a {what}'s embedding is zero or not finite and has no cosine; the network has diverged")
    unit: Float32[np.ndarray, "any embedding"] = embeddings / norms
    return unit
