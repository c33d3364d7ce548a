import numpy as np

from greensv.search.objectives import objectives_of
from greensv.search.scheduling.extrapolation import fit
from greensv.search.scheduling.optimism import is_hopeless

OBJECTIVES = objectives_of(("eer", "train_energy"))
TOP = np.array([[0.05, 50.0], [0.04, 100.0]])


def halving():
    """From a rung whose error is always twice the top's."""
    random = np.random.default_rng(0)
    features = np.log(np.column_stack([random.uniform(0.05, 0.2, 200), random.uniform(20, 200, 200)]))
    return fit(features, features[:, 0] - np.log(2) + random.normal(0, 0.01, 200))


def hopeless(*candidates, line=None, tolerance=0.1):
    values = np.array(candidates)
    found = is_hopeless(values, line or halving(), top=TOP, objectives=OBJECTIVES, energy_tolerance=tolerance)
    return found.tolist()


def test_what_will_be_worse_and_costs_more_is_hopeless():
    assert hopeless((0.11, 60.0), (0.09, 60.0), (0.079, 120.0)) == [True, False, False]


def test_what_is_cheaper_than_all_else_is_not():
    assert hopeless((0.30, 40.0)) == [False]


def test_nearly_the_same_energy_is_the_same():
    assert hopeless((0.11, 48.0)) == [True]
    assert hopeless((0.11, 48.0), tolerance=0.0) == [False]


def test_what_may_be_better_by_luck_is_not():
    assert hopeless((0.1005, 60.0)) == [False]


def test_where_little_is_known_nothing_is_hopeless():
    assert hopeless((0.11, 60.0), line=fit(np.zeros((0, 2)), np.zeros(0))) == [False]


def test_three_objectives_need_to_be_worse_in_all():
    objectives = objectives_of(("eer", "train_energy", "params"))
    random = np.random.default_rng(0)
    features = np.log(random.uniform(0.1, 0.2, (200, 3)))
    line = fit(features, features[:, 0] + random.normal(0, 0.01, 200))
    top = np.array([[0.05, 50.0, 5e6]])
    values = np.array([[0.1, 60.0, 6e6], [0.1, 60.0, 4e6]])
    found = is_hopeless(values, line, top=top, objectives=objectives, energy_tolerance=0.1)
    assert found.tolist() == [True, False]
