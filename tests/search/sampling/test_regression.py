import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

from greensv.search.sampling.regression import JITTER, Hyperparameters, Regression, _Loss

HYPER = Hyperparameters(lengths=np.array([0.4, 1.5]), smooth=0.8, linear=0.6, behind=0.5, noise=0.2, noise_behind=0.3)


def points(num: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, gaps of four rungs, and values that fall with training, more for larger rows."""
    random = np.random.default_rng(seed)
    rows = random.random((num, 2))
    gaps = random.choice([0.0, 1 / 3, 2 / 3, 1.0], num)
    values = truth(rows) + gaps * (1.0 + rows[:, 1]) + 0.02 * random.standard_normal(num)
    return rows, gaps, values


def truth(rows: np.ndarray) -> np.ndarray:
    values: np.ndarray = np.sin(3 * rows[:, 0]) - 0.5 * rows[:, 1]
    return values


def test_at_gap_0_it_predicts_what_scikit_learn_does():
    rows, _, values = points(30)
    own = Regression(rows, values, gaps=np.zeros(30), hyper=HYPER)
    kernel = (
        ConstantKernel(1.0)
        + ConstantKernel(HYPER.smooth**2) * Matern(HYPER.lengths, nu=2.5)
        + ConstantKernel(HYPER.linear**2) * DotProduct(sigma_0=1e-6)
    )
    theirs = GaussianProcessRegressor(
        kernel + WhiteKernel(HYPER.noise**2 + JITTER), alpha=1e-12, optimizer=None, normalize_y=False
    )
    scaled = (values - values.mean()) / values.std()
    theirs.fit(rows - 0.5, scaled)
    asked = np.random.default_rng(1).random((20, 2))
    mean, deviation = own.predict(asked)
    expected, with_noise = theirs.predict(asked - 0.5, return_std=True)
    without_noise = np.sqrt(with_noise**2 - HYPER.noise**2 - JITTER)
    assert mean == pytest.approx(values.mean() + values.std() * expected, abs=1e-8)
    assert deviation == pytest.approx(values.std() * without_noise, abs=1e-8)


def test_the_losss_gradient_is_that_of_finite_differences():
    rows, gaps, values = points(15)
    loss = _Loss(rows, gaps, (values - values.mean()) / values.std())
    logs = loss.means + 0.3 * np.random.default_rng(2).standard_normal(len(loss.means))
    expected = approx_fprime(logs, lambda at: loss(at)[0], 1e-6)
    assert loss(logs)[1] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_it_learns_what_a_whole_training_shows_mostly_from_short_ones():
    rows, gaps, values = points(60)
    gaps[:50] = np.maximum(gaps[:50], 1 / 3)  # ten at the most were trained to the end
    values = truth(rows) + gaps * (1.0 + rows[:, 1])
    asked = np.random.default_rng(3).random((100, 2))
    mean, deviation = Regression(rows, values, gaps=gaps).predict(asked)
    error = mean - truth(asked)
    assert np.sqrt(np.mean(error**2)) < 0.1  # the truth's own deviation is 0.3
    assert np.mean(np.abs(error) < 2 * deviation) > 0.9


def test_what_is_believed_is_certain_and_changes_no_prediction():
    rows, gaps, values = points(20)
    regression = Regression(rows, values, gaps=gaps)
    asked = np.array([[0.9, 0.05], [0.1, 0.9]])
    mean, deviation = regression.predict(asked)
    believed_mean, believed_deviation = regression.believing(asked[:1]).predict(asked)
    assert believed_mean == pytest.approx(mean, abs=1e-3)
    assert believed_deviation[0] < 0.8 * deviation[0]
    assert believed_deviation[1] <= deviation[1] + 1e-9
    assert regression.believing(np.zeros((0, 2))) is regression


@pytest.mark.parametrize("num", [1, 2, 5])
def test_it_fits_a_few_equal_points(num: int):
    mean, deviation = Regression(np.full((num, 2), 0.5), np.full(num, 3.0), gaps=np.zeros(num)).predict(np.ones((1, 2)))
    assert mean == pytest.approx([3.0], abs=1e-3)
    assert np.isfinite(deviation).all()


def test_a_space_of_one_point_has_no_columns():
    values = np.array([1.0, 2.0, 3.0])
    mean, _ = Regression(np.zeros((3, 0)), values, gaps=np.zeros(3)).predict(np.zeros((2, 0)))
    assert mean == pytest.approx([2.0, 2.0])


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        Regression(np.zeros((2, 1)), np.array([1.0, np.nan]), gaps=np.zeros(2))
