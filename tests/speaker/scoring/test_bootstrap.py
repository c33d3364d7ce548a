import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from greensv.errors import DataError
from greensv.speaker.corpora.corpus import build_utterances
from greensv.speaker.dataset import Pairs, Protocol
from greensv.speaker.scoring import bootstrap as module
from greensv.speaker.scoring.bootstrap import bootstrap, bootstrap_eer, protocol_speakers
from greensv.speaker.scoring.metrics import eer, min_dcf


def eer_of_sklearn(
    scores: NDArray[np.float64], is_target: NDArray[np.bool_], weights: NDArray[np.float64] | None = None
) -> float:
    """The ROC of scikit-learn, walked along its length: where false accept = miss."""
    false_accept, accept, _ = roc_curve(is_target, scores, sample_weight=weights, drop_intermediate=False)
    along = np.arange(len(accept))
    gap = lambda x: np.interp(x, along, false_accept) - (1 - np.interp(x, along, accept))  # noqa: E731
    return float(np.interp(brentq(gap, 0, along[-1], xtol=1e-12), along, false_accept))


def min_dcf_of_sklearn(
    scores: NDArray[np.float64], is_target: NDArray[np.bool_], weights: NDArray[np.float64], p_target: float
) -> float:
    false_accept, accept, _ = roc_curve(is_target, scores, sample_weight=weights, drop_intermediate=False)
    return float((p_target * (1 - accept) + (1 - p_target) * false_accept).min() / min(p_target, 1 - p_target))


def population(num_speakers: int, spread: float = 1.0) -> tuple[NDArray[np.float64], Pairs, NDArray[np.int32]]:
    """All pairs of four utterances per speaker, scored by the cosine of noisy speaker vectors."""
    rng = np.random.default_rng(5)
    speakers = np.repeat(np.arange(num_speakers, dtype=np.int32), 4)
    vectors = rng.normal(size=(num_speakers, 8))[speakers] + spread * rng.normal(size=(len(speakers), 8))
    first, second = (side.astype(np.int32) for side in np.triu_indices(len(speakers), 1))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (unit[first] * unit[second]).sum(1).round(2)
    return scores, Pairs(enrolment=first, test=second, is_target=speakers[first] == speakers[second]), speakers


def test_one_resample_equals_scikit_learns_weighted_curve() -> None:
    scores, pairs, speakers = population(12)
    low, high = bootstrap_eer(scores, pairs, speakers, num_resamples=1, seed=3)
    drawn = np.random.default_rng(np.random.SeedSequence(3)).multinomial(12, np.full(12, 1 / 12)).astype(float)
    a, b = speakers[pairs.enrolment], speakers[pairs.test]
    weights = np.where(a == b, drawn[a], drawn[a] * drawn[b])
    assert low == high == pytest.approx(eer_of_sklearn(scores, pairs.is_target, weights))


def test_interval_holds_the_eer_and_narrows_with_more_speakers() -> None:
    widths = []
    for num_speakers in (10, 80):
        scores, pairs, speakers = population(num_speakers)
        low, high = bootstrap_eer(scores, pairs, speakers, num_resamples=300, seed=0)
        assert 0 <= low < eer(scores, pairs.is_target) < high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 1.5


def test_interval_is_a_function_of_the_seed() -> None:
    scores, pairs, speakers = population(15)
    again = [bootstrap_eer(scores, pairs, speakers, num_resamples=50, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_resamples_without_a_class_are_drawn_again() -> None:
    # Two speakers: half of the resamples draw one of them twice and have no nontarget pair.
    pairs = Pairs(
        enrolment=np.array([0, 2, 0, 1], dtype=np.int32),
        test=np.array([1, 3, 2, 3], dtype=np.int32),
        is_target=np.array([True, True, False, False]),
    )
    low, high = bootstrap_eer([0.9, 0.1, 0.2, 0.3], pairs, np.array([0, 0, 1, 1], dtype=np.int32), num_resamples=20)
    assert low == high == pytest.approx(0.5)


def test_interval_needs_two_speakers() -> None:
    pairs = Pairs(
        enrolment=np.array([0, 0], dtype=np.int32),
        test=np.array([1, 2], dtype=np.int32),
        is_target=np.array([True, False]),
    )
    with pytest.raises(DataError, match="two speakers at least"):
        bootstrap_eer([1.0, 0.0], pairs, np.zeros(3, dtype=np.int32))


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("margin", [0.0, 2.0])
def test_values_are_exact_whatever_part_of_the_curve_is_looked_at(
    spread: float, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a margin most resamples need what lies beyond the stretch, and are computed on all pairs.
    monkeypatch.setattr(module, "MARGIN", margin)
    scores, pairs, speakers = population(10, spread)
    sides = speakers[pairs.enrolment], speakers[pairs.test]
    priors = (0.01, 0.1, 0.5)
    found = bootstrap(scores, pairs.is_target, sides, p_targets=priors, num_resamples=25, seed=1)
    rng, values = np.random.default_rng(np.random.SeedSequence(1)), []
    while len(values) < 25:
        drawn = rng.multinomial(10, np.full(10, 0.1)).astype(float)
        weights = np.where(sides[0] == sides[1], drawn[sides[0]], drawn[sides[0]] * drawn[sides[1]])
        costs = [min_dcf_of_sklearn(scores, pairs.is_target, weights, p) for p in priors]
        values.append([eer_of_sklearn(scores, pairs.is_target, weights), *costs])
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    assert found.eer == pytest.approx((low[0], high[0]), abs=1e-9)
    assert np.array(found.min_dcf) == pytest.approx(np.stack([low[1:], high[1:]], axis=1), abs=1e-9)


def test_interval_of_min_dcf_holds_it() -> None:
    scores, pairs, speakers = population(40)
    sides = speakers[pairs.enrolment], speakers[pairs.test]
    ((low, high),) = bootstrap(scores, pairs.is_target, sides, p_targets=(0.05,), num_resamples=200).min_dcf
    assert 0 <= low < min_dcf(scores, pairs.is_target, p_target=0.05) < high <= 1


def test_perfect_scores_have_an_interval_of_nothing() -> None:
    _, pairs, speakers = population(6)
    perfect = pairs.is_target.astype(float)
    sides = speakers[pairs.enrolment], speakers[pairs.test]
    found = bootstrap(perfect, pairs.is_target, sides, p_targets=(0.01,), num_resamples=20)
    assert (found.eer, found.min_dcf) == ((0, 0), ((0, 0),))
    assert bootstrap(-perfect, pairs.is_target, sides, num_resamples=20).eer == (1, 1)


def test_speakers_of_models_are_those_of_their_utterances() -> None:
    utterances = build_utterances(
        ids=list("abcde"), paths=list("abcde"), speaker_of=["x", "x", "y", "y", "z"], num_samples=np.ones(5)
    )
    pairs = Pairs(
        enrolment=np.array([0, 1, 1], dtype=np.int32),
        test=np.array([4, 2, 0], dtype=np.int32),
        is_target=np.array([False, True, False]),
    )
    models = (np.array([0, 1], dtype=np.int32), np.array([3], dtype=np.int32))
    protocol = Protocol(name="average", utterances=utterances, pairs=pairs, models=models)
    assert [side.tolist() for side in protocol_speakers(protocol)] == [[0, 1, 1], [2, 1, 0]]
    plain = Protocol(name="plain", utterances=utterances, pairs=pairs)
    assert [side.tolist() for side in protocol_speakers(plain)] == [[0, 0, 0], [2, 1, 0]]
