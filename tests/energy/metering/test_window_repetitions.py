import math
from datetime import UTC, datetime

import pytest

from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.repetitions import combine_repetitions
from greensv.energy.metering.window import EnergyWindow


def window(energy_j: float, *, gain: float = 0.0, other_j: float = 0.0) -> EnergyWindow:
    scale_j = gain * energy_j
    found = Reading(
        domain=Domain("gpu", "GPU-1"),
        meter="nvml",
        quality="measured",
        energy_j=energy_j,
        uncertainty_j=math.hypot(scale_j, other_j),
        scale_uncertainty_j=scale_j,
        resolution_s=0.1,
    )
    return EnergyWindow(name="training", started_at=datetime.now(UTC), duration_s=20.0, readings=(found,))


def test_a_window_states_a_95_percent_interval_and_its_resolution():
    result = window(1000, gain=0.05)
    assert result.uncertainty_j == pytest.approx(50)
    assert result.interval_j == (pytest.approx(1000 - 98), pytest.approx(1000 + 98))
    assert result.resolution_s == 0.1
    assert window(10, gain=0.9).interval_j[0] == 0


def test_the_mean_of_repetitions_keeps_the_scale_and_averages_the_rest():
    result = combine_repetitions([window(energy_j, gain=0.05) for energy_j in (980, 1000, 1020)])
    assert (result.num, result.mean_j) == (3, 1000)
    assert result.deviation_j == pytest.approx(20)
    assert result.uncertainty_j == pytest.approx(math.hypot(20 / math.sqrt(3), 50))
    # Welch and Satterthwaite: 2 × (51.3 / 11.5)^4 = 783 degrees of freedom, so the row of 100.
    assert result.interval_j[1] == pytest.approx(1000 + 1.984 * result.uncertainty_j)


def test_few_repetitions_without_a_scale_error_use_students_t():
    result = combine_repetitions([window(energy_j) for energy_j in (980, 1000, 1020)])
    assert result.interval_j[1] == pytest.approx(1000 + 4.30 * 20 / math.sqrt(3))


def test_repetitions_that_agree_by_chance_are_no_better_than_their_windows():
    result = combine_repetitions([window(1000, other_j=10), window(1000, other_j=10)])
    assert result.deviation_j == 0
    assert result.uncertainty_j == pytest.approx(10 / math.sqrt(2))


def test_a_single_window_has_no_deviation():
    result = combine_repetitions([window(1000, gain=0.05, other_j=10)])
    assert result.deviation_j is None
    assert result.uncertainty_j == pytest.approx(math.hypot(50, 10))
    assert result.interval_j[1] == pytest.approx(1000 + 1.96 * math.hypot(50, 10))
