import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from greensv.search.front import non_dominated
from greensv.search.sampling.improvement import expected_below, expected_improvement


@pytest.mark.parametrize(("level", "mean", "deviation"), [(0.05, -3.0, 0.2), (0.05, -2.5, 0.1), (2.0, 0.0, 1.0)])
def test_expected_improvement_of_a_log_normal_is_its_integral(level: float, mean: float, deviation: float):
    expected, _ = quad(
        lambda z: (level - np.exp(z)) * norm.pdf(z, mean, deviation), mean - 9 * deviation, np.log(level)
    )
    found = expected_below(np.array([level]), np.array([mean]), np.array([deviation]))
    assert found[0, 0] == pytest.approx(max(expected, 0.0), rel=1e-6, abs=1e-12)


def improvement(known: list[list[float]], eers: list[float], *, deviation: float, **front: np.ndarray) -> np.ndarray:
    return expected_improvement(
        np.array(known), np.log(np.array(eers)), np.full(len(eers), deviation), reference_uncertain=1.0, **front
    )


def test_a_certain_candidate_adds_the_area_that_it_dominates_alone():
    # The staircase: 1 up to energy 1, 0.6 to 3, 0.2 to the reference at 5.
    front = {
        "front": np.array([[1.0], [3.0]]),
        "front_uncertain": np.array([0.6, 0.2]),
        "reference": np.array([5.0]),
    }
    found = improvement([[0.5], [2.0], [2.0], [4.0], [6.0]], [0.5, 0.5, 0.7, 0.1, 0.1], deviation=1e-6, **front)
    # 0.5 × (1 - 0.5) + 2 × (0.6 - 0.5); 1 × (0.6 - 0.5); dominated; 1 × (0.2 - 0.1); beyond the reference
    assert found == pytest.approx([0.45, 0.1, 0.0, 0.1, 0.0], abs=1e-6)


def test_three_objectives_by_hand():
    front = {
        "front": np.array([[1.0, 1.0]]),
        "front_uncertain": np.array([0.5]),
        "reference": np.array([3.0, 2.0]),
    }
    found = improvement([[0.0, 0.0], [1.0, 1.0], [2.0, 0.5]], [0.4, 0.4, 0.9], deviation=1e-6, **front)
    # A box of 3 × 2 × 0.6 less what the member has of it, 2 × 1 × 0.5; 2 × 1 × 0.1; 1 × 0.5 × 0.1 where it has nothing.
    assert found == pytest.approx([3.6 - 1.0, 0.2, 0.05], abs=1e-6)


def test_an_empty_front_leaves_everything_to_gain():
    empty = {"front": np.zeros((0, 1)), "front_uncertain": np.zeros(0), "reference": np.array([2.0])}
    assert improvement([[0.5]], [0.25], deviation=1e-6, **empty) == pytest.approx([1.5 * 0.75], abs=1e-6)


@pytest.mark.parametrize("num_known", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_mean_over_random_points_of_the_box(num_known: int, seed: int):
    random = np.random.default_rng(seed)
    front, eers = random.random((6, num_known)), 0.3 + 0.6 * random.random(6)
    kept = non_dominated(np.column_stack([front, eers]))
    front, eers = front[kept], eers[kept]
    known, mean, deviation = random.random((3, num_known)), np.log(0.3 + 0.6 * random.random(3)), np.full(3, 0.3)
    found = expected_improvement(
        known,
        mean,
        deviation,
        front=front,
        front_uncertain=eers,
        reference=np.full(num_known, 1.1),
        reference_uncertain=1.0,
    )
    box = random.random((40_000, num_known + 1)) * ([1.1] * num_known + [1.0])
    is_dominated = np.zeros(len(box), dtype=bool)
    for member, eer in zip(front, eers, strict=True):
        is_dominated |= np.all(box[:, :-1] >= member, axis=1) & (box[:, -1] >= eer)
    for candidate in range(3):
        drawn = np.exp(mean[candidate] + 0.3 * random.standard_normal(len(box)))
        added = ~is_dominated & np.all(box[:, :-1] >= known[candidate], axis=1) & (box[:, -1] >= drawn)
        assert found[candidate] == pytest.approx(1.1**num_known * added.mean(), rel=0.15, abs=4e-3)
