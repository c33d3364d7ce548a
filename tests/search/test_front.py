import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greensv.search.front import knee, non_dominated, pareto_front
from greensv.search.objectives import constraints_of, objectives_of
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


THREE = objectives_of(("eer", "train_energy", "params"))


def of_three(number: int, eer: float, energy_kwh: float, num_parameters: int) -> TrialRecord:
    return TrialRecord(
        number=number, state="complete", eer=eer, train_energy_kwh=energy_kwh, num_parameters=num_parameters
    )


def test_a_third_objective_keeps_what_two_would_drop():
    trials = [of_three(0, 0.1, 2.0, 900), of_three(1, 0.1, 3.0, 100), of_three(2, 0.2, 3.0, 900)]
    assert numbers(pareto_front(trials)) == [0]
    assert numbers(pareto_front(trials, THREE)) == [0, 1]
    assert numbers(pareto_front([trial(0, 0.1, 2.0)], THREE)) == []  # nobody counted its parameters


def test_the_front_is_ordered_by_what_is_traded_for_accuracy():
    trials = [of_three(0, 0.1, 1.0, 900), of_three(1, 0.2, 3.0, 100)]
    assert numbers(pareto_front(trials, objectives_of(("eer", "params")))) == [1, 0]
    assert numbers(pareto_front(trials, objectives_of(("train_energy", "eer")))) == [0]


@given(st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=20))
def test_the_front_of_three_is_what_nobody_dominates(points: list[tuple[int, int, int]]):
    kept = set(numbers(pareto_front([of_three(n, e / 10, float(k), p) for n, (e, k, p) in enumerate(points)], THREE)))
    for number, point in enumerate(points):
        beaten = any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
        assert (number in kept) == (not beaten)


def test_what_breaks_a_constraint_or_was_stopped_is_not_in_the_front():
    trials = [of_three(0, 0.1, 2.0, 900), of_three(1, 0.2, 1.0, 2_000)]
    assert numbers(pareto_front(trials)) == [1, 0]
    assert numbers(pareto_front(trials, constraints=constraints_of(["params < 1k"]))) == [0]
    stopped = TrialRecord(number=2, state="stopped", eer=0.01, train_energy_kwh=0.1)
    assert numbers(pareto_front([*trials, stopped])) == [1, 0]


def test_a_network_of_several_seeds_is_compared_by_their_mean():
    lucky = TrialRecord(number=0, state="complete", eer=0.10, train_energy_kwh=2.0, repetitions=2, eer_mean=0.14)
    steady = trial(1, 0.12, 2.0)
    assert numbers(pareto_front([lucky, steady])) == [1]
    assert numbers(pareto_front([lucky, trial(2, 0.15, 2.0)])) == [0]
    ends = [trial(3, 0.20, 1.0), trial(4, 0.10, 4.0)]
    # ln 2 lies half-way: below 0.15 is below the chord.
    assert knee([ends[0], lucky, ends[1]]).number == 0
    unlucky = TrialRecord(number=5, state="complete", eer=0.11, train_energy_kwh=2.0, repetitions=2, eer_mean=0.16)
    assert knee([ends[0], unlucky, ends[1]]).number == 4


def test_the_knee_of_three_is_farthest_below_the_plane_through_the_extremes():
    # Scaled to [0, 1] the extremes are the unit points, so the plane is x + y + z = 1 and the sums decide.
    front = [
        of_three(0, 0.0, 10.0, 10),
        of_three(1, 0.5, 1.0, 10),
        of_three(2, 0.5, 10.0, 1),
        of_three(3, 0.1, 10.0**0.3, 2),
        of_three(4, 0.2, 10.0**0.3, 2),
    ]
    extremes = [of_three(0, 0.0, 10.0, 10), of_three(1, 0.5, 1.0, 10), of_three(2, 0.5, 10.0, 1)]
    assert knee(front, THREE).number == 3
    # All on one plane or above: no knee, so the most accurate.
    assert knee(extremes, THREE).number == 0


def test_two_objectives_that_go_together_count_as_one_at_the_knee():
    """Energy and parameters in proportion: the knee is that of two objectives."""
    points = [(0.20, 1.0), (0.15, 10.0), (0.11, 100.0), (0.10, 10_000.0)]
    two = [trial(number, eer, energy) for number, (eer, energy) in enumerate(points)]
    three = [of_three(number, eer, energy, int(7 * energy)) for number, (eer, energy) in enumerate(points)]
    assert knee(three, THREE).number == knee(two).number == 2
