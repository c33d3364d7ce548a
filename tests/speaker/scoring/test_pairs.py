import numpy as np
import pytest

from greensv.errors import DataError
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Pairs, Protocol
from greensv.speaker.scoring import pairs as scoring
from greensv.speaker.scoring.pairs import score_pairs, score_protocol_pairs


def pairs_of(*pairs: tuple[int, int]) -> Pairs:
    columns = np.array(pairs, dtype=np.int32).T
    return Pairs(enrolment=columns[0], test=columns[1], is_target=np.zeros(len(pairs), dtype=np.bool_))


def test_scores_are_cosines() -> None:
    embeddings = np.array([[1, 0], [0, 5], [3, 3], [-2, 0]], dtype=np.float32)
    scores = score_pairs(embeddings, pairs_of((0, 1), (0, 2), (2, 1), (0, 3), (1, 1)))
    assert scores.tolist() == pytest.approx([0, 0.5**0.5, 0.5**0.5, -1, 1])
    assert scores.dtype == np.float32


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(9, 4)).astype(np.float32)
    pairs = pairs_of(*[(int(a), int(b)) for a, b in rng.integers(0, 9, size=(11, 2))])
    at_once = score_pairs(embeddings, pairs)
    monkeypatch.setattr(scoring, "PAIRS_PER_BLOCK", 3)
    assert np.array_equal(score_pairs(embeddings, pairs), at_once)


def test_scores_stay_within_one_and_do_not_depend_on_length() -> None:
    embeddings = np.random.default_rng(0).normal(size=(50, 256)).astype(np.float32)
    same = pairs_of(*[(i, i) for i in range(50)])
    assert score_pairs(embeddings, same).max() <= 1
    other = pairs_of((0, 1), (2, 3))
    assert score_pairs(embeddings * 1000, other) == pytest.approx(score_pairs(embeddings, other), abs=1e-6)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_embedding_without_direction_is_an_error_where_it_is_used(bad: float) -> None:
    embeddings = np.array([[1, 0], [bad, bad], [0, 1]], dtype=np.float32)
    with pytest.raises(DataError, match=r"embedding of utterance 1 .* has no cosine"):
        score_pairs(embeddings, pairs_of((0, 2), (2, 1)))
    assert score_pairs(embeddings, pairs_of((0, 2))).tolist() == [0]


def test_models_are_means_of_embeddings_as_they_are() -> None:
    embeddings = np.array([[9, 0], [0, 3], [1, 1], [np.nan, 0]], dtype=np.float32)
    utterances = build_utterances(ids=list("abcd"), paths=list("abcd"), speaker_of=list("xxyy"), num_samples=np.ones(4))
    # Model 0 is (9, 3) / 2, not the mean of directions; no pair uses model 1.
    models = (np.array([0, 1], dtype=np.int32), np.array([3], dtype=np.int32))
    protocol = Protocol(name="average", utterances=utterances, pairs=pairs_of((0, 2), (0, 0)), models=models)
    assert score_protocol_pairs(embeddings, protocol).tolist() == pytest.approx([2 / 5**0.5, 3 / 10**0.5])
    bad = Protocol(name="average", utterances=utterances, pairs=pairs_of((1, 2)), models=models)
    with pytest.raises(DataError, match=r"embedding of model 1 .* has no cosine"):
        score_protocol_pairs(embeddings, bad)


def test_protocol_without_models_is_scored_by_its_utterances() -> None:
    embeddings = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    utterances = build_utterances(ids=list("abcd"), paths=list("abcd"), speaker_of=list("xxyy"), num_samples=np.ones(4))
    pairs = pairs_of((0, 1), (2, 0))
    protocol = Protocol(name="plain", utterances=utterances, pairs=pairs)
    assert np.array_equal(score_protocol_pairs(embeddings, protocol), score_pairs(embeddings, pairs))
