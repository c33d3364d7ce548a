import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.search.front import knee, non_dominated, pareto_front
from greensv.trial_record import TrialRecord


def trial(number: int, eer: float | None, energy_kwh: float | None) -> TrialRecord:
    return TrialRecord(number=number, state="complete", eer=eer, train_energy_kwh=energy_kwh)


def numbers(trials: list[TrialRecord]) -> list[int]:
    return [t.number for t in trials]


def test_the_front_holds_the_non_dominated_from_the_cheapest_to_the_dearest():
    trials = [
        trial(0, 0.10, 3.0),
        trial(1, 0.20, 1.0),
        trial(2, 0.20, 2.0),  # 1 is as good and cheaper
        trial(3, 0.05, 9.0),
        trial(4, 0.11, 3.5),  # 0 is better and cheaper
        trial(5, 0.10, 3.0),  # equal to 0
    ]
    assert numbers(pareto_front(trials)) == [1, 0, 5, 3]


def test_trials_without_both_objectives_are_not_in_the_front():
    assert numbers(pareto_front([trial(0, None, 1.0), trial(1, 0.1, None), trial(2, 0.9, 9.0)])) == [2]
    assert pareto_front([trial(0, None, 1.0)]) == []


def test_an_eer_of_zero_is_in_the_front():
    assert numbers(pareto_front([trial(0, 0.0, 2.0), trial(1, 0.1, 1.0)])) == [1, 0]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_a_point_is_kept_exactly_when_no_other_dominates_it(points: list[tuple[int, int]]):
    kept = non_dominated(np.array(points, dtype=np.float64))
    for (x, y), is_kept in zip(points, kept, strict=True):
        assert is_kept == (not any(a <= x and b <= y and (a < x or b < y) for a, b in points))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=25))
def test_the_front_agrees_with_optunas(points: list[tuple[int, int]]):
    import optuna

    study = optuna.create_study(directions=["minimize", "minimize"])
    for point in points:
        study.add_trial(optuna.trial.create_trial(values=point))
    front = pareto_front([trial(number, *map(float, point)) for number, point in enumerate(points)])
    assert sorted(numbers(front)) == sorted(t.number for t in study.best_trials)


def test_the_knee_is_farthest_below_the_chord_over_the_logarithm_of_energy():
    # Scaled: ln energy 0, 1/4, 1/2, 1; EER 1, 0.5, 0.1, 0. Below the chord 1 - x: 0, 0.25, 0.4, 0.
    front = [trial(0, 0.20, 1.0), trial(1, 0.15, 10.0), trial(2, 0.11, 100.0), trial(3, 0.10, 10_000.0)]
    assert knee(front).number == 2
    # Over plain energy it would be trial 2, by 0.800 to 0.799; over its logarithm it is 1, by 0.55 to 0.15.
    steep = [trial(0, 0.20, 1.0), trial(1, 0.12, 10.0), trial(2, 0.11, 1_000.0), trial(3, 0.10, 10_000.0)]
    assert knee(steep).number == 1


@pytest.mark.parametrize(
    ("front", "expected"),
    [
        ([trial(7, 0.3, 1.0)], 7),
        ([trial(7, 0.3, 1.0), trial(8, 0.2, 5.0)], 8),
        ([trial(1, 0.3, 2.0), trial(2, 0.3, 2.0), trial(3, 0.3, 2.0)], 1),
        # Bulging: the middle one lies above the chord, so energy buys accuracy up to the end.
        ([trial(1, 0.3, 1.0), trial(2, 0.29, 10.0), trial(3, 0.1, 100.0)], 3),
    ],
)
def test_the_knee_of_a_front_without_a_bend(front: list[TrialRecord], expected: int):
    assert knee(front).number == expected
