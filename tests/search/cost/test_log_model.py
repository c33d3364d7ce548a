import math

import numpy as np
import pytest

from greensv.search.cost.log_model import MISFIT_LOG_STD, TAIL, LogModel
from greensv.search.cost.work import Prior, Work

PRIOR = Prior(per_gmac=10.0, per_mega_activation=1.0, per_layer=0.01, per_second=0.05, level_log_std=1.0)


def work(gmac: float, mega_activations: float = 1.0, num_layers: float = 20.0) -> Work:
    return Work(macs=1e9 * gmac, activations=1e6 * mega_activations, num_layers=num_layers)


def cost(of: Work, *, scale: float = 1.0, per_gmac: float = 10.0, per_layer: float = 0.01) -> float:
    return scale * (per_gmac * of.macs / 1e9 + of.activations / 1e6 + per_layer * of.num_layers + 0.05)


def drawn(random: np.random.Generator) -> Work:
    return work(10 ** random.uniform(-2, 0.5), 10 ** random.uniform(-1, 1), float(random.integers(5, 80)))


def test_one_measurement_scales_the_prior():
    model = LogModel(PRIOR)
    model.add(work(1.0), cost(work(1.0), scale=7.0))
    # The prior's sum for these is 11.25 and 31.25.
    assert model.predict(work(1.0))[0] == pytest.approx(7 * 11.25, rel=1e-3)
    assert model.predict(work(3.0))[0] == pytest.approx(7 * 31.25, rel=1e-3)


def test_before_any_measurement_the_prior_is_taken_as_it_is():
    value, log_std = LogModel(PRIOR, log_level=math.log(2.0)).predict(work(1.0))
    assert value == pytest.approx(2 * 11.25)
    # Level and misfit, and the weights by their shares of the sum: 10, 1, 0.2 and 0.05 of 11.25.
    shares = np.array([10.0, 1.0, 0.2, 0.05]) / 11.25
    variance = 1.0 + float(shares @ shares) + MISFIT_LOG_STD**2 * TAIL / (TAIL - 2)
    assert log_std == pytest.approx(math.sqrt(variance))


def test_what_was_measured_is_found_where_the_prior_is_wrong_about_the_parts():
    random, model = np.random.default_rng(0), LogModel(PRIOR)
    for _ in range(60):
        network = drawn(random)
        noise = math.exp(random.normal(0, 0.03))
        model.add(network, noise * cost(network, scale=3.0, per_gmac=40.0, per_layer=0.1))
    for network in (work(0.02, 0.2, 70), work(3.0, 1.0, 8), work(0.3, 9.0, 30)):
        expected = cost(network, scale=3.0, per_gmac=40.0, per_layer=0.1)
        assert model.predict(network)[0] == pytest.approx(expected, rel=0.06)


def test_a_network_of_another_kind_is_less_certain_than_one_like_those_measured():
    model = LogModel(PRIOR)
    model.add(work(1.0, 0.1, 1), 10.2)
    _, like = model.predict(work(1.1, 0.1, 1))
    _, other = model.predict(work(0.001, 5.0, 1))
    assert like < 0.3
    assert other > 1.0


def test_one_measurement_far_off_moves_little():
    random = np.random.default_rng(1)
    clean, spoilt = LogModel(PRIOR), LogModel(PRIOR)
    for _ in range(12):
        network = drawn(random)
        value = cost(network) * math.exp(random.normal(0, 0.05))
        clean.add(network, value)
        spoilt.add(network, value)
    spoilt.add(work(0.3), 8 * cost(work(0.3)))
    for network in (work(0.1), work(0.3), work(2.0)):
        assert spoilt.predict(network)[0] == pytest.approx(clean.predict(network)[0], rel=0.12)


def test_intervals_hold_as_often_as_they_say():
    random, inside = np.random.default_rng(2), []
    for _ in range(60):
        model, scale = LogModel(PRIOR), 10 ** random.uniform(-3, 3)
        for number in range(12):
            network = drawn(random)
            value = cost(network, scale=scale, per_gmac=4.0) * math.exp(random.normal(0, 0.15))
            if number >= 6:
                found, log_std = model.predict(network)
                inside.append(abs(math.log(value / found)) <= 1.96 * log_std)
            model.add(network, value)
    assert 0.9 <= np.mean(inside) <= 1.0


def test_measurements_with_an_offset_of_their_own_tell_the_ratios_and_leave_the_scale_to_others():
    model = LogModel(PRIOR)
    random = np.random.default_rng(3)
    for _ in range(30):
        network = drawn(random)
        model.add(network, cost(network, scale=2.0, per_gmac=40.0), offsets={"another study": 0.5})
    before, log_std = model.predict(work(1.0))
    assert before == pytest.approx(cost(work(1.0), scale=2.0, per_gmac=40.0), rel=0.1)
    assert log_std > 0.5
    # One of this study's own, on a scale of 3 instead of 2.
    model.add(work(0.05), cost(work(0.05), scale=3.0, per_gmac=40.0))
    after, log_std = model.predict(work(1.0))
    assert after == pytest.approx(cost(work(1.0), scale=3.0, per_gmac=40.0), rel=0.12)
    assert log_std < 0.3


def test_many_are_predicted_as_one_by_one():
    random, model = np.random.default_rng(4), LogModel(PRIOR)
    for _ in range(9):
        network = drawn(random)
        model.add(network, cost(network))
    networks = [drawn(random) for _ in range(64)]
    values, log_stds = model.predict_many(networks)
    assert values.shape == log_stds.shape == (64,)
    for network, value, log_std in zip(networks, values, log_stds, strict=True):
        assert model.predict(network) == pytest.approx((value, log_std))


def test_work_of_which_only_the_macs_are_known_is_predicted_by_them():
    model = LogModel(PRIOR)
    for macs in (1e9, 4e9, 16e9):
        model.add(Work(macs=macs, activations=0.0), 5e-9 * macs)
    assert model.predict(Work(macs=8e9, activations=0.0))[0] == pytest.approx(40.0, rel=0.02)


def test_nothing_is_predicted_from_nothing():
    with pytest.raises(AssertionError, match="measure a network"):
        LogModel(PRIOR).predict(work(1.0))
