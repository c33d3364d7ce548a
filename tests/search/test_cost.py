import math

import pytest

from greensv.search.cost import (
    GMAC_WEIGHT,
    MEGA_ACTIVATION_WEIGHT,
    UNKNOWN_SPREAD,
    CostModel,
    Measured,
    Work,
)


def work(units: float) -> Work:
    return Work(macs=units / GMAC_WEIGHT * 1e9, activations=0.0)


def measured(units: float, joules: float, seconds: float = 1.0) -> Measured:
    return Measured(work=work(units), joules=joules, seconds=seconds)


def test_the_prior_weighs_macs_and_activations():
    assert Work(macs=2e9, activations=0.0).units == pytest.approx(2 * GMAC_WEIGHT)
    assert Work(macs=0.0, activations=3e6).units == pytest.approx(3 * MEGA_ACTIVATION_WEIGHT)
    assert work(5.0).units == pytest.approx(5.0)


def test_one_measurement_scales_in_proportion_to_the_work_and_to_the_speech():
    model = CostModel([measured(2.0, 10.0, seconds=0.5)])
    found = model.predict(work(6.0), speech_s=7.0)
    assert found.energy_j == pytest.approx(3 * 10 * 7)
    assert found.duration_s == pytest.approx(3 * 0.5 * 7)


def test_two_measurements_bend_the_scale():
    # ln joules over ln units: from (0, ln 10) to (ln 16, ln 40) the slope is 1/2.
    model = CostModel([measured(1.0, 10.0), measured(16.0, 40.0)])
    assert model.predict(work(4.0), speech_s=1.0).energy_j == pytest.approx(20.0)


@pytest.mark.parametrize(("joules", "slope"), [(1e6, 1.2), (10.0, 0.3), (1.0, 0.3)])
def test_the_slope_keeps_to_its_bounds(joules: float, slope: float):
    model = CostModel([measured(1.0, 10.0), measured(100.0, joules)])
    low, high = (model.predict(work(units), speech_s=1.0).energy_j for units in (1.0, 10.0))
    assert math.log10(high / low) == pytest.approx(slope)


def test_measurements_of_one_size_tell_no_slope():
    model = CostModel([measured(1.0, 10.0), measured(1.05, 1000.0)])
    low, high = (model.predict(work(units), speech_s=1.0).energy_j for units in (1.0, 10.0))
    assert high / low == pytest.approx(10.0)


def test_the_upper_bound_of_one_measurement_is_two_unknown_deviations_above():
    found = CostModel([measured(1.0, 10.0)]).predict(work(1.0), speech_s=1.0)
    # Variance (0 + 2 · 0.5² / 1) / 2 = 0.5²: two deviations are e.
    assert UNKNOWN_SPREAD == 0.5
    assert found.upper_j == pytest.approx(10.0 * math.e)


def test_the_spread_fades_as_points_come_in_down_to_15_percent():
    model = CostModel()
    spreads = []
    for number in range(60):
        model.add(measured(2.0**number, 3.0 * 2.0**number))
        found = model.predict(work(1.0), speech_s=1.0)
        assert found.energy_j == pytest.approx(3.0)
        spreads.append(found.upper_j / found.energy_j)
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] == pytest.approx(1.15)


def test_the_spread_stays_where_the_points_scatter():
    model = CostModel([measured(2.0**n, 2.0**n * (4.0 if n % 2 else 1.0)) for n in range(20)])
    found = model.predict(work(1.0), speech_s=1.0)
    # Points lie ln 2 off the line each: two deviations are about 2 ln 2, a factor of 4.
    assert found.upper_j / found.energy_j == pytest.approx(4.0, rel=0.1)


def test_the_upper_bound_is_at_most_a_few_times_the_prediction():
    model = CostModel([measured(1.0, 1.0), measured(1.0, 1e6), measured(1.0, 1e-6)])
    found = model.predict(work(1.0), speech_s=1.0)
    assert found.upper_j / found.energy_j == pytest.approx(math.exp(1.5))
