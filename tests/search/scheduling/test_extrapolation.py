import numpy as np
import pytest

from greensv.search.scheduling.extrapolation import fit, left_out, log_eer


def pairs(num, *, seed=0, slope=-0.1, noise=0.01):
    """Errors at a rung, energies, and errors at the top: larger networks fall further."""
    random = np.random.default_rng(seed)
    features = np.column_stack([np.log(random.uniform(0.1, 0.2, num)), np.log(random.uniform(20, 300, num))])
    log_top = features[:, 0] - 1.0 + slope * (features[:, 1] - 4.5) + random.normal(0, noise, num)
    return features, log_top


def test_without_pairs_the_order_of_the_rung_is_kept_and_nothing_is_certain():
    line = fit(np.zeros((0, 2)), np.zeros(0))
    mean, deviation = line.predict(np.log(np.array([[0.1, 20.0], [0.2, 300.0]])))
    assert mean.tolist() == np.log([0.1, 0.2]).tolist()
    assert (deviation > 0.5).all()


def test_many_pairs_show_how_far_larger_networks_fall():
    features, log_top = pairs(200)
    line = fit(features, log_top)
    assert line.weights[2] == pytest.approx(-0.1, abs=0.01)
    assert line.noise == pytest.approx(0.01, rel=0.3)
    new, truth = pairs(50, seed=1, noise=0.0)
    mean, deviation = line.predict(new)
    assert np.abs(mean - truth).max() < 0.02
    assert (deviation < 0.03).all()


def test_few_noisy_pairs_move_the_slopes_little_and_the_offset_much():
    for seed in range(10):
        features, log_top = pairs(4, seed=seed, slope=0.0, noise=0.1)
        line = fit(features, log_top)
        assert line.weights[0] == pytest.approx((log_top - features[:, 0]).mean(), abs=0.05)
        free = np.polyfit(features[:, 1], log_top - features[:, 0], 1)[0]
        assert abs(line.weights[2]) < max(abs(free), 0.05)


def test_three_objectives_have_a_slope_each():
    random = np.random.default_rng(0)
    features = random.normal(size=(100, 3))
    log_top = features[:, 0] - 2 + 0.2 * features[:, 1] - 0.1 * features[:, 2]
    assert fit(features, log_top).weights[2:] == pytest.approx([0.2, -0.1], abs=0.02)


def test_leaving_out_in_closed_form_is_leaving_out():
    features, log_top = pairs(30, noise=0.05)
    line = fit(features, log_top)
    predicted = left_out(line, features, log_top)
    for out in range(30):
        keep = np.arange(30) != out
        mean, _ = fit(features[keep], log_top[keep]).predict(features[out : out + 1])
        assert predicted[out] == pytest.approx(mean[0], abs=0.01)


def test_an_error_of_zero_is_a_small_one():
    assert np.isfinite(log_eer(np.array([0.0]))).all()
