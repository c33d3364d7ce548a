import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from greensv.errors import ConfigError
from greensv.search.simulation.problems import PROBLEMS, problem_named
from greensv.search.simulation.surrogate import Table1Surrogate
from greensv.speaker.space import check_point

# Table 1: blocks, log2 of the width, measured kWh, average EER in %.
ROWS_WITHIN_THE_SPACE = [
    ((3, 24, 36, 3), 0, 222.53, 3.44),
    ((3, 4, 23, 3), 0, 135.27, 3.54),
    ((3, 4, 6, 3), 0, 51.69, 3.75),
    ((8, 2, 2, 2), 0, 76.67, 3.80),
    ((2, 8, 2, 2), 0, 52.06, 3.65),
    ((2, 2, 8, 2), 0, 49.33, 3.68),
    ((2, 2, 2, 8), 0, 47.0, 3.91),
    ((2, 6, 6, 2), 0, 53.82, 3.65),
    ((3, 4, 6, 3), 1, 120.76, 3.68),
    ((3, 4, 6, 3), -1, 40.05, 3.89),
    ((3, 4, 6, 3), -2, 34.35, 4.58),
]


def point(blocks, width_log2):
    return {**{f"blocks{i}": b for i, b in enumerate(blocks, start=1)}, "width_log2": width_log2}


def uniform_points(num, *, seed):
    random = np.random.default_rng(seed)
    return [point(map(int, random.integers(1, (9, 25, 37, 9))), int(random.integers(-2, 2))) for _ in range(num)]


@pytest.mark.parametrize(("blocks", "width_log2", "energy_kwh", "eer_percent"), ROWS_WITHIN_THE_SPACE)
def test_the_formula_is_near_the_rows_it_was_fitted_to(blocks, width_log2, energy_kwh, eer_percent):
    eer, fitted_kwh = Table1Surrogate(0.1).truth(point(blocks, width_log2))
    assert fitted_kwh == pytest.approx(energy_kwh, rel=0.16)
    assert 100 * eer == pytest.approx(eer_percent, abs=0.2)


def test_the_energy_of_a_network_computed_by_hand():
    # ResNet-50-W0.25: channels 32, 32, 64, 64 at 28000, 7000, 1760, 440 positions.
    gmac = 18 * (32**2 * (3 * 28000 + 4 * 7000) + 64**2 * (6 * 1760 + 3 * 440)) / 1e9
    mega_activations = 2 * (32 * (3 * 28000 + 4 * 7000) + 64 * (6 * 1760 + 3 * 440)) / 1e6
    expected = 0.516043 * gmac + 0.0154987 * mega_activations + 2.15815 * 16
    _, energy_kwh = Table1Surrogate(0.1).truth(point((3, 4, 6, 3), -2))
    assert energy_kwh == pytest.approx(expected)
    assert Table1Surrogate(0.1).predict_kwh(point((3, 4, 6, 3), -2), from_step=9, to_step=27) == pytest.approx(
        0.02 * expected * 18 / 27
    )


@pytest.mark.parametrize(
    ("kappa", "documented"),
    [(0.02, (0.82, 0.87, 0.93, 0.95)), (0.1, (0.50, 0.61, 0.82, 0.95)), (0.2, (-0.24, 0.09, 0.55, 0.95))],
)
def test_short_trainings_predict_long_ones_as_documented(kappa, documented):
    problem = Table1Surrogate(kappa)
    points = uniform_points(800, seed=0)
    final = [problem.truth(params)[0] for params in points]
    for step, expected in zip(problem.rung_steps, documented, strict=True):
        shown = [problem.train(params, seed=0, from_step=0, to_step=step).eer for params in points]
        assert float(spearmanr(shown, final).statistic) == pytest.approx(expected, abs=0.12)


def test_noise_is_as_large_as_stated_and_the_same_for_the_same_training():
    problem = Table1Surrogate(0.1)
    params = problem.seeds()[0]
    outcomes = [problem.train(params, seed=seed, from_step=9, to_step=27) for seed in range(500)]
    assert np.std(np.log([o.eer for o in outcomes])) == pytest.approx(0.012 + 0.02 / math.sqrt(27), rel=0.1)
    assert np.std(np.log([o.energy_kwh for o in outcomes])) == pytest.approx(0.05, rel=0.1)
    assert np.std(np.log([o.train_energy_kwh for o in outcomes])) == pytest.approx(0.04, rel=0.1)
    assert np.mean([o.energy_kwh for o in outcomes]) == pytest.approx(
        problem.predict_kwh(params, from_step=9, to_step=27), rel=0.02
    )
    assert problem.train(params, seed=7, from_step=9, to_step=27) == outcomes[7]


def test_where_a_training_was_interrupted_does_not_change_its_error():
    problem = Table1Surrogate(0.2)
    params = problem.seeds()[3]
    whole = problem.train(params, seed=5, from_step=0, to_step=27)
    assert problem.train(params, seed=5, from_step=20, to_step=27).eer == whole.eer


def test_the_published_systems_lie_in_the_space_and_cost_little():
    problem = Table1Surrogate(0.1)
    seeds = problem.seeds()
    assert len(seeds) == 6
    for params in seeds:
        check_point(params, problem.space(), name="surrogate")
    assert sum(problem.predict_kwh(params, from_step=0, to_step=27) for params in seeds) == pytest.approx(5.08, abs=0.1)


def test_every_named_problem_is_a_problem_and_another_name_is_refused_with_those_known():
    for name in PROBLEMS:
        problem = problem_named(name)
        assert len(problem.rung_steps) == 4
        if name.startswith("table1"):
            assert problem.reference() == (0.05, 900.0)
    with pytest.raises(ConfigError, match=r"did you mean 'table1-k0\.2'.*known: table1, "):
        problem_named("table1-k02")
