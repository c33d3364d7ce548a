import numpy as np
import pytest
from numpy.typing import NDArray

from greensv.errors import DataError
from greensv.speaker.dataset import Pairs
from greensv.speaker.scoring import normalisation as score_normalisation
from greensv.speaker.scoring.normalisation import cohort_statistics, normalise_scores, speaker_means

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(12, 16)).astype(np.float32) * RNG.uniform(0.1, 9, size=(12, 1)).astype(np.float32)
COHORT = RNG.normal(size=(40, 16)).astype(np.float32) * 3
ALL = np.arange(12, dtype=np.int32)


def statistics_in_words(embedding: NDArray[np.float32], top_n: int) -> tuple[float, float]:
    """Mean and deviation of an embedding's highest cosines, one by one."""
    cosines = [float(embedding @ c / np.linalg.norm(embedding) / np.linalg.norm(c)) for c in COHORT]
    nearest = sorted(cosines, reverse=True)[:top_n]
    return float(np.mean(nearest)), float(np.std(nearest))


@pytest.mark.parametrize("top_n", [2, 7, 40, 300])
def test_statistics_are_those_of_the_highest_cosines(top_n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.array([statistics_in_words(embedding, top_n) for embedding in EMBEDDINGS])
    found = cohort_statistics(EMBEDDINGS, COHORT, used=ALL, top_n=top_n)
    assert np.stack([found.mean, found.std], axis=1) == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(score_normalisation, "BLOCK_BYTES", 4 * 40 * 5)
    in_blocks = cohort_statistics(EMBEDDINGS, COHORT, used=ALL, top_n=top_n)
    assert in_blocks.mean == pytest.approx(found.mean, abs=1e-6)
    assert in_blocks.std == pytest.approx(found.std, abs=1e-6)


def test_normalised_scores_are_the_mean_distance_from_both_sides() -> None:
    pairs = Pairs(
        enrolment=np.array([0, 3, 3], dtype=np.int32),
        test=np.array([1, 2, 3], dtype=np.int32),
        is_target=np.array([True, False, True]),
    )
    scores = np.array([0.7, -0.1, 1.0], dtype=np.float32)
    statistics = cohort_statistics(EMBEDDINGS, COHORT, used=ALL, top_n=5)
    expected = []
    for score, *sides in zip(scores, pairs.enrolment, pairs.test, strict=True):
        (mean_a, std_a), (mean_b, std_b) = (statistics_in_words(EMBEDDINGS[side], 5) for side in sides)
        expected.append(((score - mean_a) / std_a + (score - mean_b) / std_b) / 2)
    found = normalise_scores(scores, pairs, enrolment=statistics, test=statistics)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, rel=1e-4)


def test_only_embeddings_in_use_are_looked_at() -> None:
    embeddings = EMBEDDINGS.copy()
    embeddings[5] = np.nan
    found = cohort_statistics(embeddings, COHORT, used=np.array([2, 0, 2], dtype=np.int32), top_n=5)
    assert np.flatnonzero(np.isfinite(found.mean)).tolist() == [0, 2]
    with pytest.raises(DataError, match="zero or not finite"):
        cohort_statistics(embeddings, COHORT, used=ALL)


def test_speaker_means_are_of_embeddings_as_they_are() -> None:
    embeddings = np.array([[1, 0], [0, 4], [3, 0], [9, 9]], dtype=np.float32)
    assert speaker_means(embeddings, np.array([2, 0, 2, 1], dtype=np.int32)).tolist() == [[0, 4], [9, 9], [2, 0]]


def test_a_cohort_without_variety_is_an_error() -> None:
    with pytest.raises(DataError, match="a cohort of 1 speakers"):
        cohort_statistics(EMBEDDINGS, COHORT[:1], used=ALL)
    with pytest.raises(DataError, match="top N of 1"):
        cohort_statistics(EMBEDDINGS, COHORT, used=ALL, top_n=1)
    with pytest.raises(DataError, match="the same score with all of the 3"):
        cohort_statistics(EMBEDDINGS, np.repeat(COHORT[:1], 3, axis=0), used=ALL)
