import numpy as np
import pytest

from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Pairs, Protocol
from greensv.speaker.scoring.normalisation import CohortStatistics
from greensv.speaker.scoring.quality import pair_qualities, protocol_qualities

UTTERANCES = build_utterances(
    ids=list("abc"),
    paths=list("abc"),
    speaker_of=["x", "x", "y"],
    num_samples=np.array([16_000, 32_000, 16_000 * 500]),
)
PAIRS = Pairs(
    enrolment=np.array([0, 1], dtype=np.int32),
    test=np.array([2, 0], dtype=np.int32),
    is_target=np.array([False, True]),
)
EMBEDDINGS = np.array([[3, 4], [0, 1], [0, 2]], dtype=np.float32)


def test_measures_are_the_smaller_and_the_larger_of_both_sides() -> None:
    found = protocol_qualities(Protocol(name="p", utterances=UTTERANCES, pairs=PAIRS), EMBEDDINGS, max_duration_s=120.0)
    assert list(found) == ["log_duration_min", "log_duration_max", "log_magnitude_min", "log_magnitude_max"]
    assert np.exp(found["log_duration_min"]) == pytest.approx([1, 1])
    assert np.exp(found["log_duration_max"]) == pytest.approx([120, 2])  # no more was embedded
    assert np.exp(found["log_magnitude_min"]) == pytest.approx([2, 1])
    assert np.exp(found["log_magnitude_max"]) == pytest.approx([5, 5])


def test_models_have_the_speech_of_all_their_utterances_and_the_embedding_of_their_mean() -> None:
    models = (np.array([0, 1], dtype=np.int32), np.array([1], dtype=np.int32))
    protocol = Protocol(name="p", utterances=UTTERANCES, pairs=PAIRS, models=models)
    statistics = [
        CohortStatistics(mean=np.array(mean, dtype=np.float32), std=np.ones(3)) for mean in ([1, 5], [2, 9, 3])
    ]
    found = protocol_qualities(protocol, EMBEDDINGS, max_duration_s=120.0, cohort=(statistics[0], statistics[1]))
    assert np.exp(found["log_duration_min"]) == pytest.approx([3, 1])
    assert np.exp(found["log_magnitude_max"]) == pytest.approx([np.hypot(1.5, 2.5), 5])
    assert found["cohort_mean_min"].tolist() == [1, 2]
    assert found["cohort_mean_max"].tolist() == [3, 5]


def test_the_order_of_the_sides_does_not_matter() -> None:
    one, other = {"a": np.array([1.0, 5.0])}, {"a": np.array([2.0, 3.0])}
    first, second = pair_qualities(one, other), pair_qualities(other, one)
    assert {name: column.tolist() for name, column in first.items()} == {"a_min": [1, 3], "a_max": [2, 5]}
    assert all(np.array_equal(first[name], second[name]) for name in first)
